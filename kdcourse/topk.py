"""The k classes that a teacher finds likeliest, and the rest as one bucket (lesson 06).

A row of a vocabulary's logits takes 100 kB and more; its fifty largest take a few hundred bytes. What the others have
together is kept as one number, so that student and teacher are still compared over distributions that sum to 1. With
k = C nothing is lost, and a coarser partition never makes the forward KL larger (data processing).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

from kdcourse.checks import MismatchError, require_no_overflow, require_temperature
from kdcourse.temperature import at_least_float32, at_temperature


@dataclass(frozen=True)
class Cut:
    """k classes of each row of logits (..., C), and one number for all others.

    It stands for the whole logits, and is handled like them: it has their shape, its rows are taken by an index, and
    `to` moves it to a device.
    """

    logits: Tensor
    """(..., k), at temperature 1; -inf where a row has fewer classes than k."""
    classes: Tensor
    """(..., k), the class ids that they belong to; -1 where a row has fewer."""
    rest: Tensor
    """(...), what stands for the other classes at T; how, the subclass says."""
    temperature: float
    """The T of `rest`: what the others weigh together at one temperature does not tell what they weigh at another."""
    width: int
    """C, the number of classes that the k were taken from."""

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the logits it stands for, (..., C)."""
        return (*self.rest.shape, self.width)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return len(self.rest)

    def __getitem__(self, rows: Any) -> Self:
        """Some of the rows, as of a tensor; the classes themselves cannot be indexed."""
        return self.map(lambda part: part[rows])

    def to(self, device: torch.device | str) -> Self:
        return self.map(lambda part: part.to(device))

    def first(self, vocabulary: int) -> Self:
        """Over the first classes alone. Others are missing from the k then; what they weigh in a rest stays there.

        Raises:
            MismatchError: none of a row's k would be left.
        """
        if self.width <= vocabulary:
            return self
        others = self.classes >= vocabulary
        if others.all(dim=-1).any():
            raise MismatchError(
                f"Of the {self.width:,} token ids that the teacher has logits for, the tokenizer knows {vocabulary:,}, "
                f"and at one place all {self.logits.shape[-1]} that were kept are beyond them; keep whole logits or a "
                "larger k, and look at whether this is the tokenizer that the teacher was trained with."
            )
        order = others.int().argsort(dim=-1, stable=True)  # what is missing comes last
        logits = self.logits.masked_fill(others, -math.inf).gather(-1, order)
        classes = self.classes.masked_fill(others, -1).gather(-1, order)
        return replace(self, logits=logits, classes=classes, width=vocabulary)

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same function applied to each of the three tensors."""
        return replace(self, logits=function(self.logits), classes=function(self.classes), rest=function(self.rest))


@dataclass(frozen=True)
class TopK(Cut):
    """The k largest logits of each row. `rest` is the log of the sum of exp(logit / T) over all other classes; -inf if
    there are none.
    """

    def first(self, vocabulary: int) -> Self:
        cut = super().first(vocabulary)
        if cut is self:
            return self
        rest = cut.rest.masked_fill((cut.classes >= 0).sum(dim=-1) == vocabulary, -math.inf)
        if cut.classes.shape[-1] != vocabulary:
            return replace(cut, rest=rest)
        # As many places as classes would say that there is no rest.
        logits, classes = F.pad(cut.logits, (0, 1), value=-math.inf), F.pad(cut.classes, (0, 1), value=-1)
        return replace(cut, logits=logits, classes=classes, rest=rest)


Logits = Tensor | Cut
"""A teacher's answers, whole or cut to k classes: (N, C) of a classifier, (B, T, V) of a language model."""


def stack(rows: Sequence[Any]) -> Logits:
    """Rows (C,) of one kind, whole or cut, as a batch (N, C)."""
    return _joined(rows, torch.stack)


def concatenate(pieces: Sequence[Any]) -> Logits:
    """Pieces (n, C) of one kind behind each other."""
    return _joined(pieces, torch.cat)


