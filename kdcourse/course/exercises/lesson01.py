"""The exercises of lesson 01: entropy, both directions of KL, its gradient, and Jensen-Shannon."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

from kdcourse.course.exercises.exercise import Exercise, Misconception
from kdcourse.divergence import forward_kl, jensen_shannon, reverse_kl


def _log_probs(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log().squeeze(0)


STUDENT = _log_probs([0.7, 0.2, 0.1])
TEACHER = _log_probs([0.1, 0.3, 0.6])
"""The pair of the lesson: forward KL 1.0021, reverse KL 1.1019."""


def _random_logits(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    return 2 * student, 2 * teacher


def _random_log_probs(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    student, teacher = _random_logits(generator)
    return student.log_softmax(dim=-1), teacher.log_softmax(dim=-1)


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(dim=-1)


def _terms(student_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    """What `forward_kl` adds up."""
    return F.kl_div(student_log_probs, teacher_log_probs.exp(), reduction="none")


ENTROPY = Exercise(
    id="01.entropy",
    title="Entropy",
    reference=_entropy,
    examples=[
        (torch.tensor([0.5, 0.5], dtype=torch.float64),),
        (torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], dtype=torch.float64),),
    ],
    random_inputs=lambda generator: (_random_log_probs(generator)[0].exp(),),
    difficulty=1,
    minutes=5,
    hints=[
        "The entropy is the average surprise: each surprise, −log p, weighted by how often it happens.",
        "A class that never happens adds nothing, but 0 · log 0 is NaN in floating point. `torch.xlogy` knows better.",
        "`-torch.xlogy(p, p).sum(dim=-1)`",
    ],
    misconceptions=[
        Misconception(
            "zero-is-nan",
            lambda p: -(p * p.log()).sum(dim=-1),
            "Yours is NaN for (1, 0, 0), where everybody agrees and the entropy is 0: in floating point 0 · log 0 is "
            "0 · (−inf) = NaN.",
            "section 1, Break it",
        ),
        Misconception(
            "bits",
            lambda p: _entropy(p) / math.log(2),
            "Yours is 1.443 times ours everywhere: you took the logarithm to base 2, and the course counts in nats.",
            "section 1",
        ),
        Misconception(
            "bits-and-nan",
            lambda p: -(p * p.log2()).sum(dim=-1),
            "Two mistakes. Yours is NaN for (1, 0, 0), since 0 · log 0 is NaN in floating point; elsewhere it is 1.443 "
            "times ours, since you took the logarithm to base 2.",
            "section 1",
        ),
        Misconception(
            "sign-and-nan",
            lambda p: (p * p.log()).sum(dim=-1),
            "Two mistakes. Yours is NaN for (1, 0, 0), since 0 · log 0 is NaN in floating point; elsewhere it is ours "
            "times −1, since surprise is −log p.",
            "section 1",
        ),
        Misconception(
            "sign",
            lambda p: -_entropy(p),
            "Yours is −0.693 for (.5, .5): logarithms of probabilities are negative, and surprise is −log p.",
            "section 1",
        ),
        Misconception(
            "mean-over-classes",
            lambda p: torch.special.entr(p).mean(dim=-1),
            "Yours is half of ours for 2 classes and a third for 3: the probabilities are the weights already, so the "
            "terms are added, not averaged.",
            "section 1",
        ),
        Misconception(
            "rows-together",
            lambda p: torch.special.entr(p).sum(),
            "Yours is one number for two rows: 1.0297 instead of (0, 1.0297). Add over the last dimension only.",
            "section 1",
        ),
    ],
)

FORWARD_KL = Exercise(
    id="01.forward_kl",
    title="Forward KL",
    reference=forward_kl,
    examples=[
        (STUDENT, TEACHER),
        (_log_probs([0.7, 0.2, 0.1], [0.2, 0.2, 0.6]), _log_probs([0.1, 0.3, 0.6], [0.3, 0.3, 0.4])),
        (STUDENT, _log_probs([0.5, 0.5, 0.0])),
    ],
    random_inputs=_random_log_probs,
    difficulty=2,
    minutes=8,
    hints=[
        "The teacher decides how often a class happens, so the teacher's probabilities are the weights.",
        "Each term is q · (log q − log p), with q the teacher; the terms are added over the last dimension.",
        "Where log q is −inf the term is 0: `masked_fill` the difference before you multiply.",
    ],
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
            lambda student, teacher: (teacher.exp() * (teacher - student)).sum(dim=-1),
            "Yours is NaN for the teacher (.5, .5, 0), where ours is 0.2899: 0 · (−inf) is NaN. Everywhere else it is "
            "right.",
            "section 1, Break it",
        ),
        Misconception(
            "cross-entropy",
            lambda student, teacher: -(teacher.exp() * student).sum(dim=-1),
            "Yours is 1.9000 where ours is 1.0021, too large by the teacher's entropy, 0.8979; its gradient is right. "
            "That is the cross-entropy.",
            "section 2",
        ),
        Misconception(
            "clamped-terms",
            lambda student, teacher: _terms(student, teacher).clamp(min=0).sum(dim=-1),
            "Yours is 1.1967 where ours is 1.0021: a negative term was cut to 0. Single terms may be negative, the sum "
            "cannot.",
            "section 3",
        ),
        Misconception(
            "mean-over-classes",
            lambda student, teacher: _terms(student, teacher).mean(dim=-1),
            "Yours is a third of ours for 3 classes and a fifth for 5: the terms are added over the classes, not "
            "averaged.",
            "section 3",
        ),
        Misconception(
            "rows-together",
            lambda student, teacher: _terms(student, teacher).sum(),
            "Yours is one number for two rows, 1.0832 instead of (1.0021, 0.0811). Add over the last dimension only.",
            "section 3",
        ),
        Misconception(
            "sign",
            lambda student, teacher: -_terms(student, teacher).sum(dim=-1),
            "Yours is −1.0021 where ours is 1.0021. A divergence below 0 is always a mistake: here it is log p − log q "
            "instead of log q − log p.",
            "section 3",
        ),
    ],
)


def _reverse_by_kl_div(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    student, teacher = student_logits.log_softmax(dim=-1), teacher_logits.log_softmax(dim=-1)
    return F.kl_div(teacher, student, reduction="none", log_target=True).sum(dim=-1)


def _still_forward(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    return F.kl_div(student_logits.log_softmax(dim=-1), teacher_logits.softmax(dim=-1), reduction="none").sum(dim=-1)


def _without_log_target(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    return F.kl_div(teacher_logits.log_softmax(dim=-1), student_logits.log_softmax(dim=-1), reduction="none").sum(
        dim=-1
    )


def _probability_target(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    return F.kl_div(teacher_logits.log_softmax(dim=-1), student_logits.softmax(dim=-1), reduction="none").sum(dim=-1)


REVERSE_KL = Exercise(
    id="01.reverse_kl",
    title="Reverse KL with F.kl_div",
    reference=_reverse_by_kl_div,
    examples=[
        (STUDENT[None], TEACHER[None]),
        (
            torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]], dtype=torch.float64),
            torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0]], dtype=torch.float64),
        ),
        (
            torch.tensor([[0.0, 1.0, -1000.0]], dtype=torch.float64),
            torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64),
        ),
    ],
    random_inputs=_random_logits,
    difficulty=2,
    minutes=8,
    hints=[
        "`F.kl_div(input, target)` is KL(target ‖ input). Which of the two models is the target now?",
        "The student is the target, and it must stay in the graph: no detach, no no_grad.",
        "Log-softmax on both sides, and `log_target=True`; `reduction='none'`, then the sum over the last dimension.",
    ],
    gradient=True,
    misconceptions=[
        Misconception(
            "still-forward",
            _still_forward,
            "Yours is 1.0021 for the student (.7, .2, .1) and the teacher (.1, .3, .6), and reverse KL is 1.1019: the "
            "teacher is still the target.",
            "section 4",
        ),
        Misconception(
            "student-detached",
            lambda student, teacher: _reverse_by_kl_div(student.detach(), teacher),
            "Your value is right, 1.1019, and there is no gradient at all: the student is the target here, and it was "
            "detached. A training step would stop with 'does not require grad', or learn from the other terms alone.",
            "section 7",
        ),
        Misconception(
            "log-target-forgotten",
            _without_log_target,
            "Yours is NaN: without log_target=True the target's log-probabilities are taken for probabilities, and the "
            "logarithm of a negative number is NaN.",
            "section 7",
        ),
        Misconception(
            "probability-target",
            _probability_target,
            "Right, except where the student gives a class probability 0 (a logit of −1000): there your value is still "
            "finite, 0.7003, and the gradient is NaN. Stay in log space.",
            "section 7",
        ),
        Misconception(
            "mean-over-classes",
            lambda student, teacher: _reverse_by_kl_div(student, teacher) / student.shape[-1],
            "Yours is a third of ours for 3 classes and a fifth for 5: the terms are added over the classes, not "
            "averaged.",
            "section 3",
        ),
        Misconception(
            "rows-together",
            lambda student, teacher: _reverse_by_kl_div(student, teacher).mean(),
            "Yours is one number for two rows, 0.8062 instead of (0.6290, 0.9834): the mean over rows, as "
            "reduction='batchmean' gives it. Asked for is one number per row.",
            "section 3",
        ),
    ],
)


def _reverse_gradient(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    student, teacher = student_logits.log_softmax(dim=-1), teacher_logits.log_softmax(dim=-1)
    return student.exp() * (student - teacher - reverse_kl(student, teacher)[..., None])


GRADIENT = Exercise(
    id="01.gradient",
    title="The gradient without autograd",
    reference=lambda student, teacher: student.softmax(dim=-1) - teacher.softmax(dim=-1),
    examples=[(STUDENT, TEACHER), (torch.zeros(2, dtype=torch.float64), torch.tensor([2.0, 0.0], dtype=torch.float64))],
    random_inputs=_random_logits,
    difficulty=2,
    minutes=8,
    hints=[
        "Only −Σ q log p depends on the student; the teacher's entropy is a constant.",
        "log p_j is s_j − log Σ exp s_k. Its derivative by s_i is 1 for i = j, minus p_i, always.",
        "Where the student says more than the teacher, the logit must fall: the gradient is positive there.",
    ],
    misconceptions=[
        Misconception(
            "uphill",
            lambda student, teacher: teacher.softmax(dim=-1) - student.softmax(dim=-1),
            "Yours is ours times −1: (−.6, .1, .5) instead of (.6, −.1, −.5). An optimizer subtracts the gradient, so "
            "yours would drive the student away from its teacher.",
            "section 6",
        ),
        Misconception(
            "by-log-probs",
            lambda student, teacher: -teacher.softmax(dim=-1),
            "Each row of yours adds up to −1, of ours to 0: that is the derivative by the log-probabilities, −q. The "
            "logits reach them through the log-softmax, which adds p.",
            "section 6",
        ),
        Misconception(
            "hard-target",
            lambda student, teacher: (
                student.softmax(dim=-1) - F.one_hot(teacher.argmax(dim=-1), teacher.shape[-1]).to(student)
            ),
            "Yours is (.7, .2, −.9) where ours is (.6, −.1, −.5): only the teacher's first choice is left of it, as if "
            "it were a label.",
            "section 6",
        ),
        Misconception(
            "reverse",
            _reverse_gradient,
            "Yours is (.5908, −.3015, −.2894) where ours is (.6, −.1, −.5): that is the gradient of reverse KL.",
            "section 6",
        ),
        Misconception(
            "divided-by-rows",
            lambda student, teacher: (student.softmax(dim=-1) - teacher.softmax(dim=-1)) / student.shape[0],
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


def _weights_only_in_mixture(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    mixture = (beta * teacher.exp() + (1 - beta) * student.exp()).log()
    return (forward_kl(mixture, teacher) + forward_kl(mixture, student)) / 2


def _averaged_logs(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    mixture = beta * teacher + (1 - beta) * student
    return beta * forward_kl(mixture, teacher) + (1 - beta) * forward_kl(mixture, student)


def _mixture_first(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    mixture = (beta * teacher.exp() + (1 - beta) * student.exp()).log()
    return beta * forward_kl(teacher, mixture) + (1 - beta) * forward_kl(student, mixture)


JENSEN_SHANNON = Exercise(
    id="01.jensen_shannon",
    title="Generalised Jensen-Shannon",
    reference=jensen_shannon,
    examples=[
        (STUDENT, TEACHER, 0.5),
        (STUDENT, TEACHER, 0.9),
        (STUDENT, TEACHER, 0.1),
        (_log_probs([0.5, 0.5, 0.0]), TEACHER, 0.5),
    ],
    random_inputs=lambda generator: (*_random_log_probs(generator), 0.3),
    difficulty=3,
    minutes=12,
    hints=[
        "First the mixture: m = beta · teacher + (1 − beta) · student, of probabilities, not of logarithms.",
        "Then two divergences from the mixture, KL(teacher ‖ m) and KL(student ‖ m), with the same two weights.",
        "You can use `forward_kl(student, teacher)` for both; remember that it weights by its second argument.",
    ],
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
            _weights_only_in_mixture,
            "Right at beta = 0.5, but 0.4019 instead of 0.0927 at 0.9: beta is in the mixture, and the two divergences "
            "are still weighted by halves.",
            "section 8",
        ),
        Misconception(
            "averaged-logs",
            _averaged_logs,
            "Yours is 0.5260 instead of 0.2306 at beta = 0.5: you averaged log-probabilities. That mixture does not "
            "add up to 1.",
            "section 8",
        ),
        Misconception(
            "mixture-first",
            _mixture_first,
            "Yours is 0.2953 instead of 0.2306 at beta = 0.5, and infinite where a model says 0: the divergences start "
            "at the mixture, KL(m ‖ teacher), and should end there.",
            "section 8",
        ),
        Misconception(
            "blend-of-kls",
            lambda student, teacher, beta: (
                beta * reverse_kl(student, teacher) + (1 - beta) * forward_kl(student, teacher)
            ),
            "Yours is 1.0520 instead of 0.2306 at beta = 0.5: a weighted mean of forward and reverse KL, without a "
            "mixture. It is infinite as soon as one of them is.",
            "section 8",
        ),
    ],
)

EXERCISES = [ENTROPY, FORWARD_KL, REVERSE_KL, GRADIENT, JENSEN_SHANNON]
