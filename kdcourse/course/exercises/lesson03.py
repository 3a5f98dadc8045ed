"""The exercises of lesson 03: the gradient of the soft term, the whole objective, and a loop that trains with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor, nn

from kdcourse.course.exercises import training
from kdcourse.course.exercises.edges import FAR_LOGITS, LOG_SPACE, LOGITS, TEMPERATURES, WIDE, ending, spread
from kdcourse.course.exercises.exercise import Edge, Exercise, Function, Inputs, Misconception
from kdcourse.course.exercises.kinds.repairs import Property, RepairARun
from kdcourse.course.exercises.logits import AUTOGRAD, float64, kl_per_row, kl_terms, soft_term, softened
from kdcourse.loss import distillation_loss

STUDENT = float64([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
TEACHER = float64([[6.0, 2.0, 0.0], [1.0, 0.0, 3.0]])


def _random_logits(generator: Generator) -> Inputs:
    student, teacher = 3 * torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    return student, teacher


def _random_temperature(generator: Generator) -> float:
    return 1.5 + 4 * torch.rand(1, generator=generator).item()


def _random_at_a_temperature(generator: Generator) -> Inputs:
    return *_random_logits(generator), _random_temperature(generator)


# ---------------------------------------------------------------------------------------------------------------------
# 03.soft_gradient


def _difference(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """p_T − q_T, the mean over rows included."""
    return (softened(student, temperature) - softened(teacher, temperature)) / len(student)


def _soft_gradient(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return temperature * _difference(student, teacher, temperature)


def _soft_gradient_student_not_softened(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return temperature * (student.softmax(-1) - softened(teacher, temperature)) / len(student)


SOFT_GRADIENT = Exercise(
    id="03.soft_gradient",
    title="The gradient of the soft term, by hand",
    difficulty=2,
    minutes=5,
    examples=[(STUDENT, TEACHER, 2.0), (STUDENT, TEACHER, 4.0)],
    random_inputs=_random_at_a_temperature,
    reference=_soft_gradient,
    edges=[
        *LOGITS,
        *TEMPERATURES,
        Edge("for logits from −30 to 30 at T = 1", lambda student, teacher, t: (*spread(WIDE, student, teacher), 1.0)),
    ],
    excludes=AUTOGRAD,
    misconceptions=[
        Misconception(
            "t-squared-missing",
            lambda student, teacher, temperature: _difference(student, teacher, temperature) / temperature,
            "Yours is a quarter of ours at T = 2 and a sixteenth at T = 4: that is the gradient of the KL alone, and "
            "the soft term has T² in front.",
            "section 4",
        ),
        Misconception(
            "chain-rule-missing",
            lambda student, teacher, temperature: temperature**2 * _difference(student, teacher, temperature),
            "Yours is twice ours at T = 2 and four times at T = 4: the logits are divided by T inside the softmax, and "
            "the chain rule brings a factor 1/T that turns T² into T.",
            "section 3",
        ),
        Misconception(
            "no-power-left",
            _difference,
            "Yours is half of ours at T = 2 and a quarter at T = 4: T² meets one 1/T only, that of the chain rule. The "
            "other is inside p_T − q_T already, so a factor T is left.",
            "section 3",
        ),
        Misconception(
            "not-softened",
            lambda student, teacher, temperature: _difference(student, teacher, 1.0),
            "Yours is the same at T = 2 and at T = 4: that is p − q at T = 1, and the temperature was not used.",
            "section 3",
        ),
        Misconception(
            "student-not-softened",
            _soft_gradient_student_not_softened,
            "For equal logits of student and teacher ours is 0, and yours is not: only the teacher was divided by T.",
            "section 7",
        ),
        Misconception(
            "uphill",
            lambda student, teacher, temperature: -_soft_gradient(student, teacher, temperature),
            "Yours is ours times −1: the student's answer comes first, p_T − q_T, so that a logit with too much falls.",
            "section 3 (and lesson 01)",
        ),
        Misconception(
            "sum-over-rows",
            lambda student, teacher, temperature: len(student) * _soft_gradient(student, teacher, temperature),
            "Yours is twice ours for 2 rows and four times for 4: that is the gradient of the sum over rows, and the "
            "soft term is their mean.",
            "section 4",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 03.objective

LABELS = torch.tensor([0, 2])


def _random_objective(generator: Generator) -> Inputs:
    student, teacher = _random_logits(generator)
    labels = torch.randint(5, (4,), generator=generator)
    alpha = 0.1 + 0.8 * torch.rand(1, generator=generator).item()
    return student, teacher, labels, alpha, _random_temperature(generator)


def _objective(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float) -> Tensor:
    return alpha * F.cross_entropy(student, labels) + (1 - alpha) * soft_term(student, teacher, temperature)


def _objective_t_squared_missing(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    soft = soft_term(student, teacher, temperature) / temperature**2
    return alpha * F.cross_entropy(student, labels) + (1 - alpha) * soft


def _objective_t_squared_on_both(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    hard = temperature**2 * F.cross_entropy(student, labels)
    return alpha * hard + (1 - alpha) * soft_term(student, teacher, temperature)


def _objective_labels_softened(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    hard = F.cross_entropy(student / temperature, labels)
    return alpha * hard + (1 - alpha) * soft_term(student, teacher, temperature)


def _objective_alpha_turned_round(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    return _objective(student, teacher, labels, 1 - alpha, temperature)


def _objective_switch_at_alpha_0(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    if alpha == 0:
        return soft_term(student, teacher, temperature) / temperature**2
    return _objective(student, teacher, labels, alpha, temperature)


Soft = Callable[[Tensor, Tensor], Tensor]
"""Of logits that are divided by T."""


def _objective_with(soft: Soft) -> Function:
    """T² and alpha are right, and the mistake is in the soft term alone."""

    def objective(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float) -> Tensor:
        term = temperature**2 * soft(student / temperature, teacher / temperature)
        return alpha * F.cross_entropy(student, labels) + (1 - alpha) * term

    return objective


def _objective_teacher_not_softened(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    return _objective_with(lambda s, _: kl_per_row(s, teacher).mean())(student, teacher, labels, alpha, temperature)


OBJECTIVE = Exercise(
    id="03.objective",
    title="Labels and teacher in one loss",
    difficulty=2,
    minutes=5,
    examples=[
        (STUDENT, TEACHER, LABELS, 0.25, 4.0),
        (STUDENT, TEACHER, LABELS, 0.0, 4.0),
        (STUDENT, TEACHER, LABELS, 1.0, 4.0),
    ],
    random_inputs=_random_objective,
    reference=_objective,
    edges=[
        *LOG_SPACE,
        *TEMPERATURES,
        ending("at alpha = 0 and T = 1", 0.0, 1.0),
        ending("at alpha = 1 and T = 2", 1.0, 2.0),
        ending("at alpha = 0 and T = 3", 0.0, 3.0),
        Edge("where both agree at alpha = 0 and T = 20", lambda s, t, labels, *others: (t.clone(), t, labels, 0.0, 20)),
        Edge(
            "for logits from −600 to 600 at T = 20",
            lambda *inputs: (*FAR_LOGITS.change(*inputs)[:4], 20),
        ),
    ],
    excludes=[distillation_loss],
    gradient=True,
    misconceptions=[
        Misconception(
            "t-squared-missing",
            _objective_t_squared_missing,
            "At alpha = 0 yours is a sixteenth of ours at T = 4; at alpha = 1 it is right: T² is missing from the soft "
            "term.",
            "section 4",
        ),
        Misconception(
            "t-squared-on-both",
            _objective_t_squared_on_both,
            "At alpha = 1 yours is 16 times ours at T = 4; at alpha = 0 it is right: the hard term is taken at T = 1, "
            "and has no T² to make up for.",
            "section 5",
        ),
        Misconception(
            "labels-softened",
            _objective_labels_softened,
            "At alpha = 1 yours is 1.0292 where ours is 0.9795 at T = 4; at alpha = 0 it is right: the student's "
            "logits were divided by T in the hard term, too.",
            "section 5",
        ),
        Misconception(
            "alpha-turned-round",
            _objective_alpha_turned_round,
            "Yours at alpha = 0.25 is ours at 0.75, and at alpha = 0 it is the cross-entropy alone: here alpha weights "
            "the labels. Other libraries mean the opposite.",
            "section 5",
        ),
        Misconception(
            "switch-at-alpha-0",
            _objective_switch_at_alpha_0,
            "Right at every alpha but 0, where yours is a sixteenth of ours at T = 4: T² belongs to the soft term also "
            "when it is the only one.",
            "section 5",
        ),
        Misconception(
            "cross-entropy-instead",
            _objective_with(lambda student, teacher: F.cross_entropy(student, teacher.softmax(-1))),
            "Yours is too large by T² times the teacher's entropy at T, and its gradient is right: the soft term is a "
            "divergence, 0 where both agree.",
            "lesson 01, section 2",
        ),
        Misconception(
            "mean-over-classes",
            _objective_with(lambda student, teacher: kl_terms(student.log_softmax(-1), teacher.softmax(-1)).mean()),
            "At alpha = 1 yours is right, and at alpha = 0 a third of ours with 3 classes: `F.kl_div` by itself takes "
            "the mean over rows and classes, and a divergence is the sum over classes. It is reduction='batchmean' "
            "that divides by the rows alone.",
            "lesson 02, section 7",
        ),
        Misconception(
            "sum-over-rows",
            _objective_with(lambda student, teacher: kl_per_row(student, teacher).sum()),
            "At alpha = 1 yours is right, and at alpha = 0 it is 2 times ours for 2 rows: reduction='sum' adds up the "
            "rows, so that a larger batch hears more of the teacher. Each term is a mean over rows.",
            "lesson 02, section 7",
        ),
        Misconception(
            "softmax-on-both-sides",
            _objective_with(lambda s, t: kl_terms(s.softmax(-1), t.softmax(-1)).sum(-1).mean()),
            "At alpha = 0 yours is -21.171 where ours is 1.585, and a divergence is never below 0: `F.kl_div` takes "
            "the student's log-probabilities, and yours are probabilities.",
            "lesson 02, section 2",
        ),
        Misconception(
            "roles-exchanged",
            _objective_with(lambda student, teacher: kl_per_row(teacher, student).mean()),
            "At alpha = 0 yours is 1.730 where ours is 1.585, and 0 where both agree: that is KL(student ‖ teacher), "
            "the other direction. `F.kl_div` takes the student first and averages with the weights of its second "
            "argument.",
            "lesson 01, section 7",
        ),
        Misconception(
            "teacher-not-softened",
            _objective_teacher_not_softened,
            "At T = 1 yours is right, and at T = 4 it is not 0 where student and teacher agree: the student alone was "
            "divided by T, so it is to be sharper than its teacher. Soften both.",
            "section 2",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 03.loop

Loss = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]


def _unwritten(
    student: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor, *,
    alpha: float, temperature: float, steps: int, seed: int,
) -> None:  # fmt: skip
    raise NotImplementedError


def _distill(
    student: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor, *,
    alpha: float, temperature: float, steps: int, seed: int, loss: Loss = _objective,
) -> None:  # fmt: skip
    """With another `loss`, the mistake is in that alone."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(student.parameters(), 0.01)
    student.train()
    teacher.eval()
    for _ in range(steps):
        rows = torch.randint(len(images), (64,), generator=generator)
        with torch.no_grad():
            teacher_logits = teacher(images[rows])
        optimizer.zero_grad()
        loss(student(images[rows]), teacher_logits, labels[rows], alpha, temperature).backward()
        optimizer.step()


