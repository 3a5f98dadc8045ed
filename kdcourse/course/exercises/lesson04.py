"""The exercises of lesson 04: what a run's log tells of it, and a batch in which some labels are missing."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises import runs
from kdcourse.course.exercises.edges import FAR_LOGITS, LOG_SPACE, NO_LABELS, ending, unlabelled
from kdcourse.course.exercises.exercise import Edge, Exercise, Inputs, Misconception
from kdcourse.course.exercises.kinds.faults import NameTheFault, taking
from kdcourse.course.exercises.logits import kl_per_row
from kdcourse.loss import distillation_loss

# ---------------------------------------------------------------------------------------------------------------------
# 04.fault


def _name_fault(log: runs.Log) -> str:  # noqa: PLR0911  (one for each fault)
    first, last = log[0], log[-1]
    if all(line["soft_loss"] < 1e-6 for line in log):  # noqa: PLR2004
        return "student is its own teacher"
    if any(line["loss"] > 1.2 * first["loss"] for line in log):
        return "learning rate too high"
    if all(_is_mixture(line, 1 - runs.ALPHA) for line in log):
        return "alpha turned round"
    if last["hard_loss"] > 1.2 * first["hard_loss"]:
        return "labels shuffled"
    if last["hard_loss"] > 0.55 * first["hard_loss"]:
        return "teacher never loaded" if last["eval_accuracy"] < 0.68 else "hard term softened"  # noqa: PLR2004
    if first["soft_loss"] < 1:
        return "T squared missing"
    return "hard term softened" if log[1]["hard_loss"] > 0.55 * first["hard_loss"] else "healthy"


def _is_mixture(line: dict[str, float], alpha: float) -> bool:
    return abs(alpha * line["hard_loss"] + (1 - alpha) * line["soft_loss"] - line["loss"]) < 0.01 * line["loss"]


def _name_fault_by_the_total(log: runs.Log) -> str:
    return "healthy" if log[-1]["loss"] < log[0]["loss"] else "learning rate too high"


FAULT = NameTheFault(
    id="04.fault",
    title="Name the fault",
    difficulty=2,
    minutes=12,
    faults=runs.FAULTS,
    run=runs.play,
    material=runs,
    reference=_name_fault,
    misconceptions=[
        Misconception(
            "total-alone",
            _name_fault_by_the_total,
            "You look at the total alone, and it falls in 7 of these 8 kinds of run. It is its two terms that tell "
            "what went wrong.",
            "section 4",
        ),
        Misconception(
            "sum-not-checked",
            taking(_name_fault, "alpha turned round", "healthy"),
            "Where alpha is turned round, both terms look sound, and you call it healthy. Do the sum: is `loss` 0.3 of "
            "the hard loss and 0.7 of the soft one, in each line?",
            "section 2",
        ),
        Misconception(
            "nothing-to-learn-is-fine",
            taking(_name_fault, "student is its own teacher", "healthy"),
            "A soft loss of 0 is not good news, least of all at step 0: nobody agrees with a teacher before the first "
            "step, except that teacher.",
            "section 7, two that are one file",
        ),
        Misconception(
            "small-soft-loss-is-t-squared",
            taking(_name_fault, "teacher never loaded", "T squared missing"),
            "You take a small soft loss at the start for a missing T² in both cases. Without T² accuracy still rises; "
            "a teacher of random numbers holds it below 0.7, and the hard loss above 1.",
            "section 4",
        ),
        Misconception(
            "start-not-looked-at",
            taking(_name_fault, "T squared missing", "healthy"),
            "You call it healthy because both terms fall. Look where they start: the soft loss at step 0 is a "
            "sixteenth of what it is in a sound run.",
            "section 4, the start",
        ),
        Misconception(
            "hard-loss-and-accuracy",
            taking(_name_fault, "hard term softened", "healthy"),
            "You call it healthy, and its hard loss is about twice what it should be, while accuracy is as high as in "
            "a sound run: it is the loss of logits that were divided by 4.",
            "section 4, and section 5 of lesson 03",
        ),
        Misconception(
            "blames-the-teacher",
            taking(_name_fault, "labels shuffled", "teacher never loaded"),
            "The hard loss climbs above its start, which is 1.61, while accuracy is high: so the student has learned "
            "the task from its teacher, and it is the labels that contradict.",
            "section 4",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 04.semi


def _random_batch(generator: Generator) -> Inputs:
    student, teacher = torch.randn(2, 8, 3, generator=generator)
    labels = torch.randint(3, (8,), generator=generator)
    labels[torch.randperm(8, generator=generator)[:3]] = IGNORED_LABEL
    return student, teacher, labels, 0.4


def _labelled(labels: Tensor) -> int:
    """How many rows have a label; 1 if none has, so that their mean is 0."""
    return max(int((labels != IGNORED_LABEL).sum()), 1)


def _semi(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    hard = F.cross_entropy(student, labels, reduction="sum") / _labelled(labels)
    return alpha * hard + (1 - alpha) * kl_per_row(student, teacher).mean()


def _semi_both_by_batch(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    hard = F.cross_entropy(student, labels, reduction="sum") / len(labels)
    return alpha * hard + (1 - alpha) * kl_per_row(student, teacher).mean()


def _semi_both_by_labelled(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    hard = F.cross_entropy(student, labels, reduction="sum") / _labelled(labels)
    return alpha * hard + (1 - alpha) * kl_per_row(student, teacher).sum() / _labelled(labels)


def _semi_unlabelled_dropped(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    hard = F.cross_entropy(student, labels, reduction="sum") / _labelled(labels)
    soft = kl_per_row(student, teacher)[labels != IGNORED_LABEL].sum() / _labelled(labels)
    return alpha * hard + (1 - alpha) * soft


def _semi_label_zero(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    hard = F.cross_entropy(student, labels.clamp(min=0))
    return alpha * hard + (1 - alpha) * kl_per_row(student, teacher).mean()


def _semi_nan(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    return alpha * F.cross_entropy(student, labels) + (1 - alpha) * kl_per_row(student, teacher).mean()


def _semi_louder(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    return _semi(student, teacher, labels, alpha if (labels != IGNORED_LABEL).any() else 0.0)


def _semi_cross_entropy(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    hard = F.cross_entropy(student, labels, reduction="sum") / _labelled(labels)
    return alpha * hard + (1 - alpha) * F.cross_entropy(student, teacher.softmax(-1))


SEMI = Exercise(
    id="04.semi",
    title="A batch in which some labels are missing",
    difficulty=3,
    minutes=8,
    examples=[
        (
            torch.tensor([[1.0, -1.0], [0.0, 1.0], [0.5, 0.0], [0.0, 0.0]]),
            torch.tensor([[2.0, -2.0], [-1.0, 1.0], [1.0, 0.0], [0.5, -0.5]]),
            torch.tensor([1, -100, -100, -100]),
            0.5,
        ),
        (torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([-100]), 0.5),
    ],
    random_inputs=_random_batch,
    reference=_semi,
    edges=[
        *LOG_SPACE,
        NO_LABELS,
        Edge("where every row has a label", lambda s, t, labels, alpha: (s, t, labels.clamp(min=0), alpha)),
        Edge("for a single row with a label", lambda s, t, labels, alpha: (s[:1], t[:1], torch.tensor([2]), alpha)),
        Edge("for logits from −600 to 600 without labels", lambda *inputs: unlabelled(*FAR_LOGITS.change(*inputs))),
        ending("at alpha = 0", 0.0),
        ending("at alpha = 1", 1.0),
    ],
    excludes=[distillation_loss],
    gradient=True,
    misconceptions=[
        Misconception(
            "both-by-batch",
            _semi_both_by_batch,
            "Your hard term is divided by all rows: with 1 label in 4 rows it is a quarter of ours, as if alpha were "
            "0.2 instead of 0.5.",
            "section 6",
        ),
        Misconception(
            "both-by-labelled",
            _semi_both_by_labelled,
            "Your soft term adds up all rows and is divided by the labelled ones: with 1 label in 4 rows it is four "
            "times ours.",
            "section 6",
        ),
        Misconception(
            "unlabelled-dropped",
            _semi_unlabelled_dropped,
            "Your soft term leaves out the rows without a label, in our first example 3 of 4. They are what a teacher "
            "is for.",
            "section 6",
        ),
        Misconception(
            "label-zero",
            _semi_label_zero,
            "Rows without a label are trained towards class 0: clamping turns −100 into a label, in our first example "
            "for 3 of 4 rows.",
            "section 6",
        ),
        Misconception(
            "nan",
            _semi_nan,
            "Right, until a batch has 0 labelled rows: the mean over nothing is NaN, and after one step so is the "
            "student.",
            "section 6",
        ),
        Misconception(
            "louder-without-a-label",
            _semi_louder,
            "Right, until a batch has 0 labelled rows: then you give the teacher the whole weight, 1 instead of 1 − "
            "alpha, and in our second example that is twice ours. Only the label's term is left out; the other one "
            "stays as it is.",
            "section 6",
        ),
        Misconception(
            "cross-entropy-instead",
            _semi_cross_entropy,
            "Yours is too large by 1 − alpha times the teacher's entropy, and its gradient is right: the soft term is "
            "a divergence, 0 where both agree.",
            "lesson 01, section 2",
        ),
    ],
)


EXERCISES = [FAULT, SEMI]
