"""Lab 07: how much of a gap is closed, by how much that may be luck, and how sure a model may be."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, pstdev, stdev

import scipy.stats
import torch
from torch import Tensor

from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception

Scores = Sequence[float]


def random_scores(generator: torch.Generator) -> Inputs:
    """Accuracies of two arms with the same seeds, which differ from one another more than the arms do."""
    seeds = 0.75 + 0.02 * torch.randn(5, generator=generator)
    gains = 0.03 + 0.005 * torch.randn(5, generator=generator)
    return seeds.tolist(), (seeds + gains).tolist()


LABELS, DISTILLED = [0.76, 0.75, 0.77], [0.80, 0.80, 0.80]

# 07.gap_closed


def gap_closed(labels: Scores, distilled: Scores, teacher: float) -> float:
    return (mean(distilled) - mean(labels)) / (teacher - mean(labels))


def share_of_the_teacher(labels: Scores, distilled: Scores, teacher: float) -> float:
    return mean(distilled) / teacher


def relative_gain(labels: Scores, distilled: Scores, teacher: float) -> float:
    return (mean(distilled) - mean(labels)) / mean(labels)


def share_of_what_is_left(labels: Scores, distilled: Scores, teacher: float) -> float:
    return (mean(distilled) - mean(labels)) / (teacher - mean(distilled))


def gap_of_the_best_seeds(labels: Scores, distilled: Scores, teacher: float) -> float:
    return (max(distilled) - max(labels)) / (teacher - max(labels))


def gap_of_points(labels: Scores, distilled: Scores, teacher: float) -> float:
    return mean(distilled) - mean(labels)


GAP_CLOSED = Exercise(
    id="07.gap_closed",
    title="How much of the gap is closed?",
    reference=gap_closed,
    examples=[(LABELS, DISTILLED, 0.86), ([0.5, 0.7], [0.6, 0.7], 0.9), ([0.8, 0.7], [0.7, 0.7], 0.8)],
    random_inputs=lambda generator: (*random_scores(generator), 0.87),
    difficulty=1,
    minutes=4,
    hints=[
        "The gap is what separates the teacher from a student that has labels only. It is 1, or 100%.",
        "Take the means over seeds first; then divide the gain by the gap.",
    ],
    misconceptions=[
        Misconception(
            "share-of-the-teacher",
            share_of_the_teacher,
            "You divide by the teacher's accuracy: 0.80 of 0.86 is 93%, and a student that never met the teacher would "
            "already have 88%.",
            "section 3",
        ),
        Misconception(
            "relative-gain",
            relative_gain,
            "You divide by the accuracy of labels only: 0.04 of 0.76 is 5%, whether the teacher is at 80% or at 100%.",
            "section 3",
        ),
        Misconception(
            "share-of-what-is-left",
            share_of_what_is_left,
            "You divide by the distance that is left: at half of the way you report 100%.",
            "section 3",
        ),
        Misconception(
            "best-seeds",
            gap_of_the_best_seeds,
            "You compare the best seed of each arm. The best of many is luck; take the means.",
            "section 3",
        ),
        Misconception(
            "points",
            gap_of_points,
            "You return points of accuracy. They are the numerator; the denominator is the teacher minus labels only.",
            "section 3",
        ),
    ],
)

# 07.interval


def half_width(spread: float, count: int, degrees: float) -> float:
    return float(scipy.stats.t.ppf(0.975, degrees)) * spread / count**0.5


def around(center: float, width: float) -> tuple[float, float]:
    return center - width, center + width


def differences_of(first: Scores, second: Scores) -> list[float]:
    return [after - before for before, after in zip(first, second, strict=True)]


def interval(first: Scores, second: Scores) -> tuple[float, float]:
    differences = differences_of(first, second)
    return around(mean(differences), half_width(stdev(differences), len(differences), len(differences) - 1))


def interval_unpaired(first: Scores, second: Scores) -> tuple[float, float]:
    spread = (stdev(first) ** 2 + stdev(second) ** 2) ** 0.5
    return around(mean(second) - mean(first), half_width(spread, len(first), 2 * len(first) - 2))


def interval_normal(first: Scores, second: Scores) -> tuple[float, float]:
    differences = differences_of(first, second)
    return around(mean(differences), 1.96 * stdev(differences) / len(differences) ** 0.5)


def interval_of_one_seed(first: Scores, second: Scores) -> tuple[float, float]:
    differences = differences_of(first, second)
    return around(mean(differences), half_width(stdev(differences), 1, len(differences) - 1))


def interval_population(first: Scores, second: Scores) -> tuple[float, float]:
    differences = differences_of(first, second)
    return around(mean(differences), half_width(pstdev(differences), len(differences), len(differences) - 1))


def interval_reversed(first: Scores, second: Scores) -> tuple[float, float]:
    return interval(second, first)


INTERVAL = Exercise(
    id="07.interval",
    title="The interval of a paired comparison",
    reference=interval,
    examples=[(LABELS, DISTILLED), ([0.70, 0.74, 0.72, 0.78], [0.71, 0.75, 0.74, 0.79])],
    random_inputs=random_scores,
    difficulty=2,
    minutes=8,
    hints=[
        "Subtract first, seed by seed; then forget that there were two series.",
        "mean ± t · s / √n, with s the standard deviation that divides by n − 1.",
        "scipy.stats.t.ppf(0.975, n - 1) is the t of a 95% interval.",
    ],
    misconceptions=[
        Misconception(
            "unpaired",
            interval_unpaired,
            "You treat the arms as unrelated. A seed that is lucky is lucky in both: on our second example the paired "
            "interval is 7 times as narrow.",
            "section 3",
        ),
        Misconception(
            "normal",
            interval_normal,
            "You take 1.96 for t. That is right for many seeds; for three it is 4.30, for five 2.78.",
            "section 3",
        ),
        Misconception(
            "spread-of-one",
            interval_of_one_seed,
            "Your interval is √n times too wide, 1.7 for three seeds: you forgot to divide the spread by √n.",
            "section 3",
        ),
        Misconception(
            "population",
            interval_population,
            "Your standard deviation divides by n. For three seeds that makes the interval 18% too narrow.",
            "section 3",
        ),
        Misconception(
            "reversed",
            interval_reversed,
            "Yours has the opposite sign: it is first minus second. A gain of the second series is above 0.",
            "section 3",
        ),
    ],
    tolerance=1e-5,
)

# 07.calibration_error


def binned(confidence: Tensor, right: Tensor, bins: int) -> list[tuple[Tensor, Tensor]]:
    """Confidence and correctness of each bin that is not empty."""
    numbers = (confidence * bins).ceil().clamp(1, bins)
    inside = [numbers == number for number in range(1, bins + 1)]
    return [(confidence[each], right[each].float()) for each in inside if each.any()]


def calibration_error(probs: Tensor, labels: Tensor, bins: int) -> float:
    confidence, named = probs.max(dim=1)
    parts = binned(confidence, named == labels, bins)
    return sum(len(sure) * (sure.mean() - right.mean()).abs().item() for sure, right in parts) / len(labels)


def calibration_of_the_last_class(probs: Tensor, labels: Tensor, bins: int) -> float:
    confidence = probs[:, -1]
    parts = binned(confidence, probs.argmax(dim=1) == labels, bins)
    return sum(len(sure) * (sure.mean() - right.mean()).abs().item() for sure, right in parts) / len(labels)


def calibration_unweighted(probs: Tensor, labels: Tensor, bins: int) -> float:
    confidence, named = probs.max(dim=1)
    parts = binned(confidence, named == labels, bins)
    return sum((sure.mean() - right.mean()).abs().item() for sure, right in parts) / len(parts)


def calibration_signed(probs: Tensor, labels: Tensor, bins: int) -> float:
    confidence, named = probs.max(dim=1)
    return (confidence.mean() - (named == labels).float().mean()).item()


def calibration_row_by_row(probs: Tensor, labels: Tensor, bins: int) -> float:
    confidence, named = probs.max(dim=1)
    return (confidence - (named == labels).float()).abs().mean().item()


def random_probabilities(generator: torch.Generator) -> Inputs:
    probs = (3 * torch.randn(60, 3, generator=generator)).softmax(dim=1)
    return probs, torch.randint(3, (60,), generator=generator), 10


CALIBRATION_ERROR = Exercise(
    id="07.calibration_error",
    title="Is 80% right in 80% of cases?",
    reference=calibration_error,
    examples=[
        (torch.tensor([[0.9, 0.1], [0.95, 0.05], [0.3, 0.7], [0.65, 0.35]]), torch.tensor([0, 1, 1, 1]), 10),
        (torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]), 5),
    ],
    random_inputs=random_probabilities,
    difficulty=2,
    minutes=8,
    hints=[
        "Confidence is the probability of the class that the model names, whichever that is.",
        "Bin b of n holds the confidences above (b − 1)/n and up to b/n: torch.ceil gives the number.",
        "In each bin: |mean confidence − share that is right|. Average the bins by how many rows they hold.",
    ],
    misconceptions=[
        Misconception(
            "confidence-of-the-last-class",
            calibration_of_the_last_class,
            "You use the probability of the last class. A model that gives the first one 90% is 90% sure, not 10%.",
            "section 5",
        ),
        Misconception(
            "unweighted",
            calibration_unweighted,
            "Every bin counts the same for you. A bin with 1 row of 1,000 has a weight of one in a thousand.",
            "section 5",
        ),
        Misconception(
            "signed",
            calibration_signed,
            "Yours is mean confidence minus accuracy: one bin that is 10 points too sure and one that is 10 too modest "
            "give 0. Take the absolute value in each bin.",
            "section 5",
        ),
        Misconception(
            "row-by-row",
            calibration_row_by_row,
            "You take the difference row by row. A model that says 70% and is right in 7 of 10 cases is calibrated; "
            "you give it 0.42.",
            "section 5",
        ),
    ],
)

EXERCISES = [GAP_CLOSED, INTERVAL, CALIBRATION_ERROR]
