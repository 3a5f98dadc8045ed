"""Name the fault: a run's log comes in, and what went wrong in it is to be said; the runs are new ones each time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kdcourse.course.exercises.diagnosis import Diagnosis
from kdcourse.course.exercises.exercise import Function
from kdcourse.course.exercises.kinds.judged import Judged, Observation, StoppedError, counted


@dataclass(frozen=True, kw_only=True, eq=False)
class NameTheFault(Judged):
    """The answer is `name_fault(log) -> str`, one of `faults`."""

    faults: Sequence[str]
    """In words; "healthy" may be one of them."""
    run: Callable[[str, int], Any]
    """The log of a run with this fault and this seed; cached by whoever makes it, if it takes long."""
    seeds: Sequence[int] = range(100, 110)
    """Those of the runs to be judged by; a learner plays with others."""
    share: float = 0.9
    """So many of the runs must be named rightly."""

    def observe(self, answer: Function) -> Observation:
        runs = [(fault, seed) for fault in self.faults for seed in self.seeds]
        named = [self.named(answer, fault, seed) for fault, seed in runs]
        wrong = Counter((fault, name) for (fault, _), name in zip(runs, named, strict=True) if name != fault)
        right = len(runs) - wrong.total()
        rows = tuple((fault, self._confusion(fault, wrong)) for fault in self.faults if self._missed(fault, wrong))
        said = f"{counted(right, runs)} runs named rightly"
        passed = right >= self.share * len(runs)
        return Observation(
            passed, f"{said}." if passed else f"{said}; {self.share:.0%} are asked for.", (*named,), rows
        )

    def is_like(self, seen: Observation, known: Observation) -> bool:
        """The same name for nearly every run: two people draw the same line in two places."""
        agreed = [ours == theirs for ours, theirs in zip(seen.behaviour, known.behaviour, strict=True)]
        return not known.passed and sum(agreed) >= 0.95 * len(agreed)

    def named(self, answer: Function, fault: str, seed: int) -> str:
        """Which fault a function sees in a run with this one.

        Raises:
            StoppedError: it names none of them.
        """
        name = self.call(answer, self.run(fault, seed)).values[0]
        if name not in self.faults:
            choices = ", ".join(map(repr, self.faults))
            raise StoppedError(Diagnosis("error", f"Your function says {name!r}, which is none of {choices}."))
        return str(name)

    def _missed(self, fault: str, wrong: Counter[tuple[str, str]]) -> int:
        return sum(count for (of, _), count in wrong.items() if of == fault)

    def _confusion(self, fault: str, wrong: Counter[tuple[str, str]]) -> str:
        taken = ", ".join(f"{name!r} ({count})" for (of, name), count in wrong.items() if of == fault)
        return f"{counted(len(self.seeds) - self._missed(fault, wrong), self.seeds)} named; taken for {taken}"


def taking(name_fault: Function, fault: str, for_another: str) -> Function:
    """All right but one name."""
    return lambda log: for_another if name_fault(log) == fault else name_fault(log)
