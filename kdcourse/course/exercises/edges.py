"""Corners of a domain that many exercises share: where people who test one ordinary input are wrong.

Each change takes the arguments of an ordinary input, the student's logits first and the teacher's second.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises.exercise import Edge, Inputs

WIDE = 30.0
"""Logits from -30 to 30: float32 still holds each probability, and an epsilon that is added to one shows."""
FAR = 600.0
"""Logits from -600 to 600: most probabilities are 0 in float32, and only their logarithms are left."""


def spread(size: float, *inputs: Any) -> Inputs:
    student, teacher = (logits * (size / logits.abs().max()) for logits in inputs[:2])
    return student, teacher, *inputs[2:]


def first_rows(*inputs: Any) -> Inputs:
    """Of each tensor that has as many rows as the first."""
    rows = len(inputs[0])
    return tuple(part[:1] if isinstance(part, Tensor) and len(part) == rows else part for part in inputs)


def of_one_class(*inputs: Any) -> Inputs:
    student, teacher, *others = inputs
    labels = [part.clamp(max=0) if _is_labels(part) else part for part in others]
    return student[..., :1], teacher[..., :1], *labels


def in_precision(dtype: torch.dtype, *inputs: Any) -> Inputs:
    return tuple(part.to(dtype) if isinstance(part, Tensor) and part.is_floating_point() else part for part in inputs)


def unlabelled(*inputs: Any) -> Inputs:
    return tuple(torch.full_like(part, IGNORED_LABEL) if _is_labels(part) else part for part in inputs)


def _is_labels(part: Any) -> bool:
    return isinstance(part, Tensor) and part.dtype == torch.long


def ending(words: str, *values: Any) -> Edge:
    """The last arguments are these."""
    return Edge(words, lambda *inputs: (*inputs[: -len(values)], *values))


def of_log_probs(edge: Edge) -> Edge:
    """For an exercise whose first two arguments are log-probabilities, as good as any logits."""

    def change(*inputs: Any) -> Inputs:
        student, teacher, *others = edge.change(*inputs)
        return student.log_softmax(-1), teacher.log_softmax(-1), *others

    return Edge(edge.words, change)


AGREE = Edge("where student and teacher agree", lambda student, teacher, *others: (teacher.clone(), teacher, *others))
FLAT = Edge(
    "where all logits are equal",
    lambda student, teacher, *others: (torch.zeros_like(student), torch.zeros_like(teacher), *others),
)
ONE_ROW = Edge("for a single row", first_rows)
ONE_CLASS = Edge("for a single class", of_one_class)
THREE_DIMENSIONS = Edge(
    "for tensors of three dimensions", lambda *inputs: tuple(part.unsqueeze(1) for part in inputs[:2]) + inputs[2:]
)
WIDE_LOGITS = Edge("for logits from −30 to 30", lambda *inputs: spread(WIDE, *inputs))
FAR_LOGITS = Edge(
    "for logits from −600 to 600, where most probabilities are rounded to 0 and their logarithms need not be",
    lambda *inputs: in_precision(torch.float32, *spread(FAR, *inputs)),
)
FAR_TEACHER = Edge(
    "for a teacher whose logits lie between −600 and 600",
    lambda student, teacher, *others: (student, spread(FAR, student, teacher)[1], *others),
)
FAR_AND_AGREED = Edge(
    "for one set of logits on both sides, from −600 to 600", lambda *inputs: spread(FAR, *AGREE.change(*inputs))
)
IN_FLOAT32 = Edge("for tensors of float32", lambda *inputs: in_precision(torch.float32, *inputs))
IN_FLOAT64 = Edge("for tensors of float64", lambda *inputs: in_precision(torch.float64, *inputs))
NO_LABELS = Edge("where no row has a label", unlabelled)

LOGITS = (AGREE, FLAT, ONE_ROW, ONE_CLASS, WIDE_LOGITS, IN_FLOAT32, IN_FLOAT64)
"""For two tensors of logits, whatever follows them."""
LOG_SPACE = (*LOGITS, FAR_LOGITS, FAR_TEACHER, FAR_AND_AGREED)
"""From lesson 02 on, where nobody takes the logarithm of a softmax any more."""
TEMPERATURES = (ending("at T = 1", 1.0), ending("at T = 0.5", 0.5), ending("at T = 20, an integer", 20))
