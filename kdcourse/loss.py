"""The objective of distillation: labels and teacher in one number (lessons 03, 04 and 06).

    L = alpha · CE(labels, p_1) + (1 - alpha) · T² · D(q_T, p_T)

with p_T = softmax(student / T) and q_T = softmax(teacher / T).

`alpha` weights the hard (cross-entropy) term; other libraries mean the opposite. T² keeps the size of the soft term's
gradient about the same at every temperature (Hinton et al. 2015, section 2.1), and belongs to it at every alpha. What
is refused, and why, is in `checks.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

from kdcourse import checks
from kdcourse.checks import IGNORED_LABEL
from kdcourse.divergence import DIVERGENCES, Divergence
from kdcourse.temperature import at_least_float32, at_temperature
from kdcourse.topk import Logits, TopK, bucket_log_probs

TINY = torch.finfo(torch.float32).tiny
"""The smallest weight that is not 0 to a float32: below it, 0 · inf would be NaN where the formula says inf."""

Count = int | float | Tensor

_SUM_OF_LABELLED: Any = {"ignore_index": IGNORED_LABEL, "reduction": "sum"}


class DistillationLoss(NamedTuple):
    """Scalars in nats per counted row: `total` to train on, and its parts before alpha mixes them."""

    total: Tensor
    hard: Tensor
    """Cross-entropy with the labels, at temperature 1."""
    soft: Tensor
    """Divergence from the teacher at temperature T, times T²."""


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Logits,
    labels: Tensor | None = None,
    *,
    alpha: float,
    temperature: float,
    divergence: str | Divergence = "forward_kl",
    num_items: Count | tuple[Count, Count] | Tensor | None = None,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> DistillationLoss:
    """The objective for a classifier.

    Args:
        student_logits: (N, C), any floating dtype; the arithmetic is in float32 or better. -inf rules a class out.
        teacher_logits: (N, C), without gradient; or its k largest (`kdcourse.topk`), at the same temperature.
        labels: (N,) class ids; -100 marks a row without a label, which still learns from the teacher.
        alpha: weight of the hard term, from 0 (teacher only) to 1 (labels only).
        temperature: T > 0, which softens both distributions of the soft term.
        divergence: "forward_kl", "reverse_kl", "jensen_shannon", or a function
            (student_log_probs, teacher_log_probs) -> nats per row.
        num_items: what the sums are divided by, if not this call's own counts: those of a whole optimizer step, as one
            number or as a pair (labelled rows, all rows).
        label_smoothing: share of each label that is spread over all classes, in the hard term.
        class_weights: (C,) weight of each class in the hard term, which is still divided by the number of rows.

    Returns:
        Total, hard and soft. The hard term is averaged over labelled rows, the soft term over all rows; with no row to
        average over, a term is 0 and still part of the graph.

    Raises:
        MismatchError: shapes differ, or a top-k teacher was cut at another temperature.
        ValueError: alpha, temperature, labels, divergence or num_items out of range, or logits that give no
            probabilities (NaN, +inf, or a row of -inf alone).
    """
    measure = resolve_divergence(divergence)
    checks.require_mix(alpha, temperature)
    checks.require_rows(student_logits, teacher_logits, labels, alpha)
    rows, classes = student_logits.shape
    checks.require_hard_options(student_logits, label_smoothing, class_weights)
    hard_items, soft_items = _counts(num_items, labels, rows)
    checks.require_legal(labels, classes, (hard_items, soft_items))

    student = at_least_float32(student_logits)
    soft = temperature**2 * measure(*_softened(student, teacher_logits, temperature)).sum() / _divisor(soft_items)
    hard = torch.zeros_like(soft)
    if labels is not None:
        weights = None if class_weights is None else class_weights.to(student)
        surprise = F.cross_entropy(student, labels.long(), weights, label_smoothing=label_smoothing, **_SUM_OF_LABELLED)
        hard = surprise / _divisor(hard_items)

    teacher = teacher_logits.logits if isinstance(teacher_logits, TopK) else teacher_logits
    checks.require_number(hard + soft, temperature, student_logits, teacher)
    return DistillationLoss(mix(alpha, hard, soft), hard, soft)


def token_distillation_loss(
    student_logits: Tensor,
    teacher_logits: Logits,
    labels: Tensor,
    *,
    alpha: float,
    temperature: float,
    **options: Any,
) -> DistillationLoss:
    """The objective for a classifier of tokens, or of a recording's frames: each is compared where it is.

    Args:
        student_logits: (B, T, C).
        teacher_logits: (B, T, C), or its k largest for each token.
        labels: (B, T) class ids; -100 marks padding, and whatever else neither label nor teacher is asked about.
        alpha, temperature: as in `distillation_loss`.
        options: its other keywords. `num_items` counts labelled tokens.

    Returns:
        Total, hard and soft, each in nats per labelled token.

    Raises:
        MismatchError, ValueError: as `distillation_loss`.
    """
    checks.require_tokens(student_logits, teacher_logits, labels)
    # What is not supervised is left out before any arithmetic, so that nothing in it, not even a NaN, has a say.
    supervised = (labels != IGNORED_LABEL).nonzero(as_tuple=True)  # once: to count them, the device is waited for
    return distillation_loss(
        student_logits[supervised],
        teacher_logits[supervised],
        labels[supervised],
        alpha=alpha,
        temperature=temperature,
        **options,
    )


def lm_distillation_loss(
    student_logits: Tensor,
    teacher_logits: Logits,
    labels: Tensor,
    *,
    alpha: float,
    temperature: float,
    **options: Any,
) -> DistillationLoss:
    """The objective for a causal language model: the logits at position i are compared with the token at i + 1.

    Args:
        student_logits: (B, T, V).
        teacher_logits: (B, T, V), or its k largest for each token.
        labels: (B, T) token ids, not shifted; -100 marks prompt and padding. A position teaches, by its label and by
            the teacher, if the token after it has a label.
        alpha, temperature: as in `distillation_loss`.
        options: its other keywords. `num_items` counts labelled tokens after the shift.

    Returns:
        Total, hard and soft, each in nats per labelled token.

    Raises:
        MismatchError, ValueError: as `distillation_loss`.
    """
    checks.require_tokens(student_logits, teacher_logits, labels)
    return token_distillation_loss(
        student_logits[:, :-1], teacher_logits[:, :-1], labels[:, 1:], alpha=alpha, temperature=temperature, **options
    )


def resolve_divergence(divergence: str | Divergence) -> Divergence:
    """The function behind a name; a function passes through."""
    if callable(divergence):
        return divergence
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence is {divergence!r}; it can be {', '.join(DIVERGENCES)}, or a function.")
    return DIVERGENCES[divergence]


def mix(alpha: float, hard: Any, soft: Any) -> Any:
    """alpha · hard + (1 - alpha) · soft; a term of weight 0 is left out, so that its infinity cannot become NaN."""
    if alpha == 1:
        return hard
    if alpha == 0:
        return soft
    return max(alpha, TINY) * hard + max(1 - alpha, TINY) * soft


def _softened(student: Tensor, teacher: Logits, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of student and teacher at temperature T, (N, C) or (N, k + 1) each."""
    student_log_probs = F.log_softmax(at_temperature(student, temperature), dim=-1)
    if isinstance(teacher, TopK):
        return bucket_log_probs(student_log_probs, teacher, temperature)
    return student_log_probs, F.log_softmax(at_temperature(teacher.detach(), temperature), dim=-1)


def _counts(
    num_items: Count | tuple[Count, Count] | Tensor | None, labels: Tensor | None, rows: int
) -> tuple[Count, Count]:
    """How many rows the hard and the soft sum are averaged over."""
    if num_items is None:
        return (0 if labels is None else (labels != IGNORED_LABEL).sum()), rows
    if isinstance(num_items, tuple) or (isinstance(num_items, Tensor) and num_items.ndim):
        hard, soft = num_items
        return hard, soft
    return num_items, num_items


def _divisor(count: Count) -> Count:
    """The count, or 1 where there is nothing to average over."""
    if isinstance(count, Tensor):
        return torch.where(count > 0, count, torch.ones_like(count))
    return count or 1
