"""The exercises of lesson 00: what a soft label is, and the whole loss for one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises.exercise import Edge, Exercise, Inputs, Misconception

# ---------------------------------------------------------------------------------------------------------------------
# 00.soft_label

Votes = Sequence[int]
"""How many raters said -4, -3, ... 4."""


def _random_votes(generator: Generator) -> Inputs:
    return (torch.randint(1, 8, (9,), generator=generator).tolist(),)


def _soft_label(votes: Votes) -> float:
    return (sum(votes[5:]) + votes[4] / 2) / sum(votes)


def _mean_rating(votes: Votes) -> float:
    return sum(step * count for step, count in zip(range(-4, 5), votes, strict=True)) / sum(votes)


SOFT_LABEL = Exercise(
    id="00.soft_label",
    title="From votes to a soft label",
    difficulty=1,
    minutes=4,
    examples=[([0, 0, 0, 0, 1, 1, 0, 0, 0],), ([0, 0, 0, 1, 2, 3, 4, 0, 0],), ([5, 0, 0, 0, 1, 0, 0, 4, 0],)],
    random_inputs=_random_votes,
    reference=_soft_label,
    edges=[
        Edge("where all are neutral", lambda votes: ([0, 0, 0, 0, votes[4], 0, 0, 0, 0],)),
        Edge("where nobody is neutral", lambda votes: ([*votes[:4], 0, *votes[5:]],)),
    ],
    misconceptions=[
        Misconception(
            "hard-label",
            lambda votes: float(_mean_rating(votes) > 0),
            "Yours is always 0 or 1: that is the label. Of our first two raters one is positive and one is neutral; "
            "their soft label lies in between.",
            "section 2",
        ),
        Misconception(
            "mean-rating",
            lambda votes: (_mean_rating(votes) + 4) / 8,
            "You bring the mean rating to a scale from 0 to 1, so that a vote of +4 counts four times as much as one "
            "of +1. A share counts heads: each rater once.",
            "section 2",
        ),
        Misconception(
            "neutral-left-out",
            lambda votes: sum(votes[5:]) / (sum(votes) - votes[4]),
            "You leave the neutral raters out, below the line as well. One positive and one neutral vote then make 1; "
            "half of the neutral one belongs to the other side, so it is 0.75.",
            "section 2",
        ),
        Misconception(
            "neutral-is-negative",
            lambda votes: sum(votes[5:]) / sum(votes),
            "Your neutral raters are all on the negative side. Half of them is positive.",
            "section 2",
        ),
        Misconception(
            "neutral-is-positive",
            lambda votes: sum(votes[4:]) / sum(votes),
            "Your neutral raters are all on the positive side. Only half of them is: the place in the middle, with "
            "index 4, needs a line of its own.",
            "section 2",
        ),
        Misconception(
            "other-side",
            lambda votes: 1 - _soft_label(votes),
            "Yours is the share of the negative side: the two add up to 1.",
            "section 2",
        ),
        Misconception(
            "counts",
            lambda votes: sum(votes[5:]) + votes[4] / 2,
            "You count raters. A share of them is the count divided by all.",
            "section 2",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 00.one_sentence

Probs = Sequence[float]


def _random_sentence(generator: Generator) -> Inputs:
    student, teacher = (2 * torch.randn(2, 3, generator=generator)).softmax(-1).tolist()
    label = int(torch.randint(3, (), generator=generator))
    alpha = 0.1 + 0.3 * torch.rand((), generator=generator).item()
    return student, teacher, label, alpha


def _hard(student: Probs, label: int) -> float:
    return 0.0 if label == IGNORED_LABEL else -math.log(student[label])


def _divergence(first: Probs, second: Probs) -> float:
    return sum(a * math.log(a / b) for a, b in zip(first, second, strict=True))


def _one_sentence(student: Probs, teacher: Probs, label: int, alpha: float) -> float:
    return alpha * _hard(student, label) + (1 - alpha) * _divergence(teacher, student)


def _student_first(student: Probs, teacher: Probs, label: int, alpha: float) -> float:
    return alpha * _hard(student, label) + (1 - alpha) * _divergence(student, teacher)


def _alpha_exchanged(student: Probs, teacher: Probs, label: int, alpha: float) -> float:
    return (1 - alpha) * _hard(student, label) + alpha * _divergence(teacher, student)


def _soft_cross_entropy(student: Probs, teacher: Probs, label: int, alpha: float) -> float:
    soft = -sum(q * math.log(p) for p, q in zip(student, teacher, strict=True))
    return alpha * _hard(student, label) + (1 - alpha) * soft


def _minus_missing(student: Probs, teacher: Probs, label: int, alpha: float) -> float:
    return -alpha * _hard(student, label) + (1 - alpha) * _divergence(teacher, student)


def _one_voice(student: Probs, teacher: Probs, label: int, alpha: float) -> float:
    return _divergence(teacher, student) if label == IGNORED_LABEL else _hard(student, label)


def _teacher_is_louder(student: Probs, teacher: Probs, label: int, alpha: float) -> float:
    return _one_sentence(student, teacher, label, 0.0 if label == IGNORED_LABEL else alpha)


ONE_SENTENCE = Exercise(
    id="00.one_sentence",
    title="The whole loss, for one sentence",
    difficulty=2,
    minutes=8,
    examples=[
        ([0.5, 0.5], [0.2, 0.8], 1, 0.2),
        ([0.9, 0.1], [0.2, 0.8], IGNORED_LABEL, 0.2),
        ([0.3, 0.7], [0.3, 0.7], 0, 0.9),
    ],
    random_inputs=_random_sentence,
    reference=_one_sentence,
    edges=[
        Edge("for a probability of 10⁻⁹ at the label", lambda p, q, y, alpha: ([1e-9, 1.0], [0.9999, 1e-4], 0, 0.9)),
        Edge("for a probability of 10⁻⁹", lambda p, q, y, alpha: ([1e-9, 1.0], [0.9999, 1e-4], IGNORED_LABEL, 0.1)),
        Edge("at alpha = 0", lambda p, q, y, alpha: (p, q, y, 0.0)),
        Edge("at alpha = 1, without a label", lambda p, q, y, alpha: (p, q, IGNORED_LABEL, 1.0)),
        Edge("for a single class", lambda p, q, y, alpha: ([1.0], [1.0], 0, alpha)),
    ],
    misconceptions=[
        Misconception(
            "alpha-exchanged",
            _alpha_exchanged,
            "Your alpha weights the teacher. Here it weights the label, so at alpha = 0.9 the teacher has a tenth of "
            "the say. (Other libraries mean it the other way round: lesson 04 has a dictionary.)",
            "section 4",
        ),
        Misconception(
            "student-first",
            _student_first,
            "Your divergence is KL(p ‖ q): each logarithm is weighted by the student's probability. Who stands first "
            "gives the weights, and that is the teacher. Lesson 01 shows what the other one does to a student.",
            "section 4",
        ),
        Misconception(
            "cross-entropy-instead",
            _soft_cross_entropy,
            "Your soft term is −Σ q log p. It pulls as ours does, but it is not 0 where student and teacher agree, as "
            "in our third example: the teacher's own log q is missing.",
            "section 4",
        ),
        Misconception(
            "minus-missing",
            _minus_missing,
            "Your hard term is log p of y, without the minus. A loss is to fall when the student gets better; yours "
            "rises.",
            "section 4",
        ),
        Misconception(
            "one-voice",
            _one_voice,
            "You listen to the label where there is one, and to the teacher elsewhere. The loss mixes the two: the "
            "teacher is heard on every sentence.",
            "section 4",
        ),
        Misconception(
            "louder-without-a-label",
            _teacher_is_louder,
            "Where there is no label you give the teacher the whole weight, 1 instead of 1 − alpha. Only the label's "
            "term is left out; the other one stays as it is.",
            "section 4",
        ),
    ],
)


EXERCISES = [SOFT_LABEL, ONE_SENTENCE]
