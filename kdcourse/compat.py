"""May this student learn from this teacher? What must match, and the error that says what does not."""

from __future__ import annotations

from torch import Tensor


class MismatchError(ValueError):
    """Student and teacher do not fit together; the message names both sides, the rule, and what to do."""


def require_equal_shapes(student_name: str, student: Tensor, teacher_name: str, teacher: Tensor) -> None:
    """No broadcasting: (8, 1) against (8, 2) would give a number without a meaning, and no error.

    Raises:
        MismatchError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise MismatchError(
            f"{student_name} has shape {tuple(student.shape)} and {teacher_name} {tuple(teacher.shape)}, but they are "
            "compared row for row and class for class; check the models' num_labels (or vocabulary sizes) and batches."
        )
