"""The exercises of lesson 12: a comparison that is unfair, and one that holds for other seeds and other examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.stats

from kdcourse.course.exercises import comparison_runs
from kdcourse.course.exercises.comparison_runs import ARMS, Log
from kdcourse.course.exercises.exercise import Misconception
from kdcourse.course.exercises.kinds.experiments import DesignTheExperiment, Purse
from kdcourse.course.exercises.kinds.faults import NameTheFault, taking

# ---------------------------------------------------------------------------------------------------------------------
# 12.unfair

FIRST_TUNING_SEED = 100


def _runs(log: Log, arm: str, *, tuning: bool) -> list[dict[str, Any]]:
    return [run for run in log["runs"] if run["arm"] == arm and (run["seed"] >= FIRST_TUNING_SEED) == tuning]


def _chosen_by(log: Log, arm: str, score: str) -> float:
    """The rate that is best in the mean over the tuning runs."""
    runs = _runs(log, arm, tuning=True)
    rates = sorted({run["rate"] for run in runs})
    return max(rates, key=lambda rate: np.mean([run[score] for run in runs if run["rate"] == rate]))


def _name_unfair(log: Log) -> str:
    runs = {arm: [run for run in log["runs"] if run["arm"] == arm] for arm in ARMS}
    if any(set(run["rows"]) & set(log["test rows"]) for run in log["runs"]):
        return "test rows learned"
    if len({len({run["rate"] for run in of_arm}) for of_arm in runs.values()}) > 1:
        return "more tries"
    if len({run["steps"] for run in log["runs"]}) > 1:
        return "more steps"
    if any(len(log["report"][arm]["seeds"]) < len(_runs(log, arm, tuning=False)) for arm in ARMS):
        return "seeds left out"
    if any(log["report"][arm]["rate"] != _chosen_by(log, arm, "validation") for arm in ARMS):
        return "chosen on test"
    return "fair"


def _name_by_rows(log: Log) -> str:
    """More rows for one arm, which unlabelled rows are, taken for the fault; what is left is right."""
    found = _name_unfair(log)
    return "more tries" if found == "fair" else found


def _name_best_on_test(log: Log) -> str:
    """The rate that is best on test rows is suspect, even where the validation rows like it, too."""
    found = _name_unfair(log)
    lucky = any(log["report"][arm]["rate"] == _chosen_by(log, arm, "test") for arm in ARMS)
    return "chosen on test" if found == "fair" and lucky else found


UNFAIR = NameTheFault(
    id="12.unfair",
    title="Is this comparison fair?",
    difficulty=2,
    minutes=8,
    faults=comparison_runs.FAULTS,
    run=comparison_runs.play,
    seeds=range(100, 120),
    share=0.95,
    material=comparison_runs,
    reference=_name_unfair,
    misconceptions=[
        Misconception(
            "scores-alone",
            lambda log: "fair",
            "You call all 6 kinds of log fair. Their scores are alike: in no log is the method better. What is unfair "
            "stands beside the scores: rates, steps, seeds and rows.",
            "section 2",
        ),
        Misconception(
            "rows-are-a-fault",
            _name_by_rows,
            "You object to 80 rows beside 40. That is what the method is: it learns from rows that have no label. What "
            "has to be equal is what could have been spent on the other arm as well.",
            "section 2",
        ),
        Misconception(
            "best-on-test",
            _name_best_on_test,
            "You suspect a rate because it is best on the test rows. In one fair log of 3 and more it is best there, "
            "too. Ask whether the validation rows would have chosen it.",
            "section 2",
        ),
        Misconception(
            "never-tuned-is-fair",
            taking(_name_unfair, "more tries", "fair"),
            "You overlook an arm that has tried 1 rate where the other has tried 3. The best of 3 is better than any 1 "
            "by luck alone.",
            "section 2",
        ),
        Misconception(
            "longer-is-fair",
            taking(_name_unfair, "more steps", "fair"),
            "You overlook the steps: one arm has 2 times as many as the other.",
            "section 2",
        ),
        Misconception(
            "missing-seeds-are-fair",
            taking(_name_unfair, "seeds left out", "fair"),
            "You believe the report. It counts 6 seeds of an arm that was judged with 8; look at which are missing.",
            "section 2",
        ),
        Misconception(
            "test-is-validation",
            taking(_name_unfair, "chosen on test", "fair"),
            "You overlook by which rows the rate was chosen. Compute the mean over the 3 tuning seeds for each rate, "
            "on validation and on test rows, and see which of them the report has followed.",
            "section 2",
        ),
        Misconception(
            "a-few-rows-are-fair",
            taking(_name_unfair, "test rows learned", "fair"),
            "You overlook 10 rows of 80 that are test rows: what is learned by heart is no accuracy.",
            "section 2",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 12.decide

EXAMPLES, BUDGET = 300, 16
GAIN = 0.38
"""Added to what decides an answer, whose standard deviation is 1.7; about eight points of accuracy."""
BASELINE, METHOD = "labels", "distilled"
Train = Callable[[str, int], np.ndarray]


def _world(generator: np.random.Generator, differs: bool) -> Train:
    """Each arm has examples that it gets right with any seed; which these are differs between arms, their number does
    not, unless there is a difference.

    What a seed does to one arm, and what an arm likes, add about as much to the variance of a mean over 8 seeds and 300
    examples: whoever leaves out either has an interval that is too narrow.
    """
    key = int(generator.integers(2**32))
    ease = 1.4 * generator.normal(size=EXAMPLES)
    likes = {arm: ease + 0.8 * generator.normal(size=EXAMPLES) for arm in (BASELINE, METHOD)}
    gains = {BASELINE: 0.0, METHOD: GAIN if differs else 0.0}

    def run(arm: str, seed: int) -> np.ndarray:
        if arm not in likes:
            raise ValueError(f"There is no arm {arm!r}; there are {', '.join(map(repr, likes))}.")
        luck = 0.2 * np.random.default_rng([key, seed]).normal()
        own = np.random.default_rng([key, seed, 1 + list(likes).index(arm)])
        right = 0.8 + likes[arm] + gains[arm] + luck + 0.17 * own.normal() + 0.3 * own.normal(size=EXAMPLES) > 0
        return np.asarray(right)

    return run


def _differences(run: Train, seeds: Sequence[int]) -> np.ndarray:
    """(seeds, examples), −1, 0 or 1."""
    return np.stack([run(METHOD, seed) * 1.0 - run(BASELINE, seed) for seed in seeds])


def _is_above_zero(gains: np.ndarray) -> bool:
    return bool(scipy.stats.ttest_1samp(gains, 0, alternative="greater").pvalue < 0.05)  # noqa: PLR2004


def _decide(run: Train, budget: int) -> bool:
    """The variance of the mean is what seeds add and what examples add."""
    found = _differences(run, range(budget // 2))
    of_seeds = found.mean(axis=1).var(ddof=1) / len(found)
    of_examples = found.mean(axis=0).var(ddof=1) / found.shape[1]
    return bool(found.mean() > float(scipy.stats.t.isf(0.05, len(found) - 1)) * np.sqrt(of_seeds + of_examples))


def _decide_over_seeds(run: Train, budget: int) -> bool:
    return _is_above_zero(_differences(run, range(budget // 2)).mean(axis=1))


def _decide_over_examples(run: Train, budget: int) -> bool:
    return _is_above_zero(_differences(run, range(budget // 2)).mean(axis=0))


def _decide_pooled(run: Train, budget: int) -> bool:
    return _is_above_zero(_differences(run, range(budget // 2)).ravel())


def _decide_by_the_mean(run: Train, budget: int) -> bool:
    return bool(_differences(run, range(budget // 2)).mean() > 0)


def _decide_unpaired(run: Train, budget: int) -> bool:
    """Two shares of all answers, as if each arm had been asked other examples."""
    shares = [np.mean([run(arm, seed) for seed in range(budget // 2)], axis=0) for arm in (BASELINE, METHOD)]
    return bool(scipy.stats.ttest_ind(shares[1], shares[0], alternative="greater").pvalue < 0.01)  # noqa: PLR2004


def _remark(purse: Purse) -> str:
    seeds = {seed for _, seed in purse.paid}
    return f"{len(seeds)} seeds and {EXAMPLES} examples; whoever asks the same {EXAMPLES} again gets the same luck"


def _practice(seed: int, differs: bool) -> Purse:
    """A world to try a design in, none of those that it is judged by."""
    return DECIDE.play(seed, differs)


DECIDE = DesignTheExperiment(
    id="12.decide",
    title="Better with other examples, too",
    difficulty=3,
    minutes=10,
    world=_world,
    budget=BUDGET,
    power=0.6,
    reference=_decide,
    remark=_remark,
    material=_practice,
    misconceptions=[
        Misconception(
            "seeds-alone",
            _decide_over_seeds,
            "Your interval covers other seeds and no other examples. All 8 seeds are asked the same 300 examples, and "
            "an arm that happens to like them is better with every seed: 13% of the worlds without a difference "
            "show one.",
            "section 3",
        ),
        Misconception(
            "examples-alone",
            _decide_over_examples,
            "Your interval covers other examples and no other seeds: what a seed does to an arm moves all 300 of its "
            "answers together, and an average over examples cannot see it. A false alarm in 12% of the worlds.",
            "section 3",
        ),
        Misconception(
            "pooled",
            _decide_pooled,
            "You count 2,400 answers as if they were 2,400 examples. They are 300, each asked 8 times, and the 8 "
            "answers are nearly the same: a false alarm in 28% of the worlds.",
            "section 3",
        ),
        Misconception(
            "no-spread",
            _decide_by_the_mean,
            "You look at the sign of the mean alone. Where nothing differs, it is positive in about 1 world of 2.",
            "section 3",
        ),
        Misconception(
            "unpaired",
            _decide_unpaired,
            "Your design raises no false alarm and finds 52% of the differences; the same runs, paired, find 84%: what "
            "is hard for one arm is hard for the other. Subtract example by example.",
            "section 3",
        ),
    ],
)


EXERCISES = [UNFAIR, DECIDE]