def spread(tokens: Logits, mask: Tensor) -> Logits:
    """Tokens (n, V) put where the mask (B, T) has its n ones, and zeros elsewhere: (B, T, V)."""

    def placed(part: Tensor) -> Tensor:
        batch = part.new_zeros(*mask.shape, *part.shape[1:])
        batch[mask.bool().to(part.device)] = part
        return batch

    return tokens.map(placed) if isinstance(tokens, Cut) else placed(tokens)


def _joined(pieces: Sequence[Any], join: Callable[[list[Tensor]], Tensor]) -> Logits:
    first = pieces[0]
    if not isinstance(first, Cut):
        return join(list(pieces))
    return replace(
        first,
        logits=join([piece.logits for piece in pieces]),
        classes=join([piece.classes for piece in pieces]),
        rest=join([piece.rest for piece in pieces]),
    )


def top_k(logits: Tensor, k: int, temperature: float) -> TopK:
    """Keep the k largest logits of each row, for a loss at `temperature`.

    Raises:
        ValueError: k is not between 1 and C, the temperature is none, or a logit overflows at it.
    """
    logits = require_cut(logits, k, temperature)
    kept, classes = logits.topk(k, dim=-1)
    rest = _log_sum_exp(at_temperature(logits, temperature).scatter(-1, classes, -math.inf))
    return TopK(kept, classes, rest, temperature, logits.shape[-1])


def require_cut(logits: Tensor, k: int, temperature: float) -> Tensor:
    """The logits that k classes are to be taken from, in float32 or better.

    Raises:
        ValueError: k is not between 1 and C, the temperature is none, or a logit overflows at it.
    """
    require_temperature(temperature)
    width = logits.shape[-1]
    if not 1 <= k <= width:
        raise ValueError(f"k is {k}, but of {width} classes between 1 and {width} can be kept.")
    logits = at_least_float32(logits.detach())
    require_no_overflow(logits, temperature)
    return logits


def bucket_log_probs(student_log_probs: Tensor, teacher: TopK, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of student and teacher over the k classes and the rest, (..., k + 1); (..., k) if k = C.

    Raises:
        MismatchError: the teacher was cut for another temperature.
    """
    require_own_temperature(teacher, temperature)
    classes = teacher.classes.long()
    missing = classes < 0
    # Where a class is missing, the row's first one is looked up once more, and not counted.
    classes = torch.where(missing, classes[..., :1], classes).clamp(min=0)
    student_kept = student_log_probs.gather(-1, classes).masked_fill(missing, -math.inf)
    teacher_kept = at_temperature(teacher.logits.to(student_log_probs), temperature)
    if classes.shape[-1] == teacher.width:
        return student_kept, teacher_kept.log_softmax(dim=-1)
    student_rest = _log_sum_exp(student_log_probs.scatter(-1, classes, -math.inf))
    teacher_all = torch.cat([teacher_kept, teacher.rest.to(student_log_probs).unsqueeze(-1)], dim=-1)
    return torch.cat([student_kept, student_rest.unsqueeze(-1)], dim=-1), teacher_all.log_softmax(dim=-1)


def require_own_temperature(teacher: Cut, temperature: float) -> None:
    """
    Raises:
        MismatchError: the teacher was cut for another temperature.
    """
    if temperature != teacher.temperature:
        kind = "top" if isinstance(teacher, TopK) else "sampled"
        raise MismatchError(
            f"temperature is {temperature}, but the teacher's {kind} {teacher.logits.shape[-1]} were kept for "
            f"{teacher.temperature}, and the weight of the rest is known there only; take that temperature, or score "
            "the teacher anew."
        )


def _log_sum_exp(logits: Tensor) -> Tensor:
    """`torch.logsumexp` over the last dimension, with a gradient of 0, not NaN, where everything is ruled out."""
    all_ruled_out = (logits == -math.inf).all(dim=-1)
    summed = logits.masked_fill(all_ruled_out.unsqueeze(-1), 0).logsumexp(dim=-1)
    return summed.masked_fill(all_ruled_out, -math.inf)
