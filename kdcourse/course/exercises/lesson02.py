"""The exercises of lesson 02: what goes into a KL divergence, and how to see that a distillation term is alive."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor

from kdcourse.course.exercises.edges import LOG_SPACE
from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception
from kdcourse.course.exercises.kinds.judged import Suspect
from kdcourse.course.exercises.kinds.mutants import KillTheMutants
from kdcourse.course.exercises.logits import kl_per_row, kl_terms
from kdcourse.divergence import forward_kl


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
    edges=LOG_SPACE,
    excludes=[forward_kl],
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
# 02.test

Term = Callable[[Tensor, Tensor], Tensor]
"""`kd_term(student_logits, teacher_logits)`, the mean over rows of KL(teacher ‖ student), in nats."""


def _by_summands(summands: Term) -> Term:
    """The mean over rows of what a term adds up for each class."""
    return lambda student, teacher: summands(student, teacher).sum() / len(student)


def _mean_kl(student: Tensor, teacher: Tensor) -> Tensor:
    return kl_per_row(student, teacher).mean()


def _cross_entropy_minus_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    q = teacher.softmax(-1)
    return F.cross_entropy(student, q) - F.cross_entropy(teacher, q)


def _softmax_then_log(student: Tensor, teacher: Tensor) -> Tensor:
    """Right until a probability of the student is too small for 32 bits."""
    return kl_terms(student.softmax(-1).log(), teacher.softmax(-1)).sum() / len(student)


def _over_the_batch(student: Tensor, teacher: Tensor) -> Tensor:
    return kl_per_row(student.T, teacher.T).sum() / len(student)


def _straight_through(student: Tensor, teacher: Tensor) -> Tensor:
    """The value of the KL and the gradient of a squared difference."""
    square = (student.softmax(-1) - teacher.softmax(-1)).square().sum(-1).mean()
    return _mean_kl(student, teacher).detach() + square - square.detach()


def _with_epsilon(student: Tensor, teacher: Tensor) -> Tensor:
    q = teacher.softmax(-1)
    return (q * (q.log() - (student.softmax(-1) + 1e-3).log())).sum(-1).mean()


RIGHT_TERMS = [
    Suspect("log_softmax and softmax", _by_summands(lambda s, t: kl_terms(s.log_softmax(-1), t.softmax(-1)))),
    Suspect(
        "log_softmax twice, with the flag",
        _by_summands(lambda s, t: kl_terms(s.log_softmax(-1), t.log_softmax(-1), True)),
    ),
    Suspect("cross-entropy minus entropy", _cross_entropy_minus_entropy),
    Suspect("in 64 bits", lambda student, teacher: _mean_kl(student.double(), teacher.double())),
]
KD_MUTANTS = [
    Suspect("softmax on both sides", _by_summands(lambda s, t: kl_terms(s.softmax(-1), t.softmax(-1)))),
    Suspect("log on both sides", _by_summands(lambda s, t: kl_terms(s.log_softmax(-1), t.log_softmax(-1)))),
    Suspect("the student's logits as they are", _by_summands(lambda s, t: kl_terms(s, t.softmax(-1)))),
    Suspect("the teacher on both sides", lambda student, teacher: _mean_kl(teacher, teacher)),
    Suspect("the student without gradient", lambda student, teacher: _mean_kl(student.detach(), teacher)),
    Suspect("the other direction", lambda student, teacher: _mean_kl(teacher, student)),
    Suspect("mean over the classes", lambda s, t: F.kl_div(s.log_softmax(-1), t.softmax(-1), reduction="none").mean()),
    Suspect("sum over the rows", lambda student, teacher: kl_per_row(student, teacher).sum()),
    Suspect("the first row alone", lambda student, teacher: _mean_kl(student[:1], teacher[:1])),
    Suspect("cross-entropy, its entropy left in", lambda s, t: F.cross_entropy(s, t.softmax(-1))),
    Suspect("softmax over the batch", _over_the_batch),
    Suspect("softmax, and then its logarithm", _softmax_then_log),
    Suspect("10⁻³ inside the logarithm", _with_epsilon),
    Suspect("the gradient of another loss", _straight_through),
]  # fmt: skip
"""What the lesson has broken, and a few that look like it."""

AGREED = 1e-4
"""Two values are the same for a test in 32 bits."""


def _expected(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """KL and its gradient p − q by hand, in 64 bits."""
    p, q = student.double().softmax(-1), teacher.double().softmax(-1)
    return (q * (q.log() - p.log())).sum(-1).mean(), (p - q) / len(student)


def _measured(term: Term, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor | None]:
    student = student.clone().requires_grad_()
    value = term(student, teacher)
    if not value.requires_grad:
        return value.detach(), None
    return value.detach(), torch.autograd.grad(value, student, allow_unused=True)[0]


PAIR = (torch.tensor([[2.0, 0.0, -5.0], [0.0, 1.0, 3.0]]), torch.tensor([[0.0, 2.0, 1.0], [1.0, 1.0, 0.0]]))
"""Student and teacher: two rows of three classes."""
SURE = (torch.tensor([[0.0, -120.0, 1.0], [0.0, 1.0, 3.0]]), PAIR[1])
"""A student that has given a class up."""


def _agrees(measured: Tensor | None, expected: Tensor) -> bool:
    return measured is not None and torch.allclose(measured.double(), expected, atol=AGREED)


def _is_the_kl(term: Term, student: Tensor, teacher: Tensor) -> bool:
    value, gradient = _measured(term, student, teacher)
    expected, slope = _expected(student, teacher)
    return _agrees(value, expected) and _agrees(gradient, slope)


def _test(term: Term) -> bool:
    return _is_the_kl(term, *PAIR) and _is_the_kl(term, *SURE)


def _vanishes(term: Term, teacher: Tensor) -> bool:
    """0 for a student that is its teacher."""
    return abs(term(teacher.clone(), teacher).item()) < AGREED


def _test_finite(term: Term) -> bool:
    return bool(term(*PAIR).isfinite())


def _test_zero(term: Term) -> bool:
    return _vanishes(term, PAIR[1]) and term(*PAIR).item() > AGREED


def _test_value(term: Term) -> bool:
    return all(_agrees(term(*pair), _expected(*pair)[0]) for pair in (PAIR, SURE))


def _test_one_row(term: Term) -> bool:
    return all(_is_the_kl(term, student[:1], teacher[:1]) for student, teacher in (PAIR, SURE))


def _test_mild(term: Term) -> bool:
    return _is_the_kl(term, *PAIR)


def _test_falls(term: Term) -> bool:
    student, values = PAIR[0].clone(), []
    for _ in range(20):
        value, gradient = _measured(term, student, PAIR[1])
        values.append(value.item())
        if gradient is None:
            return False
        student = student - 0.2 * gradient
    return values == sorted(values, reverse=True) and values[-1] < values[0]


def _test_alive(term: Term) -> bool:
    _, gradient = _measured(term, *PAIR)
    is_alive = gradient is not None and bool(gradient.isfinite().all() and gradient.abs().max() > 0)
    return is_alive and _test_zero(term)


def _test_to_the_last_bit(term: Term) -> bool:
    return bool(term(*PAIR) == RIGHT_TERMS[0].function(*PAIR)) and _test(term)


TEST = KillTheMutants(
    id="02.test",
    title="A test that no broken loss survives",
    difficulty=3,
    minutes=12,
    right=RIGHT_TERMS,
    mutants=KD_MUTANTS,
    reference=_test,
    misconceptions=[
        Misconception(
            "finite-is-fine",
            _test_finite,
            "You ask for a finite number, and 13 of 14 broken losses give one. -1.343 for a student that is its "
            "teacher is finite, too.",
            "section 2",
        ),
        Misconception(
            "falls-is-fine",
            _test_falls,
            "You train for a few steps and see the loss fall. So it does for most of the broken losses: each of them "
            "falls, towards something else.",
            "section 3",
        ),
        Misconception(
            "zero-is-fine",
            _test_zero,
            "You ask for 0 where student and teacher agree, and for more where they do not. A divisor that is wrong, "
            "another direction and a missing gradient keep to both rules: compute one value by hand.",
            "section 7",
        ),
        Misconception(
            "alive-is-enough",
            _test_alive,
            "Your test asks what tells a dead loss: a value above 0, 0 for equal models, a gradient that is finite and "
            "not 0. What passes is alive, and not yet right: compare value and gradient with numbers by hand.",
            "section 7",
        ),
        Misconception(
            "value-alone",
            _test_value,
            "The values are right, and nobody has looked at a gradient. The student learns from the gradient alone, "
            "and the 2 survivors teach it nothing, or something else.",
            "section 3",
        ),
        Misconception(
            "one-row",
            _test_one_row,
            "Your batch has 1 row, and then a mean and a sum over rows are the same number.",
            "section 7",
        ),
        Misconception(
            "mild-logits",
            _test_mild,
            "Your logits are small, or come in 64 bits, where exp(-120) is still a number. In 32 bits it is 0 and its "
            "logarithm -inf: give the student, in float32, a class that it has given up.",
            "section 4",
        ),
        Misconception(
            "to-the-last-bit",
            _test_to_the_last_bit,
            "You refuse right losses: two ways to add the same 3 numbers differ in the 7th digit. Compare with "
            "torch.allclose, or with pytest.approx.",
            "section 8",
        ),
    ],
)


EXERCISES = [KL_PER_ROW, TEST]
