"""What the objective refuses, and the words in which it does (lessons 04 and 06).

Shapes and settings are known at once. Values are on the device, and each look at them makes the program wait for it: a
step takes two, `require_legal` before the arithmetic and `require_number` after it. What is wrong is asked only then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdcourse.temperature import at_least_float32

if TYPE_CHECKING:
    from kdcourse.topk import Logits

IGNORED_LABEL = -100
"""The label of a row that has none, as in PyTorch's cross-entropy."""


def whole_labels(labels: Any) -> Any:
    """Labels as int64: in uint8, -100 and 156 are one number. What are no whole numbers stays, and is refused later."""
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        return labels
    return labels.long()


SEVERAL = 2
"""One row of logits may add up to 1 by chance."""


class MismatchError(ValueError):
    """Student and teacher do not fit together; the message names both sides, the rule, and what to do."""


def require_equal_shapes(student_name: str, student: Tensor, teacher_name: str, teacher: Logits) -> None:
    """No broadcasting: (8, 1) against (8, 2) would give a number without a meaning, and no error.

    Raises:
        MismatchError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise MismatchError(
            f"{student_name} has shape {tuple(student.shape)} and {teacher_name} {tuple(teacher.shape)}, but they are "
            "compared row for row and class for class; check the models' num_labels (or vocabulary sizes) and batches."
        )


def require_mix(alpha: float, temperature: float) -> None:
    """
    Raises:
        ValueError: alpha or temperature are out of range.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, but the weight of the labels must lie between 0 and 1.")
    require_temperature(temperature)


def require_temperature(temperature: float) -> None:
    """
    Raises:
        ValueError: T² is not a number above 0.
    """
    if not (temperature > 0 and math.isfinite(temperature * temperature)):
        raise ValueError(
            f"temperature is {temperature}, but it must be a finite number above 0; 1 leaves logits alone."
        )


