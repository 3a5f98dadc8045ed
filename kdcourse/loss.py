"""The objective of distillation: labels and teacher in one number.

    L = alpha · CE(labels, p_1) + (1 - alpha) · T² · D(q_T, p_T)

with p_T = softmax(student / T) and q_T = softmax(teacher / T).

`alpha` weights the hard (cross-entropy) term; other libraries mean the opposite. T² keeps the size of the soft term's
gradient about the same at every temperature (Hinton et al. 2015, section 2.1), and belongs to it at every alpha.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

from kdcourse.compat import MismatchError, require_equal_shapes
from kdcourse.divergence import DIVERGENCES, Divergence

IGNORED_LABEL = -100
"""The label of a row that has none, as in PyTorch's cross-entropy."""

Count = int | float | Tensor


class DistillationLoss(NamedTuple):
    """Scalars in nats per counted row: `total` to train on, and its parts before alpha mixes them."""

    total: Tensor
    hard: Tensor
    """Cross-entropy with the labels, at temperature 1."""
    soft: Tensor
    """Divergence from the teacher at temperature T, times T²."""


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    alpha: float,
    temperature: float,
    divergence: str | Divergence = "forward_kl",
    num_items: Count | tuple[Count, Count] | Tensor | None = None,
) -> DistillationLoss:
    """The objective for a classifier.

    Args:
        student_logits: (N, C), any floating dtype; the arithmetic is in float32 or better. -inf rules a class out.
        teacher_logits: (N, C), without gradient.
        labels: (N,) class ids; -100 marks a row without a label, which still learns from the teacher.
        alpha: weight of the hard term, from 0 (teacher only) to 1 (labels only).
        temperature: T > 0, which softens both distributions of the soft term.
        divergence: "forward_kl", "reverse_kl", "jensen_shannon", or a function
            (student_log_probs, teacher_log_probs) -> nats per row.
        num_items: what the sums are divided by, if not this call's own counts: those of a whole optimizer step, as one
            number or as a pair (labelled rows, all rows).

    Returns:
        Total, hard and soft. The hard term is averaged over labelled rows, the soft term over all rows; with no row to
        average over, a term is 0 and still part of the graph.

    Raises:
        MismatchError: shapes differ.
        ValueError: alpha, temperature, labels or divergence out of range.
    """
    _check_mix(alpha, temperature, labels)
    _check_rows(student_logits, teacher_logits, labels)
    measure = resolve_divergence(divergence)
    hard_items, soft_items = _denominators(num_items, labels, student_logits)

    student, teacher = _at_least_float32(student_logits), _at_least_float32(teacher_logits.detach())
    soft_rows = measure(F.log_softmax(student / temperature, dim=-1), F.log_softmax(teacher / temperature, dim=-1))
    soft = temperature**2 * soft_rows.sum() / soft_items
    if labels is None:
        hard = torch.zeros_like(soft)
    else:
        hard = F.cross_entropy(student, labels.long(), ignore_index=IGNORED_LABEL, reduction="sum") / hard_items
    return DistillationLoss(_mix(alpha, hard, soft), hard, soft)


def resolve_divergence(divergence: str | Divergence) -> Divergence:
    """The function behind a name; a function passes through."""
    if callable(divergence):
        return divergence
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence is {divergence!r}; it can be {', '.join(DIVERGENCES)}, or a function.")
    return DIVERGENCES[divergence]


def _mix(alpha: float, hard: Tensor, soft: Tensor) -> Tensor:
    """alpha · hard + (1 - alpha) · soft; a term of weight 0 is left out, so that its infinity cannot become NaN."""
    if alpha == 1:
        return hard
    if alpha == 0:
        return soft
    return alpha * hard + (1 - alpha) * soft


def _denominators(
    num_items: Count | tuple[Count, Count] | Tensor | None, labels: Tensor | None, logits: Tensor
) -> tuple[Count, Count]:
    """What the hard and the soft sum are divided by; never 0."""
    if num_items is None:
        labelled = 0 if labels is None else (labels != IGNORED_LABEL).sum()
        num_items = (labelled, logits.shape[0])
    elif not isinstance(num_items, tuple) and not (isinstance(num_items, Tensor) and num_items.ndim):
        num_items = (num_items, num_items)
    hard, soft = num_items
    return _at_least_one(hard), _at_least_one(soft)


def _at_least_one(count: Count) -> Count:
    return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)


def _at_least_float32(logits: Tensor) -> Tensor:
    """Softmax in 16 bits loses a third of a small divergence."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _check_mix(alpha: float, temperature: float, labels: Tensor | None) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, but the weight of the labels must lie between 0 and 1.")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(
            f"temperature is {temperature}, but it must be a finite number above 0; 1 leaves logits alone."
        )
    if labels is None and alpha > 0:
        raise ValueError(f"alpha is {alpha}, but there are no labels to weight; pass labels, or alpha=0.")


def _check_rows(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None) -> None:
    require_equal_shapes("student_logits", student_logits, "teacher_logits", teacher_logits)
    if student_logits.ndim != 2:  # noqa: PLR2004  (rows and classes)
        raise MismatchError(
            f"Logits have shape {tuple(student_logits.shape)}, but a classifier's are (N, C): one row per example. "
            "For tokens, flatten them to (batch · length, vocabulary) after the shift."
        )
    if labels is None:
        return
    if labels.shape != student_logits.shape[:1]:
        raise MismatchError(
            f"labels have shape {tuple(labels.shape)} and logits {tuple(student_logits.shape)}, but there must be one "
            "label per row; pass class ids, not one-hot rows."
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels are {labels.dtype}, but cross-entropy needs whole class ids (torch.long).")
    classes = student_logits.shape[1]
    out_of_range = (labels != IGNORED_LABEL) & ((labels < 0) | (labels >= classes))
    if out_of_range.any():
        raise ValueError(
            f"labels hold {labels[out_of_range][0].item()}, but with {classes} classes a label is 0 to {classes - 1}, "
            f"or {IGNORED_LABEL} for none."
        )