def _distill_with(loss: Loss) -> Function:
    return partial(_distill, loss=loss)


def _distill_without_zero_grad(
    student: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor, *,
    alpha: float, temperature: float, steps: int, seed: int,
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(student.parameters(), 0.01)
    student.train()
    teacher.eval()
    for _ in range(steps):
        rows = torch.randint(len(images), (64,), generator=generator)
        with torch.no_grad():
            teacher_logits = teacher(images[rows])
        _objective(student(images[rows]), teacher_logits, labels[rows], alpha, temperature).backward()
        optimizer.step()


def _distill_teacher_in_the_graph(
    student: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor, *,
    alpha: float, temperature: float, steps: int, seed: int,
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(student.parameters(), 0.01)
    student.train()
    teacher.eval()
    for _ in range(steps):
        rows = torch.randint(len(images), (64,), generator=generator)
        optimizer.zero_grad()
        _objective(student(images[rows]), teacher(images[rows]), labels[rows], alpha, temperature).backward()
        optimizer.step()


class _Unmoved(nn.Module):
    """A model whose mode nobody changes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.__dict__["model"] = model  # not registered, so that `train()` and `eval()` do not reach it

    def forward(self, images: Tensor) -> Tensor:
        return self.__dict__["model"](images)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return self.__dict__["model"].parameters(recurse)


def _distill_teacher_not_in_eval_mode(student: nn.Module, teacher: nn.Module, *data: Tensor, **settings: Any) -> None:
    _distill(student, _Unmoved(teacher), *data, **settings)


def _distill_student_not_in_train_mode(student: nn.Module, teacher: nn.Module, *data: Tensor, **settings: Any) -> None:
    _distill(_Unmoved(student), teacher, *data, **settings)


def _distill_without_the_seed(*given: Any, seed: int, **settings: Any) -> None:
    _distill(*given, **settings, seed=int(torch.randint(2**31, ())))


def _objective_of_the_answers(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    return alpha * F.cross_entropy(student, labels) + (1 - alpha) * F.cross_entropy(student, teacher.argmax(-1))


LOOP = RepairARun(
    id="03.loop",
    title="Twenty lines that bring the 3s back",
    difficulty=3,
    minutes=12,
    broken=_unwritten,
    reference=_distill,
    by_words=True,
    prepare=training.task,
    properties=[
        Property("as many batches as steps are asked for", training.number_of_steps),
        Property("batches of 64 rows", training.rows_of_a_batch),
        Property("the student is trained", training.nothing_learned),
        Property("a learning rate of 0.01", training.size_of_a_step),
        Property("each step by its own gradient alone", training.gradients_left_over),
        Property("the student learns in train mode", training.mode_of_the_student),
        Property("the teacher answers in eval mode", training.mode_of_the_teacher),
        Property("the teacher is as it was, and holds no gradient", training.trace_in_the_teacher),
        Property("first gradient at alpha = 1, T = 4", training.weights_in_the_gradient(1.0, 4.0)),
        Property("first gradient at alpha = 0, T = 1", training.weights_in_the_gradient(0.0, 1.0)),
        Property("first gradient at alpha = 0.3, T = 4", training.weights_in_the_gradient(0.3, 4.0)),
        Property("batches hang on the seed", training.say_of_the_seed),
        Property("at alpha = 1 the nine other digits are learned", training.learned_from_labels_alone),
        Property("at alpha = 1 no 3 is recognised", training.missing_from_labels_alone),
        Property("at alpha = 0.5, T = 4 the 3s are back", training.share_of_the_missing(0.6)),
    ],
    misconceptions=[
        Misconception(
            "t-squared-missing",
            _distill_with(_objective_t_squared_missing),
            "At T = 1 your gradient is right, and at T = 4 the teacher's part of it is a sixteenth of ours: T² is "
            "missing, the labels have nearly all the say, and most of the 3s stay missing.",
            "section 4, and what follows this exercise",
        ),
        Misconception(
            "alpha-turned-round",
            _distill_with(_objective_alpha_turned_round),
            "At alpha = 1 your student hears the teacher alone, and recognises 3s that no label speaks of: here alpha "
            "is the weight of the labels.",
            "section 5",
        ),
        Misconception(
            "labels-softened",
            _distill_with(_objective_labels_softened),
            "At T = 1 your gradient is right, and at T = 4 that of the labels alone is not: the student's logits were "
            "divided by T in the hard term, too.",
            "section 5",
        ),
        Misconception(
            "answers-instead-of-probabilities",
            _distill_with(_objective_of_the_answers),
            "Your student hears the teacher's likeliest class, and nothing of the other nine: that is one more label, "
            "and a 3 is never one. Soften the teacher's logits.",
            "section 2",
        ),
        Misconception(
            "gradients-added-up",
            _distill_without_zero_grad,
            "From the second step on the gradients of all steps so far are added up, and the student is driven past "
            "everything: `optimizer.zero_grad()` is missing.",
            "section 6, hint 2",
        ),
        Misconception(
            "teacher-in-the-graph",
            _distill_teacher_in_the_graph,
            "Your teacher holds a gradient after 3 steps: time and memory for what nobody needs, and one `step()` of "
            "the wrong optimizer would change it. Ask it under `torch.no_grad()`.",
            "section 6, hint 2",
        ),
        Misconception(
            "teacher-not-in-eval-mode",
            _distill_teacher_not_in_eval_mode,
            "Your teacher answers in train mode: with dropout it would say something else each time it is asked. It is "
            "you who sets its mode: `teacher.eval()`, 1 line.",
            "section 6, hint 2",
        ),
        Misconception(
            "student-not-in-train-mode",
            _distill_student_not_in_train_mode,
            "Your student learns in eval mode, in 3 of 3 steps: it came so, from somebody who had just tested it, and "
            "its dropout would be off. `student.train()` stands before the loop.",
            "section 6, hint 2",
        ),
        Misconception(
            "seed-forgotten",
            _distill_without_the_seed,
            "Your loop, run twice with 1 seed, makes two students: its batches are drawn from a generator that the "
            "seed does not set. What differs by chance cannot be compared.",
            "section 6, hint 1",
        ),
    ],
)


EXERCISES = [SOFT_GRADIENT, OBJECTIVE, LOOP]
