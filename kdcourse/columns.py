"""Whose is a column of a batch: the student's, the teacher's, or nobody's but the loss's (lesson 05)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

Batch = Mapping[str, Any]

Answer = TypeVar("Answer")

TOKEN_COLUMNS = ("input_ids", "attention_mask", "token_type_ids")
"""What a tokenizer makes, and a collator pads."""

LABELS = "labels"
"""The one column that neither model sees: it would compute a loss of its own."""

LABEL_COLUMNS = ("label", LABELS, "label_ids")
"""What datasets call it."""

DECODER_COLUMN = "decoder_input_ids"
"""What the decoder of an encoder-decoder reads."""

TEACHER_PREFIX = "teacher_"
"""Whatever is the teacher's in a batch begins with it; the student does not see it."""

LOGITS_COLUMN = TEACHER_PREFIX + "logits"
"""A dataset column with logits, for a classifier."""

ROW_COLUMN = TEACHER_PREFIX + "row"
"""A dataset column with each example's row in a cache."""

CACHE_COLUMN = TEACHER_PREFIX + "cache"
"""A dataset column with a number that tells which rows that row is among (see `provenance.number_of_rows`)."""

PLACE = (ROW_COLUMN, CACHE_COLUMN)
"""What says together where an example is in a cache."""

TOPK_IDS_COLUMN = TEACHER_PREFIX + "topk_ids"
"""A dataset column with the token ids that somebody else's top k are for (see `kdcourse.served`)."""

TOPK_LOG_PROBS_COLUMN = TEACHER_PREFIX + "topk_log_probs"
"""A dataset column with their log-probabilities."""

ANSWERS = (LOGITS_COLUMN, *PLACE, TOPK_IDS_COLUMN, TOPK_LOG_PROBS_COLUMN)
"""What of a teacher's columns is its answer, and not what it reads."""


class SignatureColumns(list[str]):
    """The columns that student and teacher read, by name; and any that is the teacher's.

    Args:
        is_theirs: whether a column is, by its name.
    """

    def __init__(self, names: Iterable[str], is_theirs: Callable[[str], bool]) -> None:
        super().__init__(names)
        self.is_theirs = is_theirs

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or self.is_theirs(str(name))


def once_per_model(look: Callable[[Any], Answer]) -> Callable[[Any], Answer]:
    """What is the same at every step is looked up at the first: a large model has thousands of modules."""
    seen: WeakKeyDictionary[Any, Answer] = WeakKeyDictionary()

    @functools.wraps(look)
    def look_once(model: Any) -> Answer:
        if model not in seen:
            seen[model] = look(model)
        return seen[model]

    return look_once


@once_per_model
def arguments_of(model: nn.Module) -> frozenset[str]:
    """The arguments that a model's forward names, inside whatever wraps the model."""
    return frozenset(
        each.name for each in _parameters(model) if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    )


def only_read_by(teacher: Any, student: Any) -> frozenset[str]:
    """The columns that a teacher's forward names and a student's does not; none if the student's takes anything."""
    students = arguments_of(student)
    return arguments_of(teacher) - students - {LABELS} if students else frozenset()


def is_packed(batch: Batch) -> bool:
    """Whether several texts are in one row, told apart by positions that begin anew; a row with padding holds one."""
    positions, mask = batch.get("position_ids"), batch.get("attention_mask")
    if positions is None or len(positions) != 1:
        return False
    return mask is None or mask.ndim != 2 or bool(mask.all())  # noqa: PLR2004  (of whole attention, not of padding)


def is_own_column(name: str, teacher: nn.Module) -> bool:
    """Whether a column is for this teacher to read, in the place of the student's.

    Other columns may begin like that, too: `teacher_response` says where a text is from. What a tokenizer makes is
    always meant to be read, and anything is where forward names nothing.
    """
    own, named = name.removeprefix(TEACHER_PREFIX), arguments_of(teacher)
    if not name.startswith(TEACHER_PREFIX) or name in ANSWERS:
        return False
    return own in named or own in TOKEN_COLUMNS or not named


def has_own_columns(batch: Batch, teacher: nn.Module) -> bool:
    """Whether a batch brings what a teacher reads in the place of the student's columns."""
    return any(is_own_column(name, teacher) for name in batch)


def unwrapped(model: Any) -> Any:
    """The model inside an adapter of peft, `torch.compile` or a distributed wrapper."""
    while True:
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif type(model).__name__ in ("DistributedDataParallel", "FullyShardedDataParallel", "DataParallel"):
            model = model.module
        else:
            return model


def student_features(batch: Batch, others: frozenset[str] = frozenset()) -> dict[str, Any]:
    """What the student reads of a batch: neither labels nor the teacher's part, nor `others` that it cannot read."""
    return {name: value for name, value in _shared(batch).items() if name not in others}


def teacher_features(batch: Batch, model: nn.Module) -> dict[str, Any]:
    """What the teacher reads of a batch: its own columns, without their prefix; or, where it has none, the student's.
    Columns that are called as if they were its own, and that its forward does not name, are left out.

    Of the student's columns it gets those that its forward names. Token types are left out where they would not be
    segments: GPT-2 looks them up among its words.

    Raises:
        ValueError: a tokenizer's column of its own that its forward does not name.
    """
    named = arguments_of(model)
    own = {name.removeprefix(TEACHER_PREFIX): value for name, value in batch.items() if is_own_column(name, model)}
    takes_more = _takes_more(model)
    if own:
        unknown = sorted(own.keys() - named)
        if unknown and (not takes_more or unknown[0] in TOKEN_COLUMNS):
            raise ValueError(
                f"The batch brings {TEACHER_PREFIX}{unknown[0]}, but the teacher ({type(unwrapped(model)).__name__}) "
                f"does not read {unknown[0]}; leave the column out."
            )
        return own
    return {name: value for name, value in _shared(batch).items() if _is_read(name, model, named, takes_more)}


def _is_read(name: str, model: nn.Module, named: frozenset[str], takes_more: bool) -> bool:
    if name in TOKEN_COLUMNS and named:
        return name in named and (name != "token_type_ids" or _has_segments(model))
    return name in named or takes_more


@once_per_model
def _takes_more(model: nn.Module) -> bool:
    """Whether forward takes arguments that it does not name."""
    return any(each.kind == each.VAR_KEYWORD for each in _parameters(model))


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    return list(inspect.signature(unwrapped(model).forward).parameters.values())


def _shared(batch: Batch) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name != LABELS and not name.startswith(TEACHER_PREFIX)}


def reads_segments(model: nn.Module) -> bool:
    """Whether token types, if a batch has them, reach the model and tell it which of two texts a token belongs to."""
    return "token_type_ids" in arguments_of(model) and _has_segments(model)


def _has_segments(model: nn.Module) -> bool:
    """Whether token types tell the model which of two texts a token belongs to."""
    config = getattr(unwrapped(model), "config", None)
    if config is None or getattr(config, "model_type", "") == "xlnet":  # whose segments have no number in its config
        return True
    sizes = getattr(config, "type_vocab_size", None) or getattr(config, "type_vocab_sizes", None) or 0
    return max(sizes) > 1 if isinstance(sizes, (list, tuple)) else sizes > 1


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
