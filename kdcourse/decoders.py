"""What the decoder of an encoder-decoder reads: its labels, one place to the right (lesson 06).

Labels are taken out of what the models read, so that neither computes a loss of its own. With them goes what decoders
make of them. A decoder without tokens fails at best: BART's would read its encoder's text, one place to the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

from kdcourse.checks import IGNORED_LABEL, MismatchError
from kdcourse.columns import DECODER_COLUMN, LABELS, TEACHER_PREFIX, Batch, has_own_columns, unwrapped

ANY_LABELS = [[2**20, 2**20 + 1]]
"""Ids that stand for nothing else, to see how a model begins."""


def with_decoder_ids(batch: Batch, models: Sequence[Any]) -> dict[str, Any]:
    """The batch with `decoder_input_ids`, of its labels if it brings none; a teacher with columns of its own reads the
    same ids, since it is asked about the same tokens.

    Args:
        models: the student, then its teachers; by the rule of the first that has one.

    Raises:
        MismatchError: nobody has a rule, or labels are padded on the left.
        ValueError: there are neither ids nor labels.
    """
    ids = batch.get(DECODER_COLUMN)
    if ids is None:
        labels = batch.get(LABELS)
        if labels is None:
            raise ValueError(
                f"The batch has neither labels nor {DECODER_COLUMN}, but a decoder says what follows on tokens that it "
                "is given; add the column labels, or generate a text with the student first."
            )
        _require_padding_behind(batch)
        ids = decoder_ids(labels, models)
    _, *teachers = models
    has_own = any(has_own_columns(batch, teacher) for teacher in teachers)
    theirs = {TEACHER_PREFIX + DECODER_COLUMN: ids} if has_own else {}
    return {DECODER_COLUMN: ids, **theirs, **{name: each for name, each in batch.items() if each is not None}}


def _require_padding_behind(batch: Batch) -> None:
    """Labels are not padded on the left, beside texts that are: before its own text, a decoder would read padding."""
    labels, mask = batch[LABELS], batch.get("attention_mask")
    if mask is None or mask.ndim != 2:  # noqa: PLR2004  (of whole attention, or of no texts)
        return
    is_left = (mask[:, 0] == 0).any()
    begins_later, ends_earlier = (labels[:, [0, -1]] == IGNORED_LABEL).any(dim=0)
    if is_left & begins_later & ~ends_earlier:
        raise MismatchError(
            "Labels are padded on the left, so that a decoder would read padding before a text. Pad them on the right, "
            "tokenizer.padding_side = 'right' for the data_collator; or, if those tokens are not to be learnt, let it "
            f"add {DECODER_COLUMN}."
        )


def decoder_ids(labels: Tensor, models: Sequence[Any]) -> Tensor:
    """The tokens after which each label is to be said, (B, T): the labels one place to the right, padding for -100, and
    in front the token that a model begins with. mBART begins with the last label, the code of a language: a model's own
    rule comes first.

    Raises:
        MismatchError: none of the models has a rule.
    """
    for model in map(unwrapped, models):
        if hasattr(model, "prepare_decoder_input_ids_from_labels"):
            return _by_its_own_rule(model, labels)
        config = getattr(model, "config", None)
        first, padding = (getattr(config, name, None) for name in ("decoder_start_token_id", "pad_token_id"))
        if first is not None and padding is not None:
            shifted = F.pad(labels[:, :-1], (1, 0), value=first)
            return shifted.masked_fill(shifted == IGNORED_LABEL, padding)
    raise _no_rule(models[0])


def _by_its_own_rule(model: Any, labels: Tensor) -> Tensor:
    try:
        return model.prepare_decoder_input_ids_from_labels(labels.clone())  # in FSMT's, -100 would be overwritten
    except (AttributeError, TypeError, ValueError) as error:  # of an id that is missing, or None
        raise _no_rule(model) from error


def _no_rule(model: Any) -> MismatchError:
    return MismatchError(
        f"Nothing says with which token the decoder of {type(unwrapped(model)).__name__} begins, and what stands for "
        "padding; set config.decoder_start_token_id and config.pad_token_id as its tokenizer has them, or let the "
        f"data_collator add {DECODER_COLUMN}."
    )


def require_same_beginning(student: Any, teacher: Any) -> None:
    """Both read the same tokens, so both have to know the one that a text begins with.

    Raises:
        MismatchError: by their rules, it is another one.
    """
    labels = torch.tensor(ANY_LABELS)
    try:
        ours, theirs = (decoder_ids(labels, [model]) for model in (student, teacher))
    except MismatchError:  # one of them has no rule, and reads what the other's makes, or what the batch brings
        return
    if not torch.equal(ours, theirs):
        said = [getattr(unwrapped(model).config, "decoder_start_token_id", None) for model in (student, teacher)]
        raise MismatchError(
            f"The decoders of student ({type(unwrapped(student)).__name__}, decoder_start_token_id {said[0]}) and "
            f"teacher ({type(unwrapped(teacher)).__name__}, {said[1]}) begin a text differently, but both read the "
            "same ids; set student.config.decoder_start_token_id to the teacher's, or take two models that begin alike."
        )
