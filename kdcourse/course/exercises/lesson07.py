"""The exercises of lesson 07: how much of a gap is closed, and how much of that may be luck."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, pstdev, stdev

import scipy.stats
import torch
from torch import Generator

from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception

Scores = Sequence[float]

LABELS, DISTILLED = [0.76, 0.75, 0.77], [0.80, 0.80, 0.80]
"""Accuracies of two arms, trained on labels only and distilled, for three seeds."""


def _random_scores(generator: Generator) -> Inputs:
    """Accuracies of two arms with the same seeds, which differ from one another more than the arms do."""
    seeds = 0.75 + 0.02 * torch.randn(5, generator=generator)
    gains = 0.03 + 0.005 * torch.randn(5, generator=generator)
    return seeds.tolist(), (seeds + gains).tolist()


# ---------------------------------------------------------------------------------------------------------------------
# 07.gap_closed


def _random_gap(generator: Generator) -> Inputs:
    return *_random_scores(generator), 0.87


def _gap_closed(labels: Scores, distilled: Scores, teacher: float) -> float:
    return (mean(distilled) - mean(labels)) / (teacher - mean(labels))


GAP_CLOSED = Exercise(
    id="07.gap_closed",
    title="How much of the gap is closed?",
    difficulty=1,
    minutes=4,
    examples=[(LABELS, DISTILLED, 0.86), ([0.5, 0.7], [0.6, 0.7], 0.9), ([0.8, 0.7], [0.7, 0.7], 0.8)],
    random_inputs=_random_gap,
    reference=_gap_closed,
    misconceptions=[
        Misconception(
            "share-of-the-teacher",
            lambda labels, distilled, teacher: mean(distilled) / teacher,
            "You divide by the teacher's accuracy: 0.80 of 0.86 is 93%, and a student that never met the teacher would "
            "already have 88%.",
            "section 4",
        ),
        Misconception(
            "relative-gain",
            lambda labels, distilled, teacher: (mean(distilled) - mean(labels)) / mean(labels),
            "You divide by the accuracy of labels only: 0.04 of 0.76 is 5%, whether the teacher is at 80% or at 100%.",
            "section 4",
        ),
        Misconception(
            "share-of-what-is-left",
            lambda labels, distilled, teacher: (mean(distilled) - mean(labels)) / (teacher - mean(distilled)),
            "You divide by the distance that is left: at half of the way you report 100%.",
            "section 4",
        ),
        Misconception(
            "best-seeds",
            lambda labels, distilled, teacher: (max(distilled) - max(labels)) / (teacher - max(labels)),
            "You compare the best seed of each arm. The best of many is luck; take the means.",
            "section 4",
        ),
        Misconception(
            "points",
            lambda labels, distilled, teacher: mean(distilled) - mean(labels),
            "You return points of accuracy. They are the numerator; the denominator is the teacher minus labels only.",
            "section 4",
        ),
    ],
)


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
    minutes=8,
    examples=[(LABELS, DISTILLED), ([0.70, 0.74, 0.72, 0.78], [0.71, 0.75, 0.74, 0.79])],
    random_inputs=_random_scores,
    reference=_interval,
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


EXERCISES = [GAP_CLOSED, INTERVAL]
