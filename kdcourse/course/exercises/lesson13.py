"""The exercises of lesson 13: classes that are ruled out, one target from several teachers, columns that survive."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception
from kdcourse.course.exercises.logits import float64, kl_per_row, kl_terms, softened

# ---------------------------------------------------------------------------------------------------------------------
# 13.masked_kl


def _random_masked(generator: Generator) -> Inputs:
    return *torch.randn(2, 4, 6, generator=generator), torch.arange(6) != torch.randint(6, (), generator=generator)


def _masked_kl(student: Tensor, teacher: Tensor, allowed: Tensor) -> Tensor:
    return kl_per_row(student[:, allowed], teacher[:, allowed])


def _rule_out(logits: Tensor, allowed: Tensor, value: float = -math.inf) -> Tensor:
    return logits.masked_fill(~allowed, value)


def _masked_kl_infinite_minus_infinite(student: Tensor, teacher: Tensor, allowed: Tensor) -> Tensor:
    student, teacher = _rule_out(student, allowed), _rule_out(teacher, allowed)
    return kl_terms(student.log_softmax(-1), teacher.softmax(-1)).sum(-1)


def _masked_kl_masked_after_softmax(student: Tensor, teacher: Tensor, allowed: Tensor) -> Tensor:
    return kl_terms(student.log_softmax(-1), teacher.softmax(-1))[:, allowed].sum(-1)


def _masked_kl_logit_of_zero(student: Tensor, teacher: Tensor, allowed: Tensor) -> Tensor:
    return kl_per_row(_rule_out(student, allowed, 0.0), _rule_out(teacher, allowed, 0.0))


MASKED_KL = Exercise(
    id="13.masked_kl",
    title="KL where classes are ruled out",
    difficulty=2,
    minutes=8,
    examples=[
        (torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.5]]), torch.tensor([True, True, False])),
        (torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.5]]), torch.tensor([True, True, True])),
    ],
    random_inputs=_random_masked,
    reference=_masked_kl,
    gradient=True,
    misconceptions=[
        Misconception(
            "infinite-minus-infinite",
            _masked_kl_infinite_minus_infinite,
            "NaN as soon as a class is ruled out: with a logit of -inf on both sides its term is 0 times infinity. "
            "Leave such classes out before you multiply.",
            "case 2",
        ),
        Misconception(
            "masked-after-softmax",
            _masked_kl_masked_after_softmax,
            "0.131 where ours is 0.462, for the first input: the softmax still counted the class that is ruled out, so "
            "what was left of each side adds up to less than 1, and the sum may even be negative. Mask first.",
            "case 2",
        ),
        Misconception(
            "logit-of-zero",
            _masked_kl_logit_of_zero,
            "0.364 where ours is 0.462, for the first input: a logit of 0 does not rule out anything, its probability "
            "is exp(0) over the sum. A class is ruled out by a logit of -inf, or by leaving it out.",
            "case 2",
        ),
        Misconception(
            "teacher-only",
            lambda student, teacher, allowed: kl_per_row(student, _rule_out(teacher, allowed)),
            "0.557 where ours is 0.462, for the first input: only the teacher was masked, and your student still loses "
            "probability to a class that nobody may choose.",
            "case 2",
        ),
        Misconception(
            "student-only",
            lambda student, teacher, allowed: kl_per_row(_rule_out(student, allowed), teacher),
            "Infinite as soon as a class is ruled out: only the student was masked, so it gives nothing where the "
            "teacher still gives something.",
            "case 2",
        ),
        Misconception(
            "nobody-ruled-out",
            lambda student, teacher, allowed: kl_per_row(student, teacher),
            "Right where nothing is ruled out, and 0.508 where ours is 0.462, for the first input: the mask was not "
            "used.",
            "case 2",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 13.target


def _random_teachers(generator: Generator) -> Inputs:
    weights = torch.rand(3, generator=generator, dtype=torch.float64) + 0.1
    logits = 3 * torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    return logits, weights / weights.sum(), 1 + 3 * torch.rand((), generator=generator).item()


def _mean_of(rows: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("k,knc->nc", weights, rows)


def _target(teacher_logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Each teacher softened, and then the weighted mean of their probabilities."""
    return _mean_of(softened(teacher_logits, temperature), weights)


