"""The exercises of lesson 07: the interval of a comparison, and an experiment whose conclusions hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import mean, pstdev, stdev

import numpy as np
import scipy.stats
import torch
from torch import Generator

from kdcourse.course.exercises.exercise import Edge, Exercise, Inputs, Misconception
from kdcourse.course.exercises.kinds.experiments import DesignTheExperiment, Purse

Scores = Sequence[float]
Train = Callable[[str, int], Mapping[str, float]]
"""`run(arm, seed)`."""

LABELS, DISTILLED = [0.76, 0.75, 0.77], [0.80, 0.80, 0.80]
"""Accuracies of two arms, trained on labels only and distilled, for three seeds."""


def _random_scores(generator: Generator) -> Inputs:
    """Accuracies of two arms with the same seeds, which differ from one another more than the arms do."""
    seeds = 0.75 + 0.02 * torch.randn(5, generator=generator)
    gains = 0.03 + 0.005 * torch.randn(5, generator=generator)
    return seeds.tolist(), (seeds + gains).tolist()


# ---------------------------------------------------------------------------------------------------------------------
# 07.interval


def _half_width(spread: float, count: int, degrees: float) -> float:
    return float(scipy.stats.t.ppf(0.975, degrees)) * spread / count**0.5


def _around(center: float, width: float) -> tuple[float, float]:
    return center - width, center + width


def _gains(first: Scores, second: Scores) -> list[float]:
    return [after - before for before, after in zip(first, second, strict=True)]


def _interval(first: Scores, second: Scores) -> tuple[float, float]:
    gains = _gains(first, second)
    return _around(mean(gains), _half_width(stdev(gains), len(gains), len(gains) - 1))


def _interval_unpaired(first: Scores, second: Scores) -> tuple[float, float]:
    spread = (stdev(first) ** 2 + stdev(second) ** 2) ** 0.5
    return _around(mean(second) - mean(first), _half_width(spread, len(first), 2 * len(first) - 2))


def _interval_normal(first: Scores, second: Scores) -> tuple[float, float]:
    gains = _gains(first, second)
    return _around(mean(gains), 1.96 * stdev(gains) / len(gains) ** 0.5)


def _interval_spread_of_one(first: Scores, second: Scores) -> tuple[float, float]:
    gains = _gains(first, second)
    return _around(mean(gains), _half_width(stdev(gains), 1, len(gains) - 1))


def _interval_population(first: Scores, second: Scores) -> tuple[float, float]:
    gains = _gains(first, second)
    return _around(mean(gains), _half_width(pstdev(gains), len(gains), len(gains) - 1))


INTERVAL = Exercise(
    id="07.interval",
    title="The interval of a paired comparison",
    difficulty=2,
    minutes=7,
    examples=[(LABELS, DISTILLED), ([0.70, 0.74, 0.72, 0.78], [0.71, 0.75, 0.74, 0.79])],
    random_inputs=_random_scores,
    reference=_interval,
    edges=[
        Edge("where the second series is the worse one", lambda first, second: (second, first)),
        Edge("where they hardly differ", lambda first, second: (first, [*first[:-1], first[-1] + 0.02])),
        Edge("for two seeds", lambda first, second: (first[:2], second[:2])),
    ],
    tolerance=1e-5,
    misconceptions=[
        Misconception(
            "unpaired",
            _interval_unpaired,
            "You treat the arms as unrelated. A seed that is lucky is lucky in both: on our second example the paired "
            "interval is 7 times as narrow.",
            "section 3",
        ),
        Misconception(
            "normal",
            _interval_normal,
            "You take 1.96 for t. That is right for many seeds; for three it is 4.30, for five 2.78.",
            "section 3",
        ),
        Misconception(
            "spread-of-one",
            _interval_spread_of_one,
            "Your interval is √n times too wide, 1.7 for three seeds: you forgot to divide the spread by √n.",
            "section 3",
        ),
        Misconception(
            "population",
            _interval_population,
            "Your standard deviation divides by n. For three seeds that makes the interval 18% too narrow.",
            "section 3",
        ),
        Misconception(
            "reversed",
            lambda first, second: _interval(second, first),
            "Yours has the opposite sign: it is first minus second. A gain of the second series is above 0.",
            "section 3",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 07.decide

BASELINE = "labels"
TEMPERATURES = ("T = 1", "T = 2", "T = 4", "T = 8")
BUDGET = 24
"""Runs."""
GAINS = {"T = 1": 0.2, "T = 2": 0.8, "T = 4": 1.2, "T = 8": 0.5}
"""Points of accuracy, where there is a difference at all; which temperature is best is drawn for each world."""


class Run(Mapping[str, float]):
    """What a run scored, in percent, on the validation and on the test sentences; it knows which of them was read."""

    def __init__(self, validation: float, test: float) -> None:
        self._scores = {"validation": validation, "test": test}
        self.read: set[str] = set()

    def __getitem__(self, sentences: str) -> float:
        self.read.add(sentences)
        return self._scores[sentences]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def __repr__(self) -> str:
        return str({sentences: round(score, 1) for sentences, score in self._scores.items()})


def _world(generator: np.random.Generator, differs: bool) -> Train:
    """Trainings that share the luck of their seed (1 point), and have their own (0.5), as their sentences do (0.4)."""
    key = int(generator.integers(2**32))
    drawn = generator.permutation(list(GAINS.values())) if differs else np.zeros(len(GAINS))
    gains = {BASELINE: 0.0, **dict(zip(TEMPERATURES, drawn, strict=True))}

    def run(arm: str, seed: int) -> Run:
        if arm not in gains:
            raise ValueError(f"There is no arm {arm!r}; there are {', '.join(map(repr, gains))}.")
        of_the_seed = np.random.default_rng([key, seed]).normal()
        own, validation, test = np.random.default_rng([key, seed, 1 + list(gains).index(arm)]).normal(size=3)
        score = 78 + gains[arm] + of_the_seed + 0.5 * own
        return Run(float(score + 0.4 * validation), float(score + 0.4 * test))

    return run


def _scores(run: Train, arm: str, seeds: Sequence[int], sentences: str = "test") -> list[float]:
    return [run(arm, seed)[sentences] for seed in seeds]


def _is_above_zero(gains: Scores) -> bool:
    """Whether Student's 90% interval, of which one end counts, leaves zero out."""
    return mean(gains) > float(scipy.stats.t.ppf(0.95, len(gains) - 1)) * stdev(gains) / len(gains) ** 0.5