def require_rows(student_logits: Tensor, teacher_logits: Logits, labels: Tensor | None, alpha: float) -> None:
    """A classifier's logits (N, C) twice, and labels (N,), which may be missing if they have no weight.

    Raises:
        MismatchError, ValueError: something else.
    """
    require_equal_shapes("student_logits", student_logits, "teacher_logits", teacher_logits)
    if student_logits.ndim != 2:  # noqa: PLR2004  (rows and classes)
        raise MismatchError(
            f"Logits have shape {tuple(student_logits.shape)}, but a classifier's are (N, C): one row per example. "
            "For the tokens of a language model, (B, T, V), there is lm_distillation_loss."
        )
    if labels is None:
        if alpha > 0:
            raise ValueError(f"alpha is {alpha}, but there are no labels to weight; pass labels, or alpha=0.")
        return
    if labels.shape != student_logits.shape[:1]:
        raise MismatchError(
            f"labels have shape {tuple(labels.shape)} and logits {tuple(student_logits.shape)}, but there must be one "
            "label per row; pass class ids, not one-hot rows."
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels are {labels.dtype}, but cross-entropy needs whole class ids (torch.long).")


def require_tokens(student_logits: Tensor, teacher_logits: Logits, labels: Tensor | None) -> None:
    """A language model's logits (B, T, V) twice, and labels (B, T).

    Raises:
        MismatchError, ValueError: something else.
    """
    require_equal_shapes("student_logits", student_logits, "teacher_logits", teacher_logits)
    if student_logits.ndim != 3:  # noqa: PLR2004  (batch, tokens, vocabulary)
        raise MismatchError(
            f"Logits have shape {tuple(student_logits.shape)}, but a language model's are (B, T, V). "
            "For the rows of a classifier, (N, C), there is distillation_loss."
        )
    if labels is None:
        raise ValueError(
            "labels are None, but they mark the tokens that teach: pass token ids, with -100 for prompt, padding and "
            "what is not masked."
        )
    if labels.shape != student_logits.shape[:2]:
        raise MismatchError(
            f"labels have shape {tuple(labels.shape)} and logits {tuple(student_logits.shape)}, but there must be one "
            "label per token, not shifted: the shift is made here."
        )


def require_hard_options(student_logits: Tensor, label_smoothing: float, class_weights: Tensor | None) -> None:
    """
    Raises:
        MismatchError, ValueError: what changes the hard term is out of range, or has another number of classes.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}, but it is a share of the label, between 0 and 1.")
    if class_weights is not None and class_weights.shape != student_logits.shape[1:]:
        raise MismatchError(
            f"class_weights have shape {tuple(class_weights.shape)} and logits {tuple(student_logits.shape)}, but "
            "there must be one weight per class."
        )


def require_reduction(reduction: str, num_items: Any) -> None:
    """
    Raises:
        ValueError: there is no such reduction, or there are counts and nothing that they divide.
    """
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction is {reduction!r}; it can be 'mean' or 'none'; for sums, pass num_items=1.")
    if reduction == "none" and num_items is not None:
        raise ValueError("num_items is what sums are divided by, and reduction='none' makes no sums; leave out one.")


def require_legal(
    labels: Tensor | None, classes: int, counts: tuple[Any, Any], class_weights: Tensor | None = None
) -> None:
    """Labels are classes, counts (hard, soft) are counts, and weights are weights; one look at the device for all.

    It comes before the arithmetic: on a GPU, a label that is no class ends the process, not the call.

    Raises:
        ValueError: which value is out of range.
    """
    illegal = [] if labels is None else [_out_of_range(labels, classes).any()]
    if class_weights is not None:
        illegal.append(_no_weights(class_weights).any())
    for count in counts:
        if isinstance(count, Tensor):
            illegal.append(~((count >= 0) & (count < math.inf)))
        else:
            _require_count(count)
    if not illegal or not torch.stack([flag.to(illegal[0].device) for flag in illegal]).any():
        return
    for count in counts:
        _require_count(float(count))
    if class_weights is not None:
        require_weights(class_weights.tolist())
    if labels is not None:
        wrong = labels[_out_of_range(labels, classes)][0].item()
        raise ValueError(
            f"labels hold {wrong}, but with {classes} classes a label is 0 to {classes - 1}, or {IGNORED_LABEL} for "
            "none."
        )


def require_weights(class_weights: Sequence[float]) -> None:
    """
    Raises:
        ValueError: a weight is below 0, which would reward the student for its mistakes, or is no finite number.
    """
    for index, weight in enumerate(class_weights):
        if not 0 <= weight < math.inf:
            raise ValueError(
                f"class_weights hold {weight} for class {index}, but a weight is a finite number, 0 or more."
            )


def require_number(loss: Tensor, temperature: float, student_logits: Tensor, teacher_logits: Tensor) -> None:
    """The loss, or each row's, is a number, and no finite logit has become an infinite one; one look at the device.

    Raises:
        ValueError: it says which logits give no probabilities.
    """
    given = {"student_logits": student_logits, "teacher_logits": teacher_logits}
    unsound = loss.isnan().any()
    if temperature < 1:
        unsound = unsound | torch.stack([overflows(logits, temperature) for logits in given.values()]).any()
    if not unsound:
        return
    for name, logits in given.items():
        largest = logits.amax(dim=-1)
        if not largest.isfinite().all():
            row = int((~largest.isfinite()).nonzero()[0])
            raise ValueError(
                f"{name} hold {largest[row].item()} as the largest value of row {row}, and no probabilities follow "
                "from that; look for an overflow in the model (float16?), or for a mask that leaves no class."
            )
    for logits in given.values():
        require_no_overflow(logits, temperature)
    raise ValueError(f"The objective is not a number at temperature {temperature}: the divergence gives NaN.")


def require_logits(**given: object) -> None:
    """No probabilities where logits belong: a second softmax makes every answer nearly uniform, and warns of nothing.

    It looks at values, so it is for one batch of a training, and not for each.

    Raises:
        MismatchError: each of several rows lies between 0 and 1 and adds up to 1.
    """
    for name, logits in given.items():
        if isinstance(logits, Tensor) and _are_probabilities(logits):
            raise MismatchError(
                f"{name} are probabilities: each row lies between 0 and 1 and adds up to 1, and a softmax over "
                "them would make all classes nearly alike. Give logits (leave the model's own softmax out), or the "
                "probabilities' logarithms."
            )


def _are_probabilities(logits: Tensor) -> bool:
    rows = at_least_float32(logits.detach()).flatten(end_dim=-2)
    if len(rows) < SEVERAL:
        return False
    rounding = 1e-5 if logits.dtype in (torch.float32, torch.float64) else 1e-2
    return bool((rows >= 0).all() and ((rows.sum(dim=-1) - 1).abs() < rounding).all())


def require_no_overflow(logits: Tensor, temperature: float) -> None:
    """
    Raises:
        ValueError: a finite logit overflows. If it became -inf, it would pass for a class that is ruled out.
    """
    if overflows(logits, temperature):
        raise ValueError(f"Logits divided by temperature {temperature} overflow; take a larger one.")


def overflows(logits: Tensor, temperature: float) -> Tensor:
    """Whether a finite logit is infinite when it is divided by the temperature; a tensor, so that nobody waits."""
    logits = at_least_float32(logits)
    return ((logits / temperature).isinf() & logits.isfinite()).any()


def _no_weights(class_weights: Tensor) -> Tensor:
    return ~((class_weights >= 0) & (class_weights < math.inf))


def _out_of_range(labels: Tensor, classes: int) -> Tensor:
    return (labels != IGNORED_LABEL) & ((labels < 0) | (labels >= classes))


def _require_count(count: float) -> None:
    if not 0 <= count < math.inf:
        raise ValueError(f"num_items holds {float(count)}, but it counts rows: a finite number, 0 or more.")
