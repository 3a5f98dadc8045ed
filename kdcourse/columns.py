"""Whose is a column of a batch: the student's, the teacher's, or nobody's but the loss's (lesson 05)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Batch = Mapping[str, Any]

TOKEN_COLUMNS = ("input_ids", "attention_mask", "token_type_ids")
"""What a tokenizer makes, and a collator pads."""

TEACHER_PREFIX = "teacher_"
"""Whatever is the teacher's in a batch begins with it; the student does not see it."""

LOGITS_COLUMN = TEACHER_PREFIX + "logits"
"""A dataset column with logits, for a classifier."""

ROW_COLUMN = TEACHER_PREFIX + "row"
"""A dataset column with each example's row in a cache."""

TEACHER_COLUMNS = (LOGITS_COLUMN, ROW_COLUMN, *(TEACHER_PREFIX + name for name in TOKEN_COLUMNS))
"""What the Trainer must not drop, although no student's forward names it."""


def student_features(batch: Batch) -> dict[str, Any]:
    """What the student reads of a batch: neither labels (it would compute a loss of its own) nor the teacher's part."""
    return {name: value for name, value in batch.items() if name != "labels" and not name.startswith(TEACHER_PREFIX)}


def teacher_features(batch: Batch) -> dict[str, Any]:
    """What the teacher reads of a batch: `teacher_input_ids` and so on, or else what the student reads."""
    own = {name.removeprefix(TEACHER_PREFIX): value for name, value in batch.items() if name.startswith(TEACHER_PREFIX)}
    return own if "input_ids" in own else student_features(batch)


def tokenize(
    dataset: Any, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None, *, prefix: str = ""
) -> Any:
    """Add `input_ids` and `attention_mask` of the column `text` to a `Dataset` or `DatasetDict`.

    With the prefix "teacher_", they are what a teacher with a tokenizer of its own reads beside the student.

    No `token_type_ids`: BERT takes their absence for zeros, but GPT-2 would look them up in its word embeddings and add
    the word with id 0 to every token.

    Args:
        max_length: tokens that a text is cut at; the tokenizer's own limit if there is none.
    """

    def encode(batch: dict[str, list[str]]) -> Any:
        encoded = tokenizer(batch["text"], truncation=True, max_length=max_length, return_token_type_ids=False)
        return {prefix + name: ids for name, ids in encoded.items()}

    return dataset.map(encode, batched=True, desc=None)
