"""Is a text that is padded on its left read as it is alone? Tried once, on a row of the first such batch (lesson 05).

GPT-2 numbers the places of a row, padding included, unless `position_ids` say otherwise. Llama looks at distances, and
OPT numbers what is no padding. BERT's classifiers answer at the first place, which is padding then. So a model is asked
about one text with its padding and without: where the answers differ, it is given positions that begin with the text,
and where they differ all the same, it is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdcourse.checks import MismatchError
from kdcourse.columns import LABELS, TEACHER_PREFIX, Batch, arguments_of, unwrapped
from kdcourse.packing import asked_aside, is_spread

POSITIONS, MASK = "position_ids", "attention_mask"

FEW = 64
"""Tokens of the text that is tried, so that a long one's logits for a large vocabulary take no memory."""

CLOSE, CLOSE_IN_16_BITS = 1e-3, 5e-2
"""By how much of their spread a text's logits may move, root mean square: rows of two lengths are rounded otherwise,
and positions that are wrong move them by more.
"""

Ask = Callable[[nn.Module, Batch], Tensor]


class Reader(NamedTuple):
    """Who reads a batch, and how: a model's logits for it, (B, C) or (B, T, V), of columns that begin with a prefix."""

    role: str
    model: nn.Module
    ask: Ask
    prefix: str = ""


class Places:
    """Gives batches the positions of their texts, if models need them."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self.look_again()

    def look_again(self) -> None:
        """At the next batch with padding: a tokenizer may pad on another side for an evaluation than for a training."""
        self._undecided = {"", TEACHER_PREFIX}

    def placed(self, batch: Batch, readers: Sequence[Reader], *, is_rounded: bool) -> Batch:
        """The batch, with positions where its readers need them.

        Args:
            is_rounded: whether the models compute in 16 bits, whatever they give.

        Raises:
            MismatchError: see `needs_positions`.
        """
        for prefix in {reader.prefix for reader in readers}:
            if prefix in self._undecided and (side := side_of_padding(batch, prefix)):
                self._undecided.discard(prefix)
                theirs = [reader for reader in readers if reader.prefix == prefix]
                if side == "left" and needs_positions(theirs, batch, is_rounded):
                    self._given.add(prefix)
            if prefix in self._given:
                batch = with_positions(batch, prefix)
        return batch


def side_of_padding(batch: Batch, prefix: str = "") -> str | None:
    """ "left" or "right", whichever side some row of a batch is padded on; None without padding, or where positions are
    given. A look at the device.
    """
    mask = batch.get(prefix + MASK)
    is_told = prefix + POSITIONS in batch
    if mask is None or mask.ndim != 2 or is_told or prefix + "input_ids" not in batch:  # noqa: PLR2004  (of whole attention)
        return None
    rows = mask[mask.any(dim=1)]  # one without a token has no side
    left, right = (rows[:, [0, -1]] == 0).any(dim=0).tolist()
    return "left" if left else "right" if right else None


def with_positions(batch: Batch, prefix: str = "") -> Any:
    """The batch with positions that begin where each text begins: 0 for its first token, and for padding before it."""
    mask = batch[prefix + MASK]
    if prefix + POSITIONS in batch or (len(mask) == 1 and mask.all()):  # one row with positions might be packed texts
        return batch
    placed: Any = copy.copy(batch)
    placed[prefix + POSITIONS] = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
    return placed


def needs_positions(readers: Sequence[Reader], batch: Batch, is_rounded: bool) -> bool:
    """Whether models read a text behind its padding as they read it alone only if they are told its positions.

    Args:
        readers: of one prefix.
        batch: padded on the left.

    Raises:
        MismatchError: one of them reads it otherwise even then, or cannot be told.
    """
    prefix = readers[0].prefix
    row = _most_padded(batch, prefix)
    if row is None or any(is_spread(reader.model) for reader in readers):
        return False
    real = row[prefix + MASK].bool()
    alone = {name: value[real][None] if _is_of_tokens(name, value, real) else value for name, value in row.items()}

    def moved(padded: Batch) -> list[Reader]:
        return [reader for reader in readers if _moves(reader, padded, alone, real, is_rounded)]

    if not (wrong := moved(row)):
        return False
    can_be_told = all(POSITIONS in arguments_of(reader.model) for reader in readers)
    if can_be_told and not (wrong := moved(with_positions(row, prefix))):
        return True
    raise MismatchError(
        f"A batch is padded on the left, and the {wrong[0].role} ({type(unwrapped(wrong[0].model)).__name__}) reads a "
        "text otherwise behind padding than alone: it counts positions from the padding on, or answers at the row's "
        "first place. Pad on the right: tokenizer.padding_side = 'right' for the data_collator."
    )


def _most_padded(batch: Batch, prefix: str) -> dict[str, Any] | None:
    """The row that has most padding before its text, of which the first few tokens are kept; None if there is no such
    row, or if columns are not of one entry for each row.
    """
    mask = batch[prefix + MASK]
    if any(isinstance(value, Tensor) and value.shape[:1] != mask.shape[:1] for value in batch.values()):
        return None
    before = mask.long().argmax(dim=1).masked_fill(~mask.bool().any(dim=1), -1)  # of the first 1; a row may have none
    number, most = int(before.argmax()), int(before.max())
    if most < 1:
        return None
    row = {name: value[number, None] if isinstance(value, Tensor) else value for name, value in batch.items()}
    real = row[prefix + MASK]
    end = most + FEW
    return {name: value[:, :end] if _is_of_tokens(name, value, real) else value for name, value in row.items()}


def _is_of_tokens(name: str, value: Any, real: Tensor) -> bool:
    """Whether a column has an entry for each token that is read; a decoder's may by chance be as many."""
    is_said = name.removeprefix(TEACHER_PREFIX).startswith(("decoder_", LABELS))
    return isinstance(value, Tensor) and value.shape[:2] == real.shape and not is_said


def _moves(reader: Reader, padded: Batch, alone: Batch, real: Tensor, is_rounded: bool) -> bool:
    """Whether a reader's answers to a text move with the padding before it."""
    model = unwrapped(reader.model)
    with asked_aside(model, real.device):
        behind, without = reader.ask(model, padded), reader.ask(model, alone)
    if behind.shape != without.shape and behind.shape[:2] == real.shape:
        behind = behind[real][None]
    if behind.shape != without.shape:
        return False
    moved, spread = (behind - without).float().square().mean().sqrt(), without.float().std(dim=-1).mean()
    is_short = is_rounded or without.dtype in (torch.float16, torch.bfloat16)
    return bool(moved > (CLOSE_IN_16_BITS if is_short else CLOSE) * spread)
