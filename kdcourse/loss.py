"""The objective of distillation: labels and teacher in one number (lessons 03, 04 and 06).

    L = alpha · CE(labels, p_1) + (1 - alpha) · T² · D(q_T, p_T)

with p_T = softmax(student / T) and q_T = softmax(teacher / T).

`alpha` weights the hard (cross-entropy) term; other libraries mean the opposite. T² keeps the size of the soft term's
gradient about the same at every temperature (Hinton et al. 2015, section 2.1), and belongs to it at every alpha. What
is refused, and why, is in `checks.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

from kdcourse import checks
from kdcourse.checks import IGNORED_LABEL, MismatchError, whole_labels
from kdcourse.divergence import DIVERGENCES, Divergence, forward_kl, jensen_shannon, require_inner
from kdcourse.sampled import Sampled, sampled_forward_kl
from kdcourse.temperature import at_least_float32, at_temperature
from kdcourse.topk import Cut, Logits, TopK, bucket_log_probs

TINY = torch.finfo(torch.float32).tiny
"""The smallest weight that is not 0 to a float32: below it, 0 · inf would be NaN where the formula says inf."""

Count = int | float | Tensor

Reduction = Literal["mean", "none"]


class DistillationLoss(NamedTuple):
    """In nats: `total` to train on, and its parts before alpha mixes them; each a mean over rows, or one per row."""

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
    beta: float | None = None,
    num_items: Count | tuple[Count, Count] | Tensor | None = None,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    reduction: Reduction = "mean",
) -> DistillationLoss:
    """The objective for a classifier.

    Args:
        student_logits: (N, C), any floating dtype; the arithmetic is in float32 or better. -inf rules a class out.
        teacher_logits: (N, C), without gradient; or k of them at the same temperature, the largest (`kdcourse.topk`) or
            drawn (`kdcourse.sampled`).
        labels: (N,) class ids; -100 marks a row without a label, which still learns from the teacher.
        alpha: weight of the hard term, from 0 (teacher only) to 1 (labels only).
        temperature: T > 0, which softens both distributions of the soft term.
        divergence: "forward_kl", "reverse_kl", "jensen_shannon", or a function
            (student_log_probs, teacher_log_probs) -> nats per row.
        beta: weight of the teacher in the mixture of "jensen_shannon", between 0 and 1; 0.5 if it is not said.
        num_items: what the sums are divided by, if not this call's own counts: those of a whole optimizer step, as one
            number or as a pair (labelled rows, all rows).
        label_smoothing: share of each label that is spread over all classes, in the hard term.
        class_weights: (C,) weight of each class, 0 or more, in the hard term, which is still divided by the number of
            rows.
        reduction: "mean", or "none" for the terms of each row, (N,), which nothing is divided by: to weight rows in a
            way of your own.

    Returns:
        Total, hard and soft. The hard term is averaged over labelled rows, the soft term over all rows; with no row to
        average over, a term is 0 and still part of the graph. Of a row without a label, the hard term is 0.

    Raises:
        MismatchError: shapes differ, or a teacher was cut at another temperature, or its classes were drawn and the
            divergence is not forward KL.
        ValueError: alpha, temperature, labels, divergence, beta, num_items or reduction out of range, or logits that
            give no probabilities (NaN, +inf, or a row of -inf alone).
    """
    measure = resolve_divergence(divergence, beta)
    checks.require_mix(alpha, temperature)
    checks.require_rows(student_logits, teacher_logits, labels, alpha)
    labels = whole_labels(labels)
    rows, classes = student_logits.shape
    checks.require_hard_options(student_logits, label_smoothing, class_weights)
    checks.require_reduction(reduction, num_items)
    hard_items, soft_items = counts_of(num_items, labels, rows)
    checks.require_legal(labels, classes, (hard_items, soft_items), class_weights)

    hard, soft = terms_of_rows(
        student_logits, teacher_logits, labels, temperature, measure, label_smoothing, class_weights
    )
    if reduction == "mean":
        hard, soft = hard.sum() / divisor(hard_items), soft.sum() / divisor(soft_items)

    teacher = teacher_logits.logits if isinstance(teacher_logits, Cut) else teacher_logits
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
    """The objective for a classifier of tokens, or of a recording's frames, for a masked language model, and for what a
    decoder says: each is compared where it is.

    Args:
        student_logits: (B, T, C).
        teacher_logits: (B, T, C), or k of them for each token.
        labels: (B, T) class ids; -100 marks padding, and whatever else neither label nor teacher is asked about.
        alpha, temperature: as in `distillation_loss`.
        options: its other keywords. `num_items` counts labelled tokens.

    Returns:
        Total, hard and soft, each in nats per labelled token; with `reduction="none"`, (B, T), and 0 where there is no
        label.

    Raises:
        MismatchError, ValueError: as `distillation_loss`.
    """
    checks.require_tokens(student_logits, teacher_logits, labels)
    labels = whole_labels(labels)
    # What is not supervised is left out before any arithmetic, so that nothing in it, not even a NaN, has a say.
    supervised = (labels != IGNORED_LABEL).nonzero(as_tuple=True)  # once: to count them, the device is waited for
    loss = distillation_loss(
        student_logits[supervised],
        teacher_logits[supervised],
        labels[supervised],
        alpha=alpha,
        temperature=temperature,
        **options,
    )
    if loss.total.ndim == 0:
        return loss
    return DistillationLoss(*(part.new_zeros(labels.shape).index_put(supervised, part) for part in loss))


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
        teacher_logits: (B, T, V), or k of them for each token.
        labels: (B, T) token ids, not shifted; -100 marks prompt and padding. A position teaches, by its label and by
            the teacher, if the token after it has a label.
        alpha, temperature: as in `distillation_loss`.
        options: its other keywords. `num_items` counts labelled tokens after the shift.

    Returns:
        Total, hard and soft, each in nats per labelled token; with `reduction="none"`, (B, T - 1): the terms of the
        logits at each position, 0 where the token behind has no label.

    Raises:
        MismatchError, ValueError: as `distillation_loss`.
    """
    checks.require_tokens(student_logits, teacher_logits, labels)
    return token_distillation_loss(
        student_logits[:, :-1], teacher_logits[:, :-1], labels[:, 1:], alpha=alpha, temperature=temperature, **options
    )


