"""The exercises of lesson 01: entropy, both directions of KL, its gradient, and Jensen-Shannon."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception
from kdcourse.course.exercises.logits import float64, kl_terms, one_hot
from kdcourse.divergence import forward_kl, jensen_shannon, reverse_kl

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
# 01.entropy


def _random_probs(generator: Generator) -> Inputs:
    student_log_probs, _ = _random_log_probs(generator)
    return (student_log_probs.exp(),)


def _entropy(probs: Tensor) -> Tensor:
    return torch.special.entr(probs).sum(-1)


ENTROPY = Exercise(
    id="01.entropy",
    title="Entropy",
    difficulty=1,
    minutes=5,
    examples=[(float64([0.5, 0.5]),), (float64([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]),)],
    random_inputs=_random_probs,
    reference=_entropy,
    misconceptions=[
        Misconception(
            "zero-is-nan",
            lambda probs: -(probs * probs.log()).sum(-1),
            "Yours is NaN for (1, 0, 0), where everybody agrees and the entropy is 0: in floating point 0 · log 0 is "
            "0 · (−inf) = NaN.",
            "section 1, Break it",
        ),
        Misconception(
            "bits",
            lambda probs: _entropy(probs) / math.log(2),
            "Yours is 1.443 times ours everywhere: you took the logarithm to base 2, and the course counts in nats.",
            "section 1",
        ),
        Misconception(
            "bits-and-nan",
            lambda probs: -(probs * probs.log2()).sum(-1),
            "Two mistakes. Yours is NaN for (1, 0, 0), since 0 · log 0 is NaN in floating point; elsewhere it is 1.443 "
            "times ours, since you took the logarithm to base 2.",
            "section 1",
        ),
        Misconception(
            "sign-and-nan",
            lambda probs: (probs * probs.log()).sum(-1),
            "Two mistakes. Yours is NaN for (1, 0, 0), since 0 · log 0 is NaN in floating point; elsewhere it is ours "
            "times −1, since surprise is −log p.",
            "section 1",
        ),
        Misconception(
            "sign",
            lambda probs: -_entropy(probs),
            "Yours is −0.693 for (.5, .5): logarithms of probabilities are negative, and surprise is −log p.",
            "section 1",
        ),
        Misconception(
            "mean-over-classes",
            lambda probs: torch.special.entr(probs).mean(-1),
            "Yours is half of ours for 2 classes and a third for 3: the probabilities are the weights already, so the "
            "terms are added, not averaged.",
            "section 1",
        ),
        Misconception(
            "rows-together",
            lambda probs: torch.special.entr(probs).sum(),
            "Yours is one number for two rows: 1.0297 instead of (0, 1.0297). Add over the last dimension only.",
            "section 1",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 01.forward_kl

FORWARD_KL = Exercise(
    id="01.forward_kl",
    title="Forward KL",
    difficulty=2,
    minutes=8,
    examples=[
        (STUDENT, TEACHER),
        (float64([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]]).log(), float64([[0.1, 0.3, 0.6], [0.3, 0.3, 0.4]]).log()),
        (STUDENT, float64([0.5, 0.5, 0.0]).log()),
    ],
    random_inputs=_random_log_probs,
    reference=forward_kl,
    gradient=True,
    misconceptions=[
        Misconception(
            "turned-round",
            reverse_kl,
            "Yours is 1.1019 for the student (.7, .2, .1) and the teacher (.1, .3, .6), where ours is 1.0021: that is "
            "KL(student ‖ teacher). The weights are the student's, and they should be the teacher's.",
            "section 2, and section 4 on the two directions",
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
# 01.reverse_kl


def _reverse_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    return kl_terms(teacher_logits.log_softmax(-1), student_logits.log_softmax(-1), log_target=True).sum(-1)


REVERSE_KL = Exercise(
    id="01.reverse_kl",
    title="Reverse KL with F.kl_div",
    difficulty=2,
    minutes=8,
    examples=[
        (STUDENT[None], TEACHER[None]),
        (float64([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]), float64([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0]])),
        (float64([[0.0, 1.0, -1000.0]]), float64([[1.0, 0.0, 0.0]])),
    ],
    random_inputs=_random_logits,
    reference=_reverse_kl,
    gradient=True,
    misconceptions=[
        Misconception(
            "still-forward",
            lambda student, teacher: kl_terms(student.log_softmax(-1), teacher.softmax(-1)).sum(-1),
            "Yours is 1.0021 for the student (.7, .2, .1) and the teacher (.1, .3, .6), and reverse KL is 1.1019: the "
            "teacher is still the target.",
            "section 4",
        ),
        Misconception(
            "student-detached",
            lambda student, teacher: _reverse_kl(student.detach(), teacher),
            "Your value is right, 1.1019, and there is no gradient at all: the student is the target here, and it was "
            "detached. A training step would stop with 'does not require grad', or learn from the other terms alone.",
            "section 7",
        ),
        Misconception(
            "log-target-forgotten",
            lambda student, teacher: kl_terms(teacher.log_softmax(-1), student.log_softmax(-1)).sum(-1),
            "Yours is NaN: without log_target=True the target's log-probabilities are taken for probabilities, and the "
            "logarithm of a negative number is NaN.",
            "section 7",
        ),
        Misconception(
            "probability-target",
            lambda student, teacher: kl_terms(teacher.log_softmax(-1), student.softmax(-1)).sum(-1),
            "Right, except where the student gives a class probability 0 (a logit of −1000): there your value is still "
            "finite, 0.7003, and the gradient is NaN. Stay in log space.",
            "section 7",
        ),
        Misconception(
            "mean-over-classes",
            lambda student, teacher: _reverse_kl(student, teacher) / student.shape[-1],
            "Yours is a third of ours for 3 classes and a fifth for 5: the terms are added over the classes, not "
            "averaged.",
            "section 3",
        ),
        Misconception(
            "rows-together",
            lambda student, teacher: _reverse_kl(student, teacher).mean(),
            "Yours is one number for two rows, 0.8062 instead of (0.6290, 0.9834): the mean over rows, as "
            "reduction='batchmean' gives it. Asked for is one number per row.",
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
    minutes=8,
    examples=[(STUDENT, TEACHER), (float64([0.0, 0.0]), float64([2.0, 0.0]))],
    random_inputs=_random_logits,
    reference=_gradient,
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
# 01.jensen_shannon


def _random_at_a_beta(generator: Generator) -> Inputs:
    return *_random_log_probs(generator), 0.3


def _log_mixture(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    return (beta * teacher.exp() + (1 - beta) * student.exp()).log()


def _jensen_shannon_halves_outside(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    mixture = _log_mixture(student, teacher, beta)
    return (forward_kl(mixture, teacher) + forward_kl(mixture, student)) / 2


def _jensen_shannon_averaged_logs(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    mixture = beta * teacher + (1 - beta) * student
    return beta * forward_kl(mixture, teacher) + (1 - beta) * forward_kl(mixture, student)


def _jensen_shannon_mixture_first(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    mixture = _log_mixture(student, teacher, beta)
    return beta * forward_kl(teacher, mixture) + (1 - beta) * forward_kl(student, mixture)


def _jensen_shannon_blend_of_kls(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    return beta * reverse_kl(student, teacher) + (1 - beta) * forward_kl(student, teacher)


JENSEN_SHANNON = Exercise(
    id="01.jensen_shannon",
    title="Generalised Jensen-Shannon",
    difficulty=3,
    minutes=12,
    examples=[
        (STUDENT, TEACHER, 0.5),
        (STUDENT, TEACHER, 0.9),
        (STUDENT, TEACHER, 0.1),
        (float64([0.5, 0.5, 0.0]).log(), TEACHER, 0.5),
    ],
    random_inputs=_random_at_a_beta,
    reference=jensen_shannon,
    misconceptions=[
        Misconception(
            "weights-swapped",
            lambda student, teacher, beta: jensen_shannon(student, teacher, 1 - beta),
            "Right at beta = 0.5; at 0.9 yours is 0.0865 and ours 0.0927, and at 0.1 the other way round: beta belongs "
            "to the teacher.",
            "section 8",
        ),
        Misconception(
            "always-half",
            lambda student, teacher, beta: jensen_shannon(student, teacher, 0.5),
            "Yours is 0.2306 at every beta: the weights are halves, and beta is not used.",
            "section 8",
        ),
        Misconception(
            "halves-outside",
            _jensen_shannon_halves_outside,
            "Right at beta = 0.5, but 0.4019 instead of 0.0927 at 0.9: beta is in the mixture, and the two divergences "
            "are still weighted by halves.",
            "section 8",
        ),
        Misconception(
            "averaged-logs",
            _jensen_shannon_averaged_logs,
            "Yours is 0.5260 instead of 0.2306 at beta = 0.5: you averaged log-probabilities. That mixture does not "
            "add up to 1.",
            "section 8",
        ),
        Misconception(
            "mixture-first",
            _jensen_shannon_mixture_first,
            "Yours is 0.2953 instead of 0.2306 at beta = 0.5, and infinite where a model says 0: the divergences start "
            "at the mixture, KL(m ‖ teacher), and should end there.",
            "section 8",
        ),
        Misconception(
            "blend-of-kls",
            _jensen_shannon_blend_of_kls,
            "Yours is 1.0520 instead of 0.2306 at beta = 0.5: a weighted mean of forward and reverse KL, without a "
            "mixture. It is infinite as soon as one of them is.",
            "section 8",
        ),
    ],
)


EXERCISES = [ENTROPY, FORWARD_KL, REVERSE_KL, GRADIENT, JENSEN_SHANNON]
