"""The k classes that a teacher finds likeliest, and the rest as one bucket.

A row of a vocabulary's logits takes 100 kB and more; its fifty largest take a few hundred bytes. What the others have
together is kept as one number, so that student and teacher are still compared over distributions that sum to 1. With
k = C nothing is lost, and a coarser partition never makes the forward KL larger (data processing).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdcourse.compat import MismatchError
from kdcourse.logits import at_least_float32, at_temperature


class TopK(NamedTuple):
    """The k largest logits of each row (..., C) and what is left of it."""

    logits: Tensor
    """(..., k), at temperature 1."""
    classes: Tensor
    """(..., k), the class ids that they belong to."""
    rest: Tensor
    """(...), log of the sum of exp(logit / T) over all other classes; -inf if there are none."""
    temperature: float
    """The T of `rest`: what the others weigh together at one temperature does not tell what they weigh at another."""
    width: int
    """C, the number of classes that the k were taken from."""

    def require_fit(self, student_logits: Tensor) -> None:
        """Row for row and class for class, as for dense logits.

        Raises:
            MismatchError: rows or number of classes differ.
        """
        if student_logits.shape != (*self.rest.shape, self.width):
            raise MismatchError(
                f"student_logits have shape {tuple(student_logits.shape)}, and the top-k teacher stands for logits of "
                f"shape {(*self.rest.shape, self.width)}; they are compared row for row and class for class."
            )


Logits = Tensor | TopK
"""A teacher's answers, whole or cut to their k largest."""


def each_tensor(logits: Logits, function: Callable[[Tensor], Tensor]) -> Logits:
    """The same logits with a function applied to each of their tensors: a selection, a move to a device."""
    return combine([logits], lambda tensors: function(*tensors))


def combine(rows: Sequence[Any], function: Callable[..., Tensor]) -> Logits:
    """Several logits as one: `function` makes one tensor of the list of theirs. All are dense, or all are top-k."""
    first = rows[0]
    if isinstance(first, TopK):
        logits, classes, rest = (function(list(part)) for part in zip(*(row[:3] for row in rows), strict=True))
        return first._replace(logits=logits, classes=classes, rest=rest)
    return function(list(rows))


def top_k(logits: Tensor, k: int, temperature: float) -> TopK:
    """Keep the k largest logits of each row, for a loss at `temperature`.

    Raises:
        ValueError: k is not between 1 and C.
    """
    width = logits.shape[-1]
    if not 1 <= k <= width:
        raise ValueError(f"k is {k}, but of {width} classes between 1 and {width} can be kept.")
    logits = at_least_float32(logits.detach())
    kept, classes = logits.topk(k, dim=-1)
    rest = _log_sum_exp(at_temperature(logits, temperature).scatter(-1, classes, -math.inf))
    return TopK(kept, classes, rest, temperature, width)


def bucket_log_probs(student_log_probs: Tensor, teacher: TopK, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of student and teacher over the k classes and the rest, (..., k + 1); (..., k) if k = C.

    Raises:
        MismatchError: the teacher was cut for another temperature.
    """
    if temperature != teacher.temperature:
        raise MismatchError(
            f"temperature is {temperature}, but the teacher's top {teacher.logits.shape[-1]} were kept for "
            f"{teacher.temperature}, and the weight of the rest is known there only; score the teacher anew."
        )
    classes = teacher.classes.long()
    if classes.is_inference():  # such a tensor cannot be saved for the backward pass
        classes = classes.clone()
    student_kept = student_log_probs.gather(-1, classes)
    teacher_kept = at_temperature(teacher.logits.to(student_log_probs), temperature)
    if classes.shape[-1] == teacher.width:
        return student_kept, teacher_kept.log_softmax(dim=-1)
    student_rest = _log_sum_exp(student_log_probs.scatter(-1, classes, -math.inf))
    teacher_all = torch.cat([teacher_kept, teacher.rest.to(student_log_probs).unsqueeze(-1)], dim=-1)
    return torch.cat([student_kept, student_rest.unsqueeze(-1)], dim=-1), teacher_all.log_softmax(dim=-1)


def _log_sum_exp(logits: Tensor) -> Tensor:
    """`torch.logsumexp` over the last dimension, with a gradient of 0, not NaN, where everything is ruled out."""
    all_ruled_out = (logits == -math.inf).all(dim=-1)
    summed = logits.masked_fill(all_ruled_out.unsqueeze(-1), 0).logsumexp(dim=-1)
    return summed.masked_fill(all_ruled_out, -math.inf)
