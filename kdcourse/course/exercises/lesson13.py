"""The exercises of lesson 13: classes that are ruled out, columns that survive, a first look at a run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises.edges import LOG_SPACE, ONE_CLASS
from kdcourse.course.exercises.exercise import Edge, Exercise, Inputs, Misconception
from kdcourse.course.exercises.kinds.faults import NameTheFault
from kdcourse.course.exercises.logits import kl_per_row, kl_terms, one_hot

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
    edges=[
        *(edge for edge in LOG_SPACE if edge is not ONE_CLASS),
        Edge("where one class alone is allowed", lambda s, t, allowed: (s, t, torch.eye(6)[2].bool())),
        Edge("where half of the classes are allowed", lambda s, t, allowed: (s, t, torch.arange(6) % 2 == 0)),
        Edge("where every class is allowed", lambda s, t, allowed: (s, t, torch.ones_like(allowed))),
        Edge("for logits around -200", lambda s, t, allowed: (s - 200, t - 200, allowed)),
        Edge("for a single class", lambda s, t, allowed: (s[:, :1], t[:, :1], torch.tensor([True]))),
    ],
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
    edges=[
        Edge("where a column is called label_ids", lambda columns, *others: (["label_ids", "text"], *others)),
        Edge("where a column is called kwargs", lambda columns, *others: (["kwargs", *columns], *others)),
        Edge("without columns", lambda columns, *others: ([], *others)),
    ],
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


# ---------------------------------------------------------------------------------------------------------------------
# 13.first_look

HEALTHY = "healthy"
OTHER_ROWS = "answers of other sentences"
NEW_HEAD = "a head that is new"
HARD = "answers that are nearly hard"
NO_CLASSES = "labels that are no classes"
TRAINING = "a teacher in training mode"


@dataclass(frozen=True)
class FirstLook:
    """What costs seconds to look at before a run that takes hours."""

    labels: Tensor
    """(N,), of one batch as the trainer sees it."""
    teacher_logits: Tensor
    """(N, C), what the teacher says of this batch."""
    asked_again: Tensor
    """(N, C), what it says when it is asked a second time."""
    accuracy: float
    """The teacher's, measured by its owner on sentences with labels."""


def _first_look(fault: str, seed: int) -> FirstLook:
    """A teacher that is right on 80 to 95% of the rows, of which some have no label; and one thing that went wrong."""
    generator = Generator().manual_seed(seed)
    classes, rows = 2 + seed % 3, 200
    frequent = torch.ones(classes).index_fill(0, torch.tensor([0]), 1.0 + seed % 2)
    truth = torch.multinomial(frequent, rows, replacement=True, generator=generator)
    accuracy = 0.8 + 0.15 * torch.rand((), generator=generator).item()
    is_wrong = torch.rand(rows, generator=generator) > accuracy
    said = torch.where(is_wrong, (truth + 1) % classes, truth)
    logits = 2.5 * one_hot(said, torch.empty(rows, classes)) + 0.5 * torch.randn(rows, classes, generator=generator)
    labels = torch.where(torch.rand(rows, generator=generator) < 0.2, IGNORED_LABEL, truth)  # noqa: PLR2004  (a fifth)
    again = logits
    if fault == OTHER_ROWS:
        logits = again = logits.roll(1, dims=0)
    elif fault == NEW_HEAD:
        logits = again = 0.2 * torch.randn(rows, classes, generator=generator)
        accuracy = (logits.argmax(-1) == truth).float().mean().item()
    elif fault == HARD:
        logits = again = 10 * logits
    elif fault == NO_CLASSES:
        labels = torch.where(labels == IGNORED_LABEL, labels, labels + 1 if seed % 2 else torch.tensor(-1))
    elif fault == TRAINING:
        again = logits + 0.4 * torch.randn(rows, classes, generator=generator)
    return FirstLook(labels, logits, again, accuracy)


