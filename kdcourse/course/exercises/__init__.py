"""Exercises that know the mistake: `check("01.kl", my_function)` passes an answer or names what is wrong with it.

The names below are imported when they are first used: `kdcourse progress` reads a record and does not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdcourse.lazy import lazily

if TYPE_CHECKING:
    from kdcourse.course.exercises.catalogue import all_exercises, find_exercise
    from kdcourse.course.exercises.diagnosis import Diagnosis, check, material, verify
    from kdcourse.course.exercises.exercise import Exercise, Misconception

_HOMES = {
    "Diagnosis": "diagnosis",
    "Exercise": "exercise",
    "Misconception": "exercise",
    "all_exercises": "catalogue",
    "check": "diagnosis",
    "find_exercise": "catalogue",
    "material": "diagnosis",
    "verify": "diagnosis",
}

__all__ = ["Diagnosis", "Exercise", "Misconception", "all_exercises", "check", "find_exercise", "material", "verify"]

__getattr__, __dir__ = lazily(__name__, _HOMES)
