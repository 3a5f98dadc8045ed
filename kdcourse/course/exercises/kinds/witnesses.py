"""Find the witness: an input on which wrong implementations give themselves away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kdcourse.course.exercises.comparing import close, is_nan, plain
from kdcourse.course.exercises.diagnosis import Diagnosis
from kdcourse.course.exercises.exercise import Function
from kdcourse.course.exercises.kinds.judged import Judged, Observation, StoppedError, Suspect, counted, listed
from kdcourse.course.exercises.showing import shown


@dataclass(frozen=True, kw_only=True, eq=False)
class FindTheWitness(Judged):
    """The answer is `witness()`, which gives the arguments for one call, as a tuple.

    On these every suspect must differ from what is right, and equal rewrites of what is right must not: a witness by
    overflow is none.
    """

    right: Sequence[Suspect]
    """The first is what the suspects are compared with."""
    suspects: Sequence[Suspect]
    illegal: Callable[..., str]
    """Which rule these arguments break, in a sentence; "" if none. It may raise."""
    tolerance: float = 1e-3

    def observe(self, answer: Function) -> Observation:
        inputs = self._inputs(self.call(answer).values[0])
        values = [_value(each, inputs) for each in self.right]
        if not all(_is_finite(value) and close(value, values[0], self.tolerance) for value in values):
            raise StoppedError(
                Diagnosis(
                    "different",
                    "On your input the right implementations do not agree with each other: it shows the limits of "
                    "floating point, not a mistake.",
                    beside=(("input", shown(inputs)), ("right", shown(values))),
                )
            )
        alike = [close(_value(each, inputs), values[0], self.tolerance) for each in self.suspects]
        silent = [each.name for each, same in zip(self.suspects, alike, strict=True) if same]
        told = counted(len(alike) - len(silent), alike)
        rows = (
            ("input", shown(inputs)), ("right", shown(values[:1])), ("tells apart", told),
            *((("still alike", listed(silent)),) if silent else ()),
        )  # fmt: skip
        return Observation(not silent, f"your input tells {told} apart from what is right.", tuple(alike), rows)

    def _inputs(self, given: Any) -> tuple[Any, ...]:
        if not isinstance(given, tuple):
            said = f"Your function gives back {type(given).__name__}; a tuple is asked for."
            raise StoppedError(Diagnosis("error", said))
        try:
            rule = self.illegal(*given)
        except Exception as error:
            rule = f"they do not fit ({type(error).__name__}: {error})."
        if rule:
            raise StoppedError(
                Diagnosis("error", f"These arguments do not count: {rule}", beside=(("input", shown(given)),))
            )
        return given


def _value(suspect: Suspect, inputs: tuple[Any, ...]) -> Any:
    """What it gives; an error, which is unlike every value, as itself."""
    try:
        return plain(suspect.function(*inputs))
    except Exception as error:
        return error


def _is_finite(value: Any) -> bool:
    if isinstance(value, Exception) or is_nan(value):
        return False
    try:
        return bool(torch.as_tensor(value).isfinite().all())
    except (TypeError, ValueError, RuntimeError):
        return True
