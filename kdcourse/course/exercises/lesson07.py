"""The exercises of lesson 07: how much of a gap is closed, how much of that may be luck, how sure a model may be."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, pstdev, stdev

import scipy.stats
import torch
from torch import Generator, Tensor

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
            "section 3",
        ),
        Misconception(
            "relative-gain",
            lambda labels, distilled, teacher: (mean(distilled) - mean(labels)) / mean(labels),
            "You divide by the accuracy of labels only: 0.04 of 0.76 is 5%, whether the teacher is at 80% or at 100%.",
            "section 3",
        ),
        Misconception(
            "share-of-what-is-left",
            lambda labels, distilled, teacher: (mean(distilled) - mean(labels)) / (teacher - mean(distilled)),
            "You divide by the distance that is left: at half of the way you report 100%.",
            "section 3",
        ),
        Misconception(
            "best-seeds",
            lambda labels, distilled, teacher: (max(distilled) - max(labels)) / (teacher - max(labels)),
            "You compare the best seed of each arm. The best of many is luck; take the means.",
            "section 3",
        ),
        Misconception(
            "points",
            lambda labels, distilled, teacher: mean(distilled) - mean(labels),
            "You return points of accuracy. They are the numerator; the denominator is the teacher minus labels only.",
            "section 3",
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


# ---------------------------------------------------------------------------------------------------------------------
# 07.calibration_error


def _random_probs(generator: Generator) -> Inputs:
    probs = (3 * torch.randn(60, 3, generator=generator)).softmax(-1)
    return probs, torch.randint(3, (60,), generator=generator), 10


def _gaps(confidence: Tensor, right: Tensor, bins: int) -> list[tuple[int, float]]:
    """Size of each bin that is not empty, and how far its mean confidence is from the share that is right."""
    numbers = (confidence * bins).ceil().clamp(1, bins)
    inside = [numbers == number for number in range(1, bins + 1)]
    return [
        (int(each.sum()), (confidence[each].mean() - right[each].float().mean()).abs().item())
        for each in inside
        if each.any()
    ]


def _error(confidence: Tensor, right: Tensor, bins: int) -> float:
    return sum(size * gap for size, gap in _gaps(confidence, right, bins)) / len(right)


def _calibration_error(probs: Tensor, labels: Tensor, bins: int) -> float:
    confidence, named = probs.max(-1)
    return _error(confidence, named == labels, bins)


def _calibration_error_unweighted(probs: Tensor, labels: Tensor, bins: int) -> float:
    confidence, named = probs.max(-1)
    return mean(gap for _, gap in _gaps(confidence, named == labels, bins))


def _calibration_error_signed(probs: Tensor, labels: Tensor, bins: int) -> float:
    confidence, named = probs.max(-1)
    return (confidence.mean() - (named == labels).float().mean()).item()


def _calibration_error_row_by_row(probs: Tensor, labels: Tensor, bins: int) -> float:
    confidence, named = probs.max(-1)
    return (confidence - (named == labels).float()).abs().mean().item()


CALIBRATION_ERROR = Exercise(
    id="07.calibration_error",
    title="Is 80% right in 80% of cases?",
    difficulty=2,
    minutes=8,
    examples=[
        (torch.tensor([[0.9, 0.1], [0.95, 0.05], [0.3, 0.7], [0.65, 0.35]]), torch.tensor([0, 1, 1, 1]), 10),
        (torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]), 5),
    ],
    random_inputs=_random_probs,
    reference=_calibration_error,
    misconceptions=[
        Misconception(
            "confidence-of-the-last-class",
            lambda probs, labels, bins: _error(probs[:, -1], probs.argmax(-1) == labels, bins),
            "You use the probability of the last class. A model that gives the first one 90% is 90% sure, not 10%.",
            "section 5",
        ),
        Misconception(
            "unweighted",
            _calibration_error_unweighted,
            "Every bin counts the same for you. A bin with 1 row of 1,000 has a weight of one in a thousand.",
            "section 5",
        ),
        Misconception(
            "signed",
            _calibration_error_signed,
            "Yours is mean confidence minus accuracy: one bin that is 10 points too sure and one that is 10 too modest "
            "give 0. Take the absolute value in each bin.",
            "section 5",
        ),
        Misconception(
            "row-by-row",
            _calibration_error_row_by_row,
            "You take the difference row by row. A model that says 70% and is right in 7 of 10 cases is calibrated; "
            "you give it 0.42.",
            "section 5",
        ),
    ],
)


EXERCISES = [GAP_CLOSED, INTERVAL, CALIBRATION_ERROR]
