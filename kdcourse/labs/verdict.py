"""Is one way of training better than another, or may chance have done it (lessons 00, 03, 04, 07)?

Chance has two ways in: other seeds would have given other students, and other test sentences another mark to the same
students. Which of them an interval covers depends on what it is given, and `Verdict.covers` says it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

DRAWS = 10_000
"""How often seeds and sentences are drawn anew."""

SEEDS, EXAMPLES = "other seeds", "other test examples"


@dataclass(frozen=True)
class Verdict:
    """The mean difference (second minus first), its confidence interval and its standard deviation over the seeds.

    `p` is the two-sided p-value that belongs to the interval, for `holm`; `covers` says in words what the interval
    allows to have been otherwise.
    """

    difference: float
    low: float
    high: float
    spread: float
    p: float = float("nan")
    covers: str = SEEDS

    @property
    def word(self) -> str:
        """`better`, `worse`, or `no difference shown` if the interval holds 0."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference shown"


def compare_paired(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Verdict:
    """Compare two series that were run with the same seeds, in the same order.

    Args:
        first, second: either one score per seed, (seeds,), or what each seed did on each test sentence, (seeds,
            sentences), such as right or wrong; the columns are the same sentences in the same order.
        confidence: of the interval.

    Scores give Student's t interval of the differences. It covers other seeds, and no other test sentences. Answers to
    each sentence give a bootstrap that draws seeds and sentences anew, both at once. A handful of seeds says little of
    its own spread, and their bootstrap is too narrow; so the interval is never narrower than Student's. With a single
    seed it covers other sentences alone.

    Raises:
        ValueError: the series do not pair up, hold fewer than two values, or one that is not finite.
    """
    before, after = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if before.shape != after.shape or before.size < 2 or before.ndim not in (1, 2):  # noqa: PLR2004  (a spread needs two)
        raise ValueError(
            f"There are {_count(before)} and {_count(after)}; they are compared pair by pair, at least two."
        )
    differences = after - before
    if not np.isfinite(differences).all():
        raise ValueError(f"The scores are {before.tolist()} and {after.tolist()}; a verdict needs finite numbers.")
    if differences.ndim == 1:
        return _over_seeds(differences, confidence)
    over_both = _over_seeds_and_sentences(differences, confidence)
    return over_both if len(differences) == 1 else _wider(over_both, _over_seeds(differences.mean(axis=1), confidence))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values of a family of comparisons, in their order.

    Whoever makes twenty comparisons at 5% finds one by chance. The smallest of n p-values is therefore multiplied by n,
    the next by n − 1, and so on, and none may come out below one before it. What is then below 5% is so for the whole
    family: the chance that anything in it is found where there is nothing is at most 5%.
    """
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = worst
    return adjusted


def _count(series: np.ndarray) -> str:
    return f"{len(series)} scores" if series.ndim == 1 else f"scores of shape {series.shape}"


def _over_seeds(differences: np.ndarray, confidence: float) -> Verdict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy's, where every seed gives the same difference
        test = scipy.stats.ttest_1samp(differences, 0)
        low, high = test.confidence_interval(confidence)
    p = float(test.pvalue) if np.isfinite(test.pvalue) else 1.0  # two arms that are one and the same
    return Verdict(float(differences.mean()), float(low), float(high), float(differences.std(ddof=1)), p)


def _over_seeds_and_sentences(differences: np.ndarray, confidence: float) -> Verdict:
    """Sentences on which the seeds differ alike are drawn as one kind: that is the same, and much faster."""
    seeds, sentences = differences.shape
    kinds, counts = np.unique(differences, axis=1, return_counts=True)
    random = np.random.default_rng(0)
    drawn_sentences = random.multinomial(sentences, counts / sentences, size=DRAWS) / sentences
    drawn_seeds = random.multinomial(seeds, [1 / seeds] * seeds, size=DRAWS) / seeds
    means = ((drawn_sentences @ kinds.T) * drawn_seeds).sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    spread = differences.mean(axis=1).std(ddof=1) if seeds > 1 else 0.0
    return Verdict(
        float(differences.mean()),
        float(low),
        float(high),
        float(spread),
        min(1.0, float(2 * (beyond + 1) / (DRAWS + 1))),
        f"{SEEDS} and {EXAMPLES}" if seeds > 1 else EXAMPLES,
    )


def _wider(one: Verdict, other: Verdict) -> Verdict:
    """What both leave open, in the words of the first."""
    return Verdict(
        one.difference, min(one.low, other.low), max(one.high, other.high), one.spread, max(one.p, other.p), one.covers
    )
