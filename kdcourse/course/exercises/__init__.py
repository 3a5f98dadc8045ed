"""Exercises that know the mistake: `check("01.kl", my_function)` passes an answer or names what is wrong with it.

The names below are imported when they are first used: `kdcourse progress` reads a record and does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdcourse.course.exercises.catalogue import all_exercises, find_exercise
    from kdcourse.course.exercises.diagnosis import Diagnosis, check, verify
    from kdcourse.course.exercises.exercise import Exercise, Misconception

_HOMES = {
    "Diagnosis": "diagnosis",
    "Exercise": "exercise",
    "Misconception": "exercise",
    "all_exercises": "catalogue",
    "check": "diagnosis",
    "find_exercise": "catalogue",
    "verify": "diagnosis",
}

__all__ = ["Diagnosis", "Exercise", "Misconception", "all_exercises", "check", "find_exercise", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