def _share_right(look: FirstLook) -> float:
    labelled = look.labels != IGNORED_LABEL
    return (look.teacher_logits.argmax(-1) == look.labels)[labelled].float().mean().item()


def _sureness(look: FirstLook) -> float:
    """The mean probability of what the teacher says."""
    return look.teacher_logits.softmax(-1).amax(-1).mean().item()


def _are_no_classes(labels: Tensor, classes: int) -> bool:
    return bool(((labels != IGNORED_LABEL) & ((labels < 0) | (labels >= classes))).any())


def _name_case(look: FirstLook) -> str:
    classes = look.teacher_logits.shape[-1]
    if _are_no_classes(look.labels, classes):
        return NO_CLASSES
    if not torch.allclose(look.teacher_logits, look.asked_again):
        return TRAINING
    if _share_right(look) < look.accuracy - 0.2:
        return OTHER_ROWS
    if _sureness(look) < 1 / classes + 0.15:
        return NEW_HEAD
    return HARD if _sureness(look) > 0.97 else HEALTHY  # noqa: PLR2004  (between the two)


def _name_case_ignored_is_no_class(look: FirstLook) -> str:
    return NO_CLASSES if bool((look.labels < 0).any()) else _name_case(look)


def _name_case_unlabelled_are_wrong(look: FirstLook) -> str:
    named = _name_case(look)
    if named not in {HEALTHY, HARD}:
        return named
    right = (look.teacher_logits.argmax(-1) == look.labels).float().mean().item()
    return OTHER_ROWS if right < look.accuracy - 0.1 else named


def _name_case_by_accuracy_alone(look: FirstLook) -> str:
    named = _name_case(look)
    return NEW_HEAD if named == OTHER_ROWS else named


def _name_case_asked_once(look: FirstLook) -> str:
    return _name_case(replace(look, asked_again=look.teacher_logits))


def _name_case_sure_is_good(look: FirstLook) -> str:
    named = _name_case(look)
    return HEALTHY if named == HARD else named


FIRST_LOOK = NameTheFault(
    id="13.first_look",
    title="Before the long run",
    difficulty=2,
    minutes=10,
    faults=[HEALTHY, OTHER_ROWS, NEW_HEAD, HARD, NO_CLASSES, TRAINING],
    run=_first_look,
    material=_first_look,
    reference=_name_case,
    misconceptions=[
        Misconception(
            "ignored-is-no-class",
            _name_case_ignored_is_no_class,
            "You call every run sick: a fifth of the labels is -100 in all of them, which says that a row has no "
            "label, and a loss leaves it out. What is no class is any *other* number below 0 or above C - 1.",
            "case 10",
        ),
        Misconception(
            "unlabelled-are-wrong",
            _name_case_unlabelled_are_wrong,
            "You count rows without a label as wrong. They are a fifth of the batch, so a teacher that is right on 9 "
            "of 10 seems to be so on 7. Leave the rows with -100 out of the mean.",
            "case 5",
        ),
        Misconception(
            "by-accuracy-alone",
            _name_case_by_accuracy_alone,
            "Both are a coin in this batch, but one of these 2 teachers is good elsewhere and sure of itself here: it "
            "answered for other rows. A head that is new is bad everywhere, and sure of nothing.",
            "cases 5 and 11",
        ),
        Misconception(
            "asked-once",
            _name_case_asked_once,
            "You never compare the 2 answers to one question. A teacher in training mode drops out another part of "
            "itself each time, and its answers differ; its accuracy hardly tells.",
            "lesson 05, section 5, What the teacher is doing",
        ),
        Misconception(
            "sure-is-good",
            _name_case_sure_is_good,
            "You let a teacher pass that gives its choice 99% on nearly every row. Its soft labels are the hard ones "
            "once more: there is nothing in them that labels do not say.",
            "case 6",
        ),
    ],
)


EXERCISES = [MASKED_KL, KEPT, FIRST_LOOK]
