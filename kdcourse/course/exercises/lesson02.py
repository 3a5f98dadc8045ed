"""The exercises of lesson 02: what goes into a KL divergence, and how to see that a distillation term is alive."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor

from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception
from kdcourse.course.exercises.logits import kl_per_row, kl_terms


def _random_pair(generator: Generator) -> Inputs:
    return 2 * torch.randn(4, 6, generator=generator), 2 * torch.randn(4, 6, generator=generator)


# ---------------------------------------------------------------------------------------------------------------------
# 02.kl_per_row

P, Q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.1, 0.3, 0.6]])
"""The student and the teacher of the lesson."""

KL_PER_ROW = Exercise(
    id="02.kl_per_row",
    title="KL divergence per row",
    difficulty=1,
    minutes=5,
    examples=[
        (P.log() + 1.5, Q.log() - 0.7),
        (Q.log(), Q.log()),
        (torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([[0.0, 1.0], [3.0, -2.0]])),
    ],
    random_inputs=_random_pair,
    reference=kl_per_row,
    gradient=True,
    misconceptions=[
        Misconception(
            "softmax-on-both-sides",
            lambda student, teacher: kl_terms(student.softmax(-1), teacher.softmax(-1)).sum(-1),
            "Your result is never above 0: -1.088 where ours is 1.002, and negative even where student and teacher are "
            "the same. A divergence cannot be: the first argument is a probability, and kl_div takes it for a "
            "logarithm.",
            "section 2",
        ),
        Misconception(
            "log-on-both-sides",
            lambda student, teacher: kl_terms(student.log_softmax(-1), teacher.log_softmax(-1)).sum(-1),
            "NaN from the first call on, and a gradient that is finite and wrong: your target is a log-probability, "
            "and without log_target=True kl_div takes its logarithm once more, of a negative number.",
            "section 2",
        ),
        Misconception(
            "raw-logits",
            lambda student, teacher: kl_terms(student, teacher.softmax(-1)).sum(-1),
            "Add 3 to all logits of the student, which changes none of its probabilities, and your result falls by 3: "
            "the student's logits went in as they are. For the first input you get -0.498 and not 1.002.",
            "section 2",
        ),
        Misconception(
            "roles-exchanged",
            lambda student, teacher: kl_terms(teacher.log_softmax(-1), student.softmax(-1)).sum(-1),
            "1.102 where ours is 1.002, and 0 for equal distributions: that is KL(student ‖ teacher), the other "
            "direction. kl_div takes the student first and averages with the weights of its second argument.",
            "lesson 01, section 7",
        ),
        Misconception(
            "teacher-twice",
            lambda student, teacher: kl_terms(teacher.log_softmax(-1), teacher.softmax(-1)).sum(-1),
            "0 for every input, and no gradient for the student: both arguments come from the teacher.",
            "section 3",
        ),
        Misconception(
            "terms-clamped",
            lambda student, teacher: kl_terms(student.log_softmax(-1), teacher.softmax(-1)).clamp(min=0).sum(-1),
            "1.197 where ours is 1.002: the negative terms were cut off. They belong to the sum, and only the sum is "
            "sure not to be negative.",
            "lesson 01, section 3",
        ),
        Misconception(
            "mean-over-classes",
            lambda student, teacher: kl_terms(student.log_softmax(-1), teacher.softmax(-1)).mean(-1),
            "A third of ours with 3 classes, half of ours with 2: you averaged over the classes, but a divergence is "
            "their sum.",
            "section 7",
        ),
        Misconception(
            "softmax-with-flag",
            lambda student, teacher: kl_terms(student.softmax(-1), teacher.softmax(-1), log_target=True).sum(-1),
            "0.383 where ours is 1.002, and 0 where student and teacher are the same: softmax on both sides, with "
            "log_target=True. It looks like a divergence and is none; both sides must be log_softmax for that flag.",
            "section 2",
        ),
        Misconception(
            "rows-together",
            lambda student, teacher: F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="batchmean"),
            "One number, also for two rows: 1.048 instead of (1.660, 0.437). That is reduction='batchmean', the mean "
            "over rows; asked for is one number for each.",
            "section 7",
        ),
        Misconception(
            "flag-without-log",
            lambda student, teacher: kl_terms(student.log_softmax(-1), teacher.softmax(-1), log_target=True).sum(-1),
            "8.371 where ours is 1.002, and 6.709 where student and teacher are the same: log_target=True promises a "
            "logarithm, and the target is a probability.",
            "section 2",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 02.is_sound

Term = Callable[[Tensor, Tensor], Tensor]

ZERO = 1e-4
"""A sound term is closer to 0 than this where student and teacher agree, and further where they do not."""


@dataclass(frozen=True)
class KDTerm:
    """A distillation term to be examined. Copies are equal, so that a check sees that no input was changed."""

    name: str
    summands: Term

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return self.summands(student_logits, teacher_logits).sum() / student_logits.shape[0]

    def __repr__(self) -> str:
        return self.name


def _cold_reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Right, except that the third probability of the student in `PAIR` vanishes at T = 0.05."""
    return kl_terms((teacher / 0.05).log_softmax(-1), (student / 0.05).softmax(-1))


