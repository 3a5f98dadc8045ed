"""What can a comparison of two arms show for its price (lesson 12)?

Two arms are run with the same seeds and judged on the same test examples; the difference of each seed and example is
that of the arms, plus what chance adds: something for the seed, for the example, and for both together. Over S seeds
and N examples its mean has the standard error

    sqrt(seed_sd² / S + example_sd² / N)

and is held against Student's t with S − 1 degrees of freedom; the noncentral t says how often that finds a difference
(Cohen 1988, *Statistical Power Analysis for the Behavioral Sciences*, chapter 2). More seeds make the first part small
and leave the second as it is: below `floor` nothing can be shown, whatever the budget. The t is a little stricter than
the two conditions of `verdict.compare_paired`, so where examples matter, the real power is not below the planned one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.stats import chi2, nct, norm, t

POWER, ALPHA = 0.8, 0.05


@dataclass(frozen=True)
class Spread:
    """Standard deviations of the difference between two arms, in the unit of the score."""

    seed_sd: float
    """Over seeds, of the mean over examples."""
    example_sd: float = 0.0
    """Over examples, of what all seeds have in common there."""


def spread_of(first: ArrayLike, second: ArrayLike) -> Spread:
    """What a pilot has shown.

    Args:
        first, second: what each seed of an arm did on each example, (seeds, examples), at least two of both.

    A mean over few seeds also holds what is left of their own chance at each example. That is taken out of
    `example_sd`, as in an analysis of variance of two ways (Searle, Casella and McCulloch 1992, *Variance
    Components*, chapter 4).

    Raises:
        ValueError: the shapes differ, or there are fewer than two seeds or examples.
    """
    before, after = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if before.shape != after.shape or before.ndim != 2 or min(before.shape) < 2:  # noqa: PLR2004  (a spread needs two)
        raise ValueError(
            f"The arms have shapes {before.shape} and {after.shape}; a spread needs the same seeds and examples of "
            "both, (seeds, examples), and at least two of each."
        )
    differences = after - before
    seeds, examples = differences.shape
    of_seeds, of_examples = differences.mean(axis=1), differences.mean(axis=0)
    left = differences - of_seeds[:, None] - of_examples + differences.mean()
    of_both = (left**2).sum() / ((seeds - 1) * (examples - 1))
    return Spread(float(of_seeds.std(ddof=1)), math.sqrt(max(0.0, of_examples.var(ddof=1) - of_both / seeds)))


def cautious(sd: float, seeds: int, confidence: float = 0.8) -> float:
    """The standard deviation that a pilot of so many seeds leaves possible: the upper end of its one-sided interval.

    A handful of seeds says little of its own spread. Who plans with `sd` as it is finds out half of the time that it
    was more.

    Raises:
        ValueError: there are fewer than two seeds.
    """
    if seeds < 2:  # noqa: PLR2004  (a spread needs two)
        raise ValueError(f"A pilot of {seeds} seeds has no spread; take at least two.")
    return sd * math.sqrt((seeds - 1) / float(chi2.ppf(1 - confidence, seeds - 1)))


def power_of(difference: float, seeds: int, spread: Spread, examples: int | None = None, alpha: float = ALPHA) -> float:
    """How often so many seeds show a difference of this size, at a two-sided level `alpha`.

    Without `examples` the conclusion is about these test examples alone, and they add nothing to chance.
    """
    error = _error(seeds, spread, examples)
    if error == 0:
        return 1.0 if difference else 0.0
    bound, noncentrality = t.isf(alpha / 2, seeds - 1), abs(difference) / error
    # The other tail is taken as that of the mirrored one: scipy's cdf is NaN where it is next to nothing.
    return float(nct.sf(bound, seeds - 1, noncentrality) + nct.sf(bound, seeds - 1, -noncentrality))


def detectable(
    seeds: int, spread: Spread, examples: int | None = None, *, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The smallest difference that so many seeds show with this power."""
    error = _error(seeds, spread, examples)
    if error == 0:
        return 0.0

    def lacks(size: float) -> float:
        return power - power_of(size * error, seeds, spread, examples, alpha)

    most = 4.0
    while lacks(most) > 0:
        most *= 2
    return error * float(brentq(lacks, 0, most)) if lacks(0) > 0 else 0.0


