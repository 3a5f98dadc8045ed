"""The objective of distillation: labels and teacher in one number.

    L = alpha · CE(labels, p_1) + (1 - alpha) · T² · D(q_T, p_T)

with p_T = softmax(student / T) and q_T = softmax(teacher / T).

`alpha` weights the hard (cross-entropy) term; other libraries mean the opposite. T² keeps the size of the soft term's
gradient about the same at every temperature (Hinton et al. 2015, section 2.1), and belongs to it at every alpha.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

from kdcourse.compat import MismatchError, require_equal_shapes
from kdcourse.divergence import DIVERGENCES, Divergence
from kdcourse.logits import at_least_float32, at_temperature
from kdcourse.topk import Logits, TopK, bucket_log_probs, each_tensor

IGNORED_LABEL = -100
"""The label of a row that has none, as in PyTorch's cross-entropy."""

TINY = torch.finfo(torch.float32).tiny
"""The smallest weight that is not 0 to a float32: below it, 0 · inf would be NaN where the formula says inf."""

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
    check_mix(alpha, temperature)
    if labels is None and alpha > 0:
        raise ValueError(f"alpha is {alpha}, but there are no labels to weight; pass labels, or alpha=0.")
    _check_rows(student_logits, teacher_logits, labels)
    _check_hard_options(student_logits, label_smoothing, class_weights)
    measure = resolve_divergence(divergence)
    hard_items, soft_items = _denominators(num_items, labels, student_logits)

    student = at_least_float32(student_logits)
    soft_rows = measure(*_softened(student, teacher_logits, temperature))
    soft = temperature**2 * soft_rows.sum() / soft_items
    if labels is None:
        hard = torch.zeros_like(soft)
    else:
        hard_sum = F.cross_entropy(
            student,
            labels.long(),
            None if class_weights is None else class_weights.to(student),
            ignore_index=IGNORED_LABEL,
            reduction="sum",
            label_smoothing=label_smoothing,
        )
        hard = hard_sum / hard_items
    if torch.isnan(hard + soft):
        raise ValueError(_why_not_a_number(student_logits, teacher_logits, temperature))
    return DistillationLoss(mix(alpha, hard, soft), hard, soft)


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
    _check_tokens(student_logits, teacher_logits, labels)
    next_tokens = labels[:, 1:]
    supervised = next_tokens != IGNORED_LABEL
    # What is not supervised is left out before any arithmetic, so that nothing in it, not even a NaN, has a say.
    return distillation_loss(
        student_logits[:, :-1][supervised],
        each_tensor(teacher_logits, lambda part: part[:, :-1][supervised]),
        next_tokens[supervised],
        alpha=alpha,
        temperature=temperature,
        **options,
    )


def resolve_divergence(divergence: str | Divergence) -> Divergence:
    """The function behind a name; a function passes through."""
    if callable(divergence):
        return divergence
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence is {divergence!r}; it can be {', '.join(DIVERGENCES)}, or a function.")
    return DIVERGENCES[divergence]


def _softened(student: Tensor, teacher: Logits, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of student and teacher at temperature T, (N, C) or (N, k + 1) each."""
    student_log_probs = F.log_softmax(at_temperature(student, temperature), dim=-1)
    if isinstance(teacher, TopK):
        return bucket_log_probs(student_log_probs, teacher, temperature)
    return student_log_probs, F.log_softmax(at_temperature(teacher.detach(), temperature), dim=-1)


def mix(alpha: float, hard: Any, soft: Any) -> Any:
    """alpha · hard + (1 - alpha) · soft; a term of weight 0 is left out, so that its infinity cannot become NaN."""
    if alpha == 1:
        return hard
    if alpha == 0:
        return soft
    return max(alpha, TINY) * hard + max(1 - alpha, TINY) * soft


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
    return _divisor(hard), _divisor(soft)


def _divisor(count: Count) -> Count:
    """The count, or 1 where there is nothing to average over."""
    if not 0 <= count < math.inf:
        raise ValueError(f"num_items holds {float(count)}, but it counts rows: a finite number, 0 or more.")
    return count if count > 0 else 1


def check_mix(alpha: float, temperature: float) -> None:
    """
    Raises:
        ValueError: alpha or temperature are out of range.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, but the weight of the labels must lie between 0 and 1.")
    if not (temperature > 0 and math.isfinite(temperature * temperature)):
        raise ValueError(
            f"temperature is {temperature}, but it must be a finite number above 0; 1 leaves logits alone."
        )


def _check_hard_options(student_logits: Tensor, label_smoothing: float, class_weights: Tensor | None) -> None:
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}, but it is a share of the label, between 0 and 1.")
    if class_weights is not None and class_weights.shape != student_logits.shape[1:]:
        raise MismatchError(
            f"class_weights have shape {tuple(class_weights.shape)} and logits {tuple(student_logits.shape)}, but "
            "there must be one weight per class."
        )


def _check_logits(student_logits: Tensor, teacher_logits: Logits) -> None:
    if isinstance(teacher_logits, TopK):
        teacher_logits.require_fit(student_logits)
    else:
        require_equal_shapes("student_logits", student_logits, "teacher_logits", teacher_logits)


def _check_rows(student_logits: Tensor, teacher_logits: Logits, labels: Tensor | None) -> None:
    _check_logits(student_logits, teacher_logits)
    if student_logits.ndim != 2:  # noqa: PLR2004  (rows and classes)
        raise MismatchError(
            f"Logits have shape {tuple(student_logits.shape)}, but a classifier's are (N, C): one row per example. "
            "For the tokens of a language model, (B, T, V), there is lm_distillation_loss."
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


def _check_tokens(student_logits: Tensor, teacher_logits: Logits, labels: Tensor | None) -> None:
    _check_logits(student_logits, teacher_logits)
    if student_logits.ndim != 3:  # noqa: PLR2004  (batch, tokens, vocabulary)
        raise MismatchError(
            f"Logits have shape {tuple(student_logits.shape)}, but a language model's are (B, T, V). "
            "For the rows of a classifier, (N, C), there is distillation_loss."
        )
    if labels is None:
        raise ValueError(
            "labels are None, but they mark the tokens that teach: pass input_ids with -100 for prompt and padding."
        )
    if labels.shape != student_logits.shape[:2]:
        raise MismatchError(
            f"labels have shape {tuple(labels.shape)} and logits {tuple(student_logits.shape)}, but there must be one "
            "label per token, not shifted: the shift is made here."
        )


def _why_not_a_number(student_logits: Tensor, teacher_logits: Logits, temperature: float) -> str:
    teacher = teacher_logits.logits if isinstance(teacher_logits, TopK) else teacher_logits
    for name, logits in (("student_logits", student_logits), ("teacher_logits", teacher)):
        largest = logits.amax(dim=-1)
        if not largest.isfinite().all():
            row = int((~largest.isfinite()).nonzero()[0])
            return (
                f"{name} hold {largest[row].item()} as the largest value of row {row}, and no probabilities follow "
                "from that; look for an overflow in the model (float16?), or for a mask that leaves no class."
            )
    return f"The objective is not a number at temperature {temperature}: divergence or class_weights give NaN."