KD_TERMS = [
    KDTerm("the right term", kl_per_row),
    KDTerm("softmax on both sides", lambda student, teacher: kl_terms(student.softmax(-1), teacher.softmax(-1))),
    KDTerm("teacher twice", lambda student, teacher: kl_per_row(teacher, teacher)),
    KDTerm("student without gradient", lambda student, teacher: kl_per_row(student.detach(), teacher)),
    KDTerm("raw logits", lambda student, teacher: kl_terms(student, teacher.softmax(-1))),
    KDTerm("log on both sides", lambda student, teacher: kl_terms(student.log_softmax(-1), teacher.log_softmax(-1))),
    KDTerm("reverse KL, target a softmax, T = 0.05", _cold_reverse_kl),
]
"""One that is right, and six that the lesson has broken."""

PAIR = (torch.tensor([[-3.0, -3.02, -9.0]]), torch.tensor([[0.0, 2.0, 1.0]]))
"""A student whose raw logits make a positive number, and its teacher."""


def _random_term(generator: Generator) -> Inputs:
    index = int(torch.randint(3, (), generator=generator))
    return KD_TERMS[index], *_random_pair(generator)


def _is_positive(term: Term, student: Tensor, teacher: Tensor) -> bool:
    return term(student, teacher).item() > ZERO


def _vanishes(term: Term, teacher: Tensor) -> bool:
    """0 for a student that is its teacher."""
    return abs(term(teacher.clone(), teacher).item()) < ZERO


def _teaches(term: Term, student: Tensor, teacher: Tensor) -> bool:
    """The student's gradient is finite, and not 0 everywhere."""
    student = student.clone().requires_grad_()
    value = term(student, teacher)
    if not value.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(value, student, allow_unused=True)
    return gradient is not None and bool(gradient.isfinite().all() and gradient.abs().max() > 0)


def _is_sound(term: Term, student: Tensor, teacher: Tensor) -> bool:
    return _is_positive(term, student, teacher) and _vanishes(term, teacher) and _teaches(term, student, teacher)


def _is_sound_graph_is_enough(term: Term, student: Tensor, teacher: Tensor) -> bool:
    has_graph = term(student.clone().requires_grad_(), teacher).requires_grad
    return has_graph and _is_positive(term, student, teacher) and _vanishes(term, teacher)


IS_SOUND = Exercise(
    id="02.is_sound",
    title="Is this distillation term alive?",
    difficulty=3,
    minutes=12,
    examples=[(term, *PAIR) for term in KD_TERMS],
    random_inputs=_random_term,
    reference=_is_sound,
    misconceptions=[
        Misconception(
            "finite-is-fine",
            lambda term, student, teacher: math.isfinite(term(student, teacher).item()),
            "You pass 6 of our 7 terms, and only one of them is right: -1.343 for a student that is its teacher "
            "is finite, too.",
            "section 2",
        ),
        Misconception(
            "value-is-enough",
            lambda term, student, teacher: _is_positive(term, student, teacher) and _vanishes(term, teacher),
            "You pass 'student without gradient' and the reverse KL at T = 0.05: both values are right, and no "
            "student learns from them, since one gradient is missing and the other is NaN.",
            "sections 3 and 5",
        ),
        Misconception(
            "graph-is-enough",
            _is_sound_graph_is_enough,
            "You pass the reverse KL at T = 0.05: it has requires_grad, and every entry of its gradient is NaN. Take "
            "the gradient and look at it.",
            "section 5",
        ),
        Misconception(
            "zero-not-tried",
            lambda term, student, teacher: _is_positive(term, student, teacher) and _teaches(term, student, teacher),
            "You pass 'raw logits': positive, with a gradient, and not 0 where student and teacher are the same. Give "
            "the term the teacher's logits on both sides.",
            "section 2",
        ),
    ],
)


EXERCISES = [KL_PER_ROW, IS_SOUND]