def _is_better(run: Train, arm: str, seeds: Sequence[int]) -> bool:
    return _is_above_zero(_gains(_scores(run, BASELINE, seeds), _scores(run, arm, seeds)))


def _best(run: Train, seeds: Sequence[int], sentences: str = "validation") -> str:
    """The temperature with the highest mean."""
    return max(TEMPERATURES, key=lambda arm: mean(_scores(run, arm, seeds, sentences)))


def _decide(run: Train, budget: int) -> bool:
    """A third of the budget chooses, with seeds of its own; two thirds judge what was chosen."""
    of_choice = budget // 3 // len(TEMPERATURES)
    return _is_better(run, _best(run, range(of_choice)), range(of_choice, of_choice + budget // 3))


def _decide_by_one_seed(run: Train, budget: int) -> bool:
    return run(_best(run, [0]), 0)["test"] > run(BASELINE, 0)["test"]


def _decide_by_the_best_run(run: Train, budget: int) -> bool:
    seeds = range(budget // 5)
    return max(max(_scores(run, arm, seeds)) for arm in TEMPERATURES) > max(_scores(run, BASELINE, seeds))


def _decide_chosen_on_test(run: Train, budget: int) -> bool:
    seeds = range(budget // 5)
    return _is_better(run, _best(run, seeds, "test"), seeds)


def _decide_by_any(run: Train, budget: int) -> bool:
    return any(_is_better(run, arm, range(budget // 5)) for arm in TEMPERATURES)


def _decide_by_the_mean(run: Train, budget: int) -> bool:
    seeds = range(2, 2 + budget // 3)
    chosen = _best(run, range(2))
    return mean(_scores(run, chosen, seeds)) > mean(_scores(run, BASELINE, seeds))


def _decide_unpaired(run: Train, budget: int) -> bool:
    seeds = range(2, 2 + budget // 3)
    chosen = _scores(run, _best(run, range(2)), seeds)
    return bool(scipy.stats.ttest_ind(chosen, _scores(run, BASELINE, seeds), alternative="greater").pvalue < 0.05)  # noqa: PLR2004


def _decide_with_the_seeds_that_chose(run: Train, budget: int) -> bool:
    seeds = range(budget // 5)
    return _is_better(run, _best(run, seeds), seeds)


def _remark(purse: Purse) -> str:
    """Which scores of which runs a design has looked at."""
    tested = {arm for (arm, _), run in purse.paid.items() if "test" in run.read and arm != BASELINE}
    chose = {seed for (_, seed), run in purse.paid.items() if "validation" in run.read}
    judged = {seed for (_, seed), run in purse.paid.items() if "test" in run.read}
    if len(tested) > 1:
        return f"you looked at the test scores of {len(tested)} temperatures, and the luckiest of them looks best"
    if len(judged) < 3:  # noqa: PLR2004  (two make a spread of one number)
        return f"{len(judged)} seed judged, which tells nothing of the spread"
    if both := len(chose & judged):
        return f"{both} seeds chose the temperature and judged it, too: it was chosen for its luck with them"
    return f"{len(judged)} fresh seeds judged one temperature"


def _practice(seed: int, differs: bool) -> Purse:
    """A world to try a design in, none of those that it is judged by."""
    return DECIDE.play(seed, differs)


DECIDE = DesignTheExperiment(
    id="07.decide",
    title="An experiment of your own",
    difficulty=3,
    minutes=10,
    world=_world,
    budget=BUDGET,
    reference=_decide,
    remark=_remark,
    material=_practice,
    misconceptions=[
        Misconception(
            "one-seed",
            _decide_by_one_seed,
            "You train one seed of each arm. The best of 4 temperatures is above the baseline in two worlds of three "
            "in which nothing differs, because the best of 5 runs is mostly one of these 4.",
            "section 3",
        ),
        Misconception(
            "best-run",
            _decide_by_the_best_run,
            "You compare the best run of 16 with the best of 4. The more tries an arm has, the better is its best, so "
            "that 8 of 10 worlds without a difference show one.",
            "section 4, Break it",
        ),
        Misconception(
            "chosen-on-test",
            _decide_chosen_on_test,
            "You choose the temperature by the test sentences and then test it by them. Its mean and its interval are "
            "right for a temperature that was named before, and too kind to the best of 4.",
            "section 4, Break it",
        ),
        Misconception(
            "any-of-four",
            _decide_by_any,
            "You test 4 temperatures and report any that leaves zero out. Each alone raises 5% false alarms, the 4 "
            "together about 3 times as many; and with 4 seeds each you see less.",
            "section 3, How many did you look at?",
        ),
        Misconception(
            "no-spread",
            _decide_by_the_mean,
            "You choose and judge with different seeds, as one should, and then look at the sign of the mean alone. "
            "Where nothing differs, it is positive half of the time: the interval is missing.",
            "section 3",
        ),
        Misconception(
            "unpaired",
            _decide_unpaired,
            "Your design raises no false alarm, but finds 52% of the differences; the same runs, paired, find 84%: "
            "seeds differ by as much as the methods do, and a lucky seed is lucky in both arms. Subtract seed by seed.",
            "section 3",
        ),
        Misconception(
            "same-seeds",
            _decide_with_the_seeds_that_chose,
            "You choose by validation, which is right, but judge with the seeds that chose. The run's own luck is in "
            "both of its scores, so the winner was picked for luck that the test sentences see, too.",
            "section 4, Break it",
        ),
    ],
)


EXERCISES = [INTERVAL, DECIDE]