def resolve_divergence(divergence: str | Divergence, beta: float | None = None) -> Divergence:
    """The function behind a name; a function passes through.

    Raises:
        ValueError: there is no such divergence; or beta is given to one that has none, or out of range.
    """
    if not callable(divergence) and divergence not in DIVERGENCES:
        raise ValueError(f"divergence is {divergence!r}; it can be {', '.join(DIVERGENCES)}, or a function.")
    measure = divergence if callable(divergence) else DIVERGENCES[divergence]
    if beta is None:
        return measure
    if measure is not jensen_shannon:
        raise ValueError(
            f"beta is {beta}, and divergence {divergence!r} has none; leave it out, or take 'jensen_shannon'."
        )
    require_inner(beta)
    return partial(jensen_shannon, beta=beta)


def mix(alpha: float, hard: Any, soft: Any) -> Any:
    """alpha · hard + (1 - alpha) · soft; a term of weight 0 is left out, so that its infinity cannot become NaN."""
    if alpha == 1:
        return hard
    if alpha == 0:
        return soft
    return max(alpha, TINY) * hard + max(1 - alpha, TINY) * soft


def terms_of_rows(
    student_logits: Tensor,
    teacher_logits: Logits,
    labels: Tensor | None,
    temperature: float,
    measure: Divergence,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The hard and the soft term of each row, (N,) in nats, of logits (N, C) that nobody has looked at."""
    student = at_least_float32(student_logits)
    soft = temperature**2 * _divergence(student, teacher_logits, temperature, measure)
    hard = torch.zeros_like(soft) if labels is None else _surprise(student, labels, label_smoothing, class_weights)
    return hard, soft


def _surprise(student: Tensor, labels: Tensor, label_smoothing: float, class_weights: Tensor | None) -> Tensor:
    """Cross-entropy with the labels, (N,) in nats; 0 for a row that has none."""
    weights = None if class_weights is None else class_weights.to(student)
    return F.cross_entropy(
        student,
        labels.long(),
        weights,
        ignore_index=IGNORED_LABEL,
        label_smoothing=label_smoothing,
        reduction="none",
    )


def _divergence(student: Tensor, teacher: Logits, temperature: float, measure: Divergence) -> Tensor:
    """Of the two distributions at temperature T, (N,) in nats: over all classes, k and the rest, or k that were drawn.

    Raises:
        MismatchError: the teacher was cut at another temperature; or its classes were drawn, and this is no forward KL.
    """
    student_log_probs = F.log_softmax(at_temperature(student, temperature), dim=-1)
    if isinstance(teacher, Tensor):
        return measure(student_log_probs, F.log_softmax(at_temperature(teacher.detach(), temperature), dim=-1))
    if isinstance(teacher, TopK):
        return measure(*bucket_log_probs(student_log_probs, teacher, temperature))
    if isinstance(teacher, Sampled):
        if measure is not forward_kl:
            raise MismatchError(
                "The teacher's classes were drawn, which gives the right gradient on average for forward_kl alone: no "
                "other divergence is linear in the teacher's probabilities. Take divergence='forward_kl', or keep the "
                "k largest."
            )
        return sampled_forward_kl(student_log_probs, teacher, temperature)
    raise TypeError(
        f"The teacher's logits are {type(teacher).__name__}, but a tensor, a TopK or a Sampled is compared."
    )


def counts_of(
    num_items: Count | tuple[Count, Count] | Tensor | None, labels: Tensor | None, rows: int
) -> tuple[Count, Count]:
    """How many rows the hard and the soft sum are averaged over."""
    if num_items is None:
        return (0 if labels is None else (labels != IGNORED_LABEL).sum()), rows
    if isinstance(num_items, tuple) or (isinstance(num_items, Tensor) and num_items.ndim):
        hard, soft = num_items
        return hard, soft
    return num_items, num_items


def divisor(count: Count) -> Count:
    """The count, or 1 where there is nothing to average over."""
    if isinstance(count, Tensor):
        return torch.where(count > 0, count, torch.ones_like(count))
    return count or 1