def floor(spread: Spread, examples: int | None, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The difference below which no number of seeds has this power, because the test examples are too few."""
    if examples is None:
        return 0.0
    return float(norm.isf(alpha / 2) + norm.ppf(power)) * spread.example_sd / math.sqrt(examples)


@dataclass(frozen=True)
class Plan:
    """What a budget affords, and what that shows."""

    arms: int
    seeds: int
    """Of each arm; 0 if the budget affords fewer than two."""
    comparisons: int
    """Each arm with the first; the level of each is `alpha` divided by their number."""
    detectable: float
    """With the power that was asked for; infinite without seeds."""
    floor: float
    """What no budget goes below with these test examples."""
    difference: float
    """What is looked for."""
    needed_seeds: int | None
    """That find it; None if it is not above the floor."""
    needed_seconds: float
    """What they take, with the tuning; infinite if nothing finds it."""
    most_arms: int
    """With how many arms the budget would still find it; 0 if not even with two."""

    @property
    def is_enough(self) -> bool:
        return self.detectable <= self.difference

    def __str__(self) -> str:
        affords = f"{self.arms} arms × {self.seeds} seeds, {_count(self.comparisons, 'comparison')}"
        finds = f"{affords}: finds {self.detectable:.4g} and more" if self.seeds else f"{affords}: finds nothing"
        if self.is_enough:
            return f"{finds}, so {self.difference:.4g} as well. With up to {self.most_arms} arms it still would."
        if self.needed_seeds is None:
            return (
                f"{finds}. {self.difference:.4g} cannot be shown with any budget: these test examples alone leave "
                f"{self.floor:.4g} open. Get more of them."
            )
        fewer = f" Or keep to {self.most_arms} arms." if self.most_arms else ""
        return (
            f"{finds}. {self.difference:.4g} cannot be shown: it needs {self.needed_seeds} seeds, "
            f"{self.needed_seconds:,.0f} seconds.{fewer}"
        )


LARGEST = 100_000
"""Seeds and arms beyond which nobody plans."""


def plan(
    budget_seconds: float,
    seconds_per_run: float,
    seed_sd: float,
    difference: float,
    *,
    examples: int | None = None,
    example_sd: float = 0.0,
    arms: int = 2,
    tuning_runs: int = 0,
    alpha: float = ALPHA,
    power: float = POWER,
) -> Plan:
    """What a budget can show about arms that are each compared with the first of them.

    Args:
        budget_seconds: for everything, in the unit of `seconds_per_run`: CPU seconds, or hours of a GPU.
        seconds_per_run: of one arm with one seed.
        seed_sd: standard deviation over seeds of the *difference* between two arms, from a pilot (`spread_of`).
        difference: the smallest that would matter to you, in the unit of `seed_sd`.
        examples: test examples; None if the conclusion is to be about these alone.
        example_sd: standard deviation over examples (`spread_of`).
        arms: with the baseline.
        tuning_runs: what each arm spends on its settings before it is judged.
        alpha: chance of any false alarm in the family, shared out evenly (Bonferroni); Holm finds a little more.
        power: chance to find a difference of that size.

    Raises:
        ValueError: a number is negative or no number; fewer than two arms; an `alpha` or `power` outside of 0 to 1.
    """
    _check(budget_seconds, seconds_per_run, seed_sd, difference, example_sd, arms, tuning_runs, alpha, power)
    spread = Spread(seed_sd, example_sd)

    def seeds_for(count: int) -> int:
        affords = int(min(LARGEST, budget_seconds / seconds_per_run / count - tuning_runs))
        return affords if affords > 1 else 0

    def finds(count: int, seeds: int) -> float:
        if not seeds:
            return math.inf
        return detectable(seeds, spread, examples, alpha=alpha / (count - 1), power=power)

    level = alpha / (arms - 1)
    lowest = floor(spread, examples, alpha=level, power=power)
    needed = _needed(lambda seeds: finds(arms, seeds), difference) if difference > lowest else None
    return Plan(
        arms=arms,
        seeds=seeds_for(arms),
        comparisons=arms - 1,
        detectable=finds(arms, seeds_for(arms)),
        floor=lowest,
        difference=difference,
        needed_seeds=needed,
        needed_seconds=math.inf if needed is None else arms * (tuning_runs + needed) * seconds_per_run,
        most_arms=_most_arms(lambda count: finds(count, seeds_for(count)) <= difference),
    )


def _error(seeds: int, spread: Spread, examples: int | None) -> float:
    of_examples = 0.0 if examples is None else spread.example_sd**2 / examples
    return math.sqrt(spread.seed_sd**2 / seeds + of_examples)


def _needed(finds: Callable[[int], float], difference: float) -> int | None:
    """The fewest seeds; what is found falls with each one more."""
    low, high = 1, 2
    while finds(high) > difference:
        low, high = high, 2 * high
        if high > LARGEST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if finds(middle) <= difference else (middle, high)
    return high


def _most_arms(is_enough: Callable[[int], bool]) -> int:
    """More arms have fewer seeds and a stricter level each, so the first that fails is the end."""
    arms = 1
    while arms < LARGEST and is_enough(arms + 1):
        arms += 1
    return arms if arms > 1 else 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _check(
    budget: float, seconds: float, seed_sd: float, difference: float, example_sd: float,
    arms: int, tuning_runs: int, alpha: float, power: float,
) -> None:  # fmt: skip
    amounts = {
        "budget_seconds": budget, "seed_sd": seed_sd, "difference": difference, "example_sd": example_sd,
        "tuning_runs": tuning_runs,
    }  # fmt: skip
    for name, amount in amounts.items():
        if not (math.isfinite(amount) and amount >= 0):
            raise ValueError(f"{name} is {amount}; a plan needs a finite number that is not negative.")
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"seconds_per_run is {seconds}; a run takes some time. Measure one.")
    if arms < 2:  # noqa: PLR2004  (a comparison has two sides)
        raise ValueError(f"arms is {arms}; a comparison has two sides, the baseline is one of them.")
    for name, share in {"alpha": alpha, "power": power}.items():
        if not 0 < share < 1:
            raise ValueError(f"{name} is {share}; it is a chance, between 0 and 1.")