def _target_softened_after_mean(teacher_logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    raised = _target(teacher_logits, weights, 1.0) ** (1 / temperature)
    return raised / raised.sum(-1, keepdim=True)


TARGET = Exercise(
    id="13.target",
    title="One target from many teachers",
    difficulty=2,
    minutes=5,
    examples=[
        (float64([[6.0, 0.0, 0.0], [0.0, 3.0, 0.0]]).unsqueeze(1), float64([0.5, 0.5]), 1.0),
        (float64([[6.0, 0.0, 0.0], [0.0, 3.0, 0.0]]).unsqueeze(1), float64([0.5, 0.5]), 2.0),
        (float64([[6.0, 0.0, 0.0], [0.0, 3.0, 0.0]]).unsqueeze(1), float64([0.25, 0.75]), 1.0),
    ],
    random_inputs=_random_teachers,
    reference=_target,
    misconceptions=[
        Misconception(
            "mean-logits",
            lambda teacher_logits, weights, temperature: softened(_mean_of(teacher_logits, weights), temperature),
            "Yours gives (0.79, 0.18, 0.04) for (6, 0, 0) and (0, 3, 0) at T = 1, ours (0.52, 0.46, 0.02): the mean of "
            "logits is the geometric mean of the probabilities, and listens to the louder teacher.",
            "case 3",
        ),
        Misconception(
            "softened-after-mean",
            _target_softened_after_mean,
            "Right at T = 1, but (0.465, 0.435, 0.100) at T = 2, where ours is (0.532, 0.368, 0.100): each teacher is "
            "softened first, then they are averaged.",
            "case 3",
        ),
        Misconception(
            "not-softened",
            lambda teacher_logits, weights, temperature: _target(teacher_logits, weights, 1.0),
            "Right at T = 1, and the same (0.52, 0.46, 0.02) at T = 2: the temperature was not used.",
            "case 3",
        ),
        Misconception(
            "weights-ignored",
            lambda teacher_logits, weights, temperature: softened(teacher_logits, temperature).mean(0),
            "Right for two equal weights, and the same (0.52, 0.46, 0.02) for weights of 0.25 and 0.75: each teacher "
            "counts as much as its weight.",
            "case 3",
        ),
        Misconception(
            "sum-not-mean",
            lambda teacher_logits, weights, temperature: softened(teacher_logits, temperature).sum(0),
            "Your rows add up to 2 for 2 teachers: a target is a distribution, and the weights make it one.",
            "case 3",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 13.kept

Forward = Callable[..., Any]

COLUMNS = ["text", "label", "labels", "attention_mask", "input_ids", "token_type_ids", "teacher_logits"]


def _bert_forward(input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, labels: Any = None,
                  **kwargs: Any) -> None: ...  # fmt: skip


def _distilbert_forward(
    input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **kwargs: Any
) -> None: ...


def _wrapped_forward(input_ids: Any, attention_mask: Any, **kwargs: Any) -> None: ...


def _random_columns(generator: Generator) -> Inputs:
    order = torch.randperm(len(COLUMNS), generator=generator).tolist()[:5]
    return [COLUMNS[index] for index in order], _wrapped_forward, ["labels"]


def _kept(columns: Sequence[str], forward: Forward, label_names: Sequence[str]) -> list[str]:
    """The columns that forward names, and those that are known to be labels."""
    known = {*inspect.signature(forward).parameters, "label", "label_ids", *label_names}
    return [name for name in columns if name in known]


def _kept_only_what_forward_names(columns: Sequence[str], forward: Forward, label_names: Sequence[str]) -> list[str]:
    return [name for name in columns if name in inspect.signature(forward).parameters]


def _kept_kwargs_let_all_through(columns: Sequence[str], forward: Forward, label_names: Sequence[str]) -> list[str]:
    kinds = [parameter.kind for parameter in inspect.signature(forward).parameters.values()]
    return list(columns) if inspect.Parameter.VAR_KEYWORD in kinds else _kept(columns, forward, label_names)


def _kept_order_of_forward(columns: Sequence[str], forward: Forward, label_names: Sequence[str]) -> list[str]:
    known = dict.fromkeys([*inspect.signature(forward).parameters, "label", "label_ids", *label_names])
    return [name for name in known if name in columns]


KEPT = Exercise(
    id="13.kept",
    title="Which columns survive?",
    difficulty=3,
    minutes=10,
    examples=[
        (["label", "input_ids", "text"], _wrapped_forward, []),
        (COLUMNS, _wrapped_forward, []),
        (COLUMNS, _distilbert_forward, ["labels"]),
        (COLUMNS, _bert_forward, ["labels"]),
    ],
    random_inputs=_random_columns,
    reference=_kept,
    misconceptions=[
        Misconception(
            "only-what-forward-names",
            _kept_only_what_forward_names,
            "You drop `label`, which no forward here names: it is 1 of 2 names that the Trainer always keeps for the "
            "collator.",
            "case 13",
        ),
        Misconception(
            "kwargs-let-all-through",
            _kept_kwargs_let_all_through,
            "You let **kwargs keep all 7 columns; to the Trainer it is 1 parameter with the name kwargs.",
            "case 14, the wrapper",
        ),
        Misconception(
            "labels-always-kept",
            lambda columns, forward, label_names: _kept(columns, forward, [*label_names, "labels"]),
            "You always keep `labels`; a wrapper that takes it in **kwargs has 0 label_names, and it is dropped.",
            "case 14, the wrapper",
        ),
        Misconception(
            "order-of-forward",
            _kept_order_of_forward,
            "You keep the right columns in the order of forward's parameters; the dataset's order was asked for.",
            "exercise 13.kept, the task",
        ),
    ],
)


EXERCISES = [MASKED_KL, TARGET, KEPT]
