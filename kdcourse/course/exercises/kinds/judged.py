"""What the kinds have in common: an answer is watched in many situations, and what it did is summed up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from kdcourse.course.exercises.calling import Result, call_in_time
from kdcourse.course.exercises.diagnosis import Diagnosis, diagnose
from kdcourse.course.exercises.exercise import Function, Misconception, Task


@dataclass(frozen=True)
class Suspect:
    """Something that may be wrong, with a name in words: "T² missing at alpha = 0"."""

    name: str
    function: Function


@dataclass(frozen=True)
class Observation:
    """What an answer did."""

    passed: bool
    message: str
    behaviour: tuple[Any, ...]
    """The same for two answers that do the same."""
    beside: tuple[tuple[str, str], ...] = ()
    """Rows of a table, each with its name."""
    attempted: bool = True


class StoppedError(Exception):
    """The answer cannot be watched any further; `diagnosis` says why."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.message)
        self.diagnosis = diagnosis


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged(Task, ABC):
    """An exercise whose answer is not compared with the reference, but watched."""

    material: Any = None
    """What a learner is given to work with: see `exercises.material`."""

    @abstractmethod
    def observe(self, answer: Function) -> Observation:
        """What an answer does.

        Raises:
            StoppedError: it is the stub, or raises, or never ends.
        """

    def is_like(self, seen: Observation, known: Observation) -> bool:
        """Whether an answer does what a known mistake does."""
        return seen.behaviour == known.behaviour

    def call(self, answer: Function, *inputs: Any, allowed: tuple[type[BaseException], ...] = ()) -> Result:
        """What the answer gives; errors of the `allowed` types are part of its answer.

        Raises:
            StoppedError: as `observe`.
        """
        value, error = call_in_time(answer, inputs)
        result = Result((value,), error)
        if result.is_the_stub:
            raise StoppedError(Diagnosis("not attempted", f"{self.title}: not attempted yet."))
        if error is not None and not isinstance(error, allowed):
            line = (("line", result.line),) if result.line else ()
            said = f"Your function stopped with {type(error).__name__}: {str(error).rstrip('.')}."
            raise StoppedError(Diagnosis("error", said, beside=line)) from error
        if error is None and value is None and not allowed:
            raise StoppedError(Diagnosis("error", "Your function gives nothing back; a `return` is missing."))
        return result


@diagnose.register
def diagnose_judged(task: Judged, answer: Function) -> Diagnosis:
    """Passed, not attempted, an error, a mistake that is known, or one that is not."""
    seen = _watched(task, answer)
    if isinstance(seen, Observation) and seen.passed:
        return Diagnosis("passed", f"{task.title}: {seen.message}", beside=seen.beside)
    if isinstance(seen, Observation) and not seen.attempted:
        return Diagnosis("not attempted", f"{task.title}: {seen.message}", beside=seen.beside)
    if isinstance(seen, Diagnosis) and seen.kind in ("not attempted", "borrowed"):
        return seen
    for mistake in task.misconceptions:
        if _is_like(task, seen, _watched_mistake(task, mistake)):
            return Diagnosis("misconception", f"{mistake.signature} Read {mistake.read}.", mistake.name, seen.beside)
    return (
        seen
        if isinstance(seen, Diagnosis)
        else Diagnosis("different", f"{task.title}: {seen.message}", "", seen.beside)
    )


def _watched(task: Judged, answer: Function) -> Observation | Diagnosis:
    """What an answer did, or why it could not be watched to the end."""
    try:
        return task.observe(answer)
    except StoppedError as stopped:
        return stopped.diagnosis


@cache
def _watched_mistake(task: Judged, mistake: Misconception) -> Observation | Diagnosis:
    """Kept, since some are watched in hundreds of worlds, and do the same each time."""
    return _watched(task, mistake.wrong)


def _is_like(task: Judged, seen: Observation | Diagnosis, known: Observation | Diagnosis) -> bool:
    if isinstance(seen, Observation) and isinstance(known, Observation):
        return task.is_like(seen, known)
    return isinstance(seen, Diagnosis) and isinstance(known, Diagnosis) and seen.message == known.message


def counted(number: int, of: Sequence[Any]) -> str:
    return f"{number} of {len(of)}"


def listed(names: Sequence[str]) -> str:
    return "; ".join(names)
