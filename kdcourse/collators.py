"""Batches of uneven rows, padded for one tokenizer or for two (lessons 05 and 06)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdcourse.columns import TEACHER_PREFIX, TOKEN_COLUMNS

if TYPE_CHECKING:
    from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

Rows = list[dict[str, Any]]
Collator = Callable[[Rows], Any]


def collator(
    tokenizer: PreTrainedTokenizerBase, teacher_tokenizer: PreTrainedTokenizerBase | None = None
) -> DataCollatorWithPadding | TwoTokenizersCollator:
    """Pads a classifier's batch to its longest sentence, and renames `label` to `labels` on the way.

    With a teacher's own tokenizer, the columns that `tokenize(..., prefix="teacher_")` made are padded beside it.
    """
    from transformers import DataCollatorWithPadding

    padding = DataCollatorWithPadding(tokenizer)
    if teacher_tokenizer is None:
        return padding
    return TwoTokenizersCollator(padding, DataCollatorWithPadding(teacher_tokenizer))


@dataclass
class TwoTokenizersCollator:
    """Student and teacher read the same sentence, each in its own ids and padded to its own length."""

    student: Collator
    teacher: Collator

    def __call__(self, rows: Rows) -> dict[str, Any]:
        theirs = {TEACHER_PREFIX + name for name in TOKEN_COLUMNS} & rows[0].keys()
        student = self.student([{name: row[name] for name in row if name not in theirs} for row in rows])
        teacher = self.teacher([{name.removeprefix(TEACHER_PREFIX): row[name] for name in theirs} for row in rows])
        return {**student, **{TEACHER_PREFIX + name: tensor for name, tensor in teacher.items()}}


@dataclass
class LanguageModelCollator:
    """Pads a batch of token ids and labels for a causal language model.

    Without `labels`, every token is one. Padding is told by its position, not by its id: where the pad token is also
    the end-of-text token, as in GPT-2, collators that go by the id erase each text's end from the labels (trl#6357).
    """

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, rows: Rows) -> Any:
        from transformers import DataCollatorForSeq2Seq

        return DataCollatorForSeq2Seq(self.tokenizer)([{"labels": row["input_ids"], **row} for row in rows])
