"""Design the experiment: decide by a budget of runs whether a method is better, in many worlds whose truth is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binom

from kdcourse.course.exercises.diagnosis import Diagnosis
from kdcourse.course.exercises.exercise import Function
from kdcourse.course.exercises.kinds.judged import Judged, Observation, StoppedError

Run = Callable[[str, int], Any]
"""`run(arm, seed)`: one training and what it scored."""

CHANCE = 0.01
"""So many of the designs that keep to their false alarms exactly are refused for bad luck."""


class BudgetError(RuntimeError):
    """More runs were asked for than the budget has."""


class Purse:
    """`run` within a budget: the same run is paid for once."""

    def __init__(self, run: Run, budget: int) -> None:
        self.run, self.budget = run, budget
        self.paid: dict[tuple[str, int], Any] = {}

    def __call__(self, arm: str, seed: int) -> Any:
        """One run.

        Raises:
            BudgetError: the budget is spent.
        """
        if (arm, seed) not in self.paid:
            if len(self.paid) == self.budget:
                raise BudgetError(f"all {self.budget} runs are spent, and ({arm!r}, {seed}) would be one more")
            self.paid[arm, seed] = self.run(arm, seed)
        return self.paid[arm, seed]


@dataclass(frozen=True, kw_only=True, eq=False)
class DesignTheExperiment(Judged):
    """The answer is `decide(run, budget) -> bool`: True if the method is better than its baseline.

    It is asked in `worlds` worlds, in half of which there is no difference. False alarms are the worlds without a
    difference in which one is seen; power is the share of the others in which it is.
    """

    world: Callable[[np.random.Generator, bool], Run]
    """A world, with or without a difference; what a run scores hangs on arm and seed alone."""
    budget: int
    worlds: int = 500
    false_alarms: float = 0.05
    """At most; more may be luck, and passes in all but `CHANCE` of such designs."""
    power: float = 0.6
    """At least."""
    remark: Callable[[Purse], str] = lambda purse: ""
    """What the runs that were bought in a world tell of the design: "1 seed for each arm"; "" if nothing."""

    def observe(self, answer: Function) -> Observation:
        alarms, purses = self._decisions(answer, differs=False)
        found, _ = self._decisions(answer, differs=True)
        luck = float(binom.isf(CHANCE, len(alarms), self.false_alarms)) / len(alarms)
        wrongly = bool(np.mean(alarms) > luck)
        weakly = bool(np.mean(found) < self.power)
        allowed = f"at most {self.false_alarms:.0%}; {luck:.0%} may be luck"
        rows = [
            ("false alarms", f"{np.mean(alarms):.0%} of {len(alarms)} worlds ({allowed})"),
            ("power", f"{np.mean(found):.0%} of {len(found)} worlds (at least {self.power:.0%})"),
        ]
        [(remark, _)] = Counter(map(self.remark, purses)).most_common(1)
        if remark and wrongly:
            rows.append(("what we saw", remark))
        return Observation(not wrongly and not weakly, _said(wrongly, weakly), (*alarms, *found), tuple(rows))

    def is_like(self, seen: Observation, known: Observation) -> bool:
        """The same decision in nearly every world: two ways to write one design may differ at its edge."""
        agreed = np.mean(np.equal(seen.behaviour, known.behaviour))
        return not known.passed and bool(agreed >= 0.97)  # noqa: PLR2004

    def play(self, seed: int, differs: bool) -> Purse:
        """One world to try a design in, none of those that it is judged by."""
        return Purse(self.world(np.random.default_rng([1, seed]), differs), self.budget)

    def _decisions(self, answer: Function, differs: bool) -> tuple[list[bool], list[Purse]]:
        """What is decided in half of the worlds, and what was bought there."""
        generators = (np.random.default_rng([0, seed, differs]) for seed in range(self.worlds // 2))
        purses = [Purse(self.world(generator, differs), self.budget) for generator in generators]
        return [self.truth(self.call(answer, purse, self.budget).values[0]) for purse in purses], purses

    def truth(self, value: Any) -> bool:
        """What a function has decided.

        Raises:
            StoppedError: it is neither True nor False.
        """
        if not isinstance(value, bool | np.bool_):
            raise StoppedError(
                Diagnosis(
                    "error", f"Your function gives back {value!r} ({type(value).__name__}); True or False is asked for."
                )
            )
        return bool(value)


def _said(wrongly: bool, weakly: bool) -> str:
    if wrongly and weakly:
        return "your design sees differences that are not there, and misses those that are."
    if wrongly:
        return "your design sees differences that are not there."
    if weakly:
        return "your design raises hardly a false alarm, and misses too many differences that are there."
    return "your design finds what is there, and raises hardly a false alarm."
