"""The exercises of lesson 01: forward KL, its gradient without autograd, and a pair that tells it from its likes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from kdcourse.course.exercises.edges import LOGITS, THREE_DIMENSIONS, of_log_probs
from kdcourse.course.exercises.exercise import Edge, Exercise, Inputs, Misconception
from kdcourse.course.exercises.kinds.judged import Suspect
from kdcourse.course.exercises.kinds.witnesses import FindTheWitness
from kdcourse.course.exercises.logits import AUTOGRAD, float64, kl_terms, one_hot
from kdcourse.divergence import forward_kl, reverse_kl

STUDENT = float64([0.7, 0.2, 0.1]).log()
TEACHER = float64([0.1, 0.3, 0.6]).log()
"""The pair of the lesson: forward KL 1.0021, reverse KL 1.1019."""


def _random_logits(generator: Generator) -> Inputs:
    student, teacher = 2 * torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    return student, teacher


def _random_log_probs(generator: Generator) -> Inputs:
    student, teacher = _random_logits(generator)
    return student.log_softmax(-1), teacher.log_softmax(-1)


# ---------------------------------------------------------------------------------------------------------------------
# 01.forward_kl


def _certain_teacher(student: Tensor, teacher: Tensor) -> Inputs:
    return student, one_hot(teacher.argmax(-1), teacher).log()


FORWARD_KL = Exercise(
    id="01.forward_kl",
    title="KL from log-probabilities",
    difficulty=2,
    minutes=7,
    examples=[
        (STUDENT, TEACHER),
        (float64([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]]).log(), float64([[0.1, 0.3, 0.6], [0.3, 0.3, 0.4]]).log()),
        (STUDENT, float64([0.5, 0.5, 0.0]).log()),
    ],
    random_inputs=_random_log_probs,
    reference=forward_kl,
    gradient=True,
    from_logits=lambda log_probs: log_probs.log_softmax(-1),
    edges=[
        *map(of_log_probs, LOGITS),
        THREE_DIMENSIONS,
        Edge("where each teacher rules out all classes but one", _certain_teacher),
    ],
    misconceptions=[
        Misconception(
            "turned-round",
            reverse_kl,
            "Yours is 1.1019 for the student (.7, .2, .1) and the teacher (.1, .3, .6), where ours is 1.0021: that is "
            "KL(student ‖ teacher). The weights are the student's, and they should be the teacher's.",
            "section 4",
        ),
        Misconception(
            "zero-is-nan",
            lambda student, teacher: (teacher.exp() * (teacher - student)).sum(-1),
            "Yours is NaN for the teacher (.5, .5, 0), where ours is 0.2899: 0 · (−inf) is NaN. Everywhere else it is "
            "right.",
            "section 1, Break it",
        ),
        Misconception(
            "cross-entropy",
            lambda student, teacher: -(teacher.exp() * student).sum(-1),
            "Yours is 1.9000 where ours is 1.0021, too large by the teacher's entropy, 0.8979; its gradient is right. "
            "That is the cross-entropy.",
            "section 2",
        ),
        Misconception(
            "clamped-terms",
            lambda student, teacher: kl_terms(student, teacher.exp()).clamp(min=0).sum(-1),
            "Yours is 1.1967 where ours is 1.0021: a negative term was cut to 0. Single terms may be negative, the sum "
            "cannot.",
            "section 3",
        ),
        Misconception(
            "mean-over-classes",
            lambda student, teacher: kl_terms(student, teacher.exp()).mean(-1),
            "Yours is a third of ours for 3 classes and a fifth for 5: the terms are added over the classes, not "
            "averaged.",
            "section 3",
        ),
        Misconception(
            "rows-together",
            lambda student, teacher: kl_terms(student, teacher.exp()).sum(),
            "Yours is one number for two rows, 1.0832 instead of (1.0021, 0.0811). Add over the last dimension only.",
            "section 3",
        ),
        Misconception(
            "sign",
            lambda student, teacher: -kl_terms(student, teacher.exp()).sum(-1),
            "Yours is −1.0021 where ours is 1.0021. A divergence below 0 is always a mistake: here it is log p − log q "
            "instead of log q − log p.",
            "section 3",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 01.gradient


def _gradient(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    return student_logits.softmax(-1) - teacher_logits.softmax(-1)


def _gradient_reverse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    student, teacher = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return student.exp() * (student - teacher - reverse_kl(student, teacher)[..., None])


GRADIENT = Exercise(
    id="01.gradient",
    title="The gradient without autograd",
    difficulty=2,
    minutes=7,
    examples=[(STUDENT, TEACHER), (float64([0.0, 0.0]), float64([2.0, 0.0]))],
    random_inputs=_random_logits,
    reference=_gradient,
    edges=[*LOGITS, THREE_DIMENSIONS],
    excludes=AUTOGRAD,
    misconceptions=[
        Misconception(
            "uphill",
            lambda student, teacher: -_gradient(student, teacher),
            "Yours is ours times −1: (−.6, .1, .5) instead of (.6, −.1, −.5). An optimizer subtracts the gradient, so "
            "yours would drive the student away from its teacher.",
            "section 6",
        ),
        Misconception(
            "by-log-probs",
            lambda student, teacher: -teacher.softmax(-1),
            "Each row of yours adds up to −1, of ours to 0: that is the derivative by the log-probabilities, −q. The "
            "logits reach them through the log-softmax, which adds p.",
            "section 6",
        ),
        Misconception(
            "hard-target",
            lambda student, teacher: student.softmax(-1) - one_hot(teacher.argmax(-1), teacher),
            "Yours is (.7, .2, −.9) where ours is (.6, −.1, −.5): only the teacher's first choice is left of it, as if "
            "it were a label.",
            "section 6",
        ),
        Misconception(
            "reverse",
            _gradient_reverse,
            "Yours is (.5908, −.3015, −.2894) where ours is (.6, −.1, −.5): that is the gradient of reverse KL.",
            "section 6",
        ),
        Misconception(
            "divided-by-rows",
            lambda student, teacher: _gradient(student, teacher) / student.shape[0],
            "Yours is ours divided by the size of the first dimension, as reduction='batchmean' does it: a third for 3 "
            "rows. Asked for is the sum over rows.",
            "section 6",
        ),
        Misconception(
            "logit-difference",
            lambda student, teacher: student - teacher,
            "For the logits (0, 0) and (2, 0) yours is (−2, 0) and ours (−.38, .38): the difference is taken between "
            "probabilities, not between logits.",
            "section 6",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 01.witness


def _probabilities(values: Sequence[float]) -> Tensor:
    """A list of numbers, or what is as good as one."""
    return torch.as_tensor(values, dtype=torch.float64)


def _of_pairs(divergence: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Sequence[float], Sequence[float]], float]:
    """A divergence of log-probabilities, student first, as a function of two lists of probabilities."""
    return lambda student, teacher: divergence(_probabilities(student).log(), _probabilities(teacher).log()).item()


def _by_categorical(student: Sequence[float], teacher: Sequence[float]) -> float:
    p, q = (torch.distributions.Categorical(_probabilities(each)) for each in (student, teacher))
    return torch.distributions.kl_divergence(q, p).item()


def _entropy(log_probs: Tensor) -> Tensor:
    return torch.special.entr(log_probs.exp()).sum(-1)


def _cross_entropy_minus_entropy(student: Sequence[float], teacher: Sequence[float]) -> float:
    p, q = _probabilities(student), _probabilities(teacher)
    return (torch.xlogy(q, q) - torch.xlogy(q, p)).sum().item()


def _half_squares(student: Sequence[float], teacher: Sequence[float]) -> float:
    """What both directions become close to the teacher; classes that the teacher rules out are left aside."""
    p, q = _probabilities(student), _probabilities(teacher)
    return 0.5 * ((p - q).square() / q)[q > 0].sum().item()


def _rule_of_pairs(student: Sequence[float], teacher: Sequence[float]) -> str:
    p, q = _probabilities(student), _probabilities(teacher)
    if p.ndim != 1 or p.shape != q.shape or len(p) < 2:  # noqa: PLR2004  (one class leaves no choice)
        return "two lists of one length are asked for, with at least 2 classes."
    if bool((p < 0).any() or (q < 0).any()):
        return "a probability is never below 0."
    if not torch.isclose(p.sum(), q.sum()) or not torch.isclose(q.sum(), torch.ones_like(q.sum())):
        return f"probabilities add up to 1; yours add up to {p.sum():.4g} and {q.sum():.4g}."
    if bool(((p == 0) & (q > 0)).any()):
        return "the student rules out what the teacher says, and then KL is infinite."
    return ""


WITNESS = FindTheWitness(
    id="01.witness",
    title="One pair that tells nine formulas apart",
    difficulty=2,
    minutes=4,
    right=[
        Suspect("the package's forward KL", _of_pairs(forward_kl)),
        Suspect("torch.distributions", _by_categorical),
        Suspect("cross-entropy minus entropy", _cross_entropy_minus_entropy),
    ],
    suspects=[
        Suspect("the models exchanged", _of_pairs(reverse_kl)),
        Suspect("the mean of both directions", _of_pairs(lambda s, t: (forward_kl(s, t) + reverse_kl(s, t)) / 2)),
        Suspect("cross-entropy, the entropy left in", _of_pairs(lambda s, t: forward_kl(s, t) + _entropy(t))),
        Suspect("in bits", _of_pairs(lambda s, t: forward_kl(s, t) / math.log(2))),
        Suspect("the mean over the classes", _of_pairs(lambda s, t: kl_terms(s, t.exp()).mean())),
        Suspect("negative terms cut off", _of_pairs(lambda s, t: kl_terms(s, t.exp()).clamp(min=0).sum())),
        Suspect("terms without their sign", _of_pairs(lambda s, t: kl_terms(s, t.exp()).abs().sum())),
        Suspect("half the squared difference over q", _half_squares),
        Suspect("NaN where the teacher says 0", _of_pairs(lambda s, t: (t.exp() * (t - s)).sum())),
    ],
    illegal=_rule_of_pairs,
    reference=lambda: ([0.6, 0.2, 0.1, 0.1], [0.1, 0.4, 0.5, 0.0]),
    misconceptions=[
        Misconception(
            "equal",
            lambda: ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]),
            "For two equal distributions nearly every formula says 0. It is the test that everybody writes first, and "
            "it finds only what forgets to subtract.",
            "section 3",
        ),
        Misconception(
            "close",
            lambda: ([0.205, 0.295, 0.5, 0.0], [0.2, 0.3, 0.5, 0.0]),
            "On your pair both directions agree to 3 digits, as they do near the teacher, where each is half the "
            "squared difference over q.",
            "section 4",
        ),
        Misconception(
            "mirrored",
            lambda: ([0.3, 0.7], [0.7, 0.3]),
            "On your pair both directions are the same number, as on any two distributions that are each other's "
            "mirror image.",
            "section 4",
        ),
        Misconception(
            "sure-teacher",
            lambda: ([0.6, 0.3, 0.1], [0.0, 0.0, 1.0]),
            "Your teacher is certain. Its entropy is 0, so that cross-entropy and KL are one number, and with a single "
            "term there is no sign to lose.",
            "section 2",
        ),
        Misconception(
            "nothing-ruled-out",
            lambda: ([0.7, 0.2, 0.1], [0.1, 0.3, 0.6]),
            "Your pair tells 8 of 9 apart, as that of the lesson does. Your teacher rules nothing out, and so nobody "
            "had to compute 0 · log 0.",
            "section 1, Break it",
        ),
        Misconception(
            "no-negative-term",
            lambda: ([0.3, 0.2, 0.5], [0.55, 0.45, 0.0]),
            "Every term of your sum is positive: the student says too much only where the teacher says nothing. Cut "
            "off or without a sign, such a sum stays the same.",
            "section 3",
        ),
    ],
)  # fmt: skip


EXERCISES = [FORWARD_KL, GRADIENT, WITNESS]
