"""Lesson 04: labels and teacher in one number, and the many ways to weigh them by accident."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception
from kdcourse.course.exercises.rows import kl_per_row
from kdcourse.loss import distillation_loss

Objective = Callable[[Tensor, Tensor, Tensor, float], Tensor]

ONE = torch.tensor(1)


def one_hot(label: Tensor, like: Tensor) -> Tensor:
    return F.one_hot(label, like.shape[-1]).to(like)


# 04.pull


def pull(student: Tensor, teacher: Tensor, label: Tensor, alpha: float, temperature: float) -> Tensor:
    hard = student.softmax(-1) - one_hot(label, student)
    soft = temperature * ((student / temperature).softmax(-1) - (teacher / temperature).softmax(-1))
    return alpha * hard + (1 - alpha) * soft


def pull_without_t_squared(student: Tensor, teacher: Tensor, label: Tensor, alpha: float, temperature: float) -> Tensor:
    hard = student.softmax(-1) - one_hot(label, student)
    soft = (student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
    return alpha * hard + (1 - alpha) * soft / temperature


def pull_without_chain_rule(
    student: Tensor, teacher: Tensor, label: Tensor, alpha: float, temperature: float
) -> Tensor:
    hard = student.softmax(-1) - one_hot(label, student)
    soft = (student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
    return alpha * hard + (1 - alpha) * temperature**2 * soft


def pull_swapped(student: Tensor, teacher: Tensor, label: Tensor, alpha: float, temperature: float) -> Tensor:
    return pull(student, teacher, label, 1 - alpha, temperature)


def pull_at_temperature_one(
    student: Tensor, teacher: Tensor, label: Tensor, alpha: float, temperature: float
) -> Tensor:
    return pull(student, teacher, label, alpha, 1.0)


def pull_softened_hard(student: Tensor, teacher: Tensor, label: Tensor, alpha: float, temperature: float) -> Tensor:
    softened = (student / temperature).softmax(-1)
    soft = temperature * (softened - (teacher / temperature).softmax(-1))
    return alpha * (softened - one_hot(label, student)) + (1 - alpha) * soft


def pull_reversed(student: Tensor, teacher: Tensor, label: Tensor, alpha: float, temperature: float) -> Tensor:
    return -pull(student, teacher, label, alpha, temperature)


def random_example(generator: torch.Generator) -> Inputs:
    logits = 2 * torch.randn(2, 4, generator=generator)
    label = torch.randint(4, (), generator=generator)
    alpha = 0.1 + 0.3 * torch.rand((), generator=generator).item()
    return logits[0], logits[1], label, alpha, 3.0


PULL = Exercise(
    id="04.pull",
    title="The pull of two voices",
    reference=pull,
    examples=[
        (torch.tensor([0.5, -0.5]), torch.tensor([2.0, -2.0]), ONE, 0.25, 2.0),
        (torch.tensor([0.0, 0.0]), torch.tensor([1.0, -1.0]), ONE, 1.0, 4.0),
        (torch.tensor([1.0, 0.0, -1.0]), torch.tensor([0.0, 3.0, 0.0]), ONE, 0.0, 1.0),
    ],
    random_inputs=random_example,
    difficulty=2,
    minutes=8,
    hints=[
        "Differentiate each term alone with respect to the student's logits, then mix the two gradients.",
        "Both are prediction minus target; in the soft term both are softened. The chain rule through s/T costs one "
        "factor T: what does T² leave?",
        "F.one_hot(label, student.shape[-1]) is the label as a distribution. Soft: T · (softmax(s/T) − softmax(t/T)).",
    ],
    misconceptions=[
        Misconception(
            "t-squared-missing",
            pull_without_t_squared,
            "T² is missing: your soft part is a quarter of ours at T = 2 and a ninth at T = 3, and right at T = 1.",
            "section 4, Break it",
        ),
        Misconception(
            "chain-rule-forgotten",
            pull_without_chain_rule,
            "Your soft part is T times ours: twice at T = 2. T² is there; s/T has the derivative 1/T, so T is left.",
            "section 1",
        ),
        Misconception(
            "alpha-swapped",
            pull_swapped,
            "At alpha = 1 your answer follows the teacher and not the label: alpha and 1 − alpha are swapped. At "
            "alpha = 0.5 nobody would notice.",
            "section 2",
        ),
        Misconception(
            "temperature-ignored",
            pull_at_temperature_one,
            "Your answer is the same at T = 2 and at T = 1: both softmaxes of the soft term need logits / T.",
            "section 1",
        ),
        Misconception(
            "hard-term-softened",
            pull_softened_hard,
            "At alpha = 1 your answer depends on T: at T = 4 a student that is 98% sure of one class of two counts as "
            "73% sure. The hard term stays at temperature 1.",
            "section 1",
        ),
        Misconception(
            "sign-reversed",
            pull_reversed,
            "Yours is −1 times ours: where the student moves to. The gradient is prediction minus target.",
            "section 1",
        ),
    ],
)


# 04.which_end


def which_end(loss: Objective) -> str:
    student, teacher = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, -0.5]])
    labels, other_teacher, other_labels = torch.tensor([0]), -2 * teacher, torch.tensor([1])

    def hears(weight: float) -> tuple[bool, bool]:
        before = loss(student, teacher, labels, weight)
        by_labels = loss(student, teacher, other_labels, weight)
        by_teacher = loss(student, other_teacher, labels, weight)
        return not torch.isclose(before, by_labels), not torch.isclose(before, by_teacher)

    ends = (hears(0.0), hears(1.0))
    if ends == ((False, True), (True, False)):
        return "labels"
    if ends == ((True, False), (False, True)):
        return "teacher"
    return "neither"


def trust_the_name(loss: Objective) -> str:
    return "labels"


def ends_exchanged(loss: Objective) -> str:
    return {"labels": "teacher", "teacher": "labels", "neither": "neither"}[which_end(loss)]


def only_one_end(loss: Objective) -> str:
    student, teacher = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, -0.5]])
    before, after = (loss(student, logits, torch.tensor([0]), 0.0) for logits in (teacher, -2 * teacher))
    return "teacher" if torch.isclose(before, after) else "labels"


def larger_end(loss: Objective) -> str:
    given = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, -0.5]]), torch.tensor([1])
    return "labels" if loss(*given, 1.0) > loss(*given, 0.0) else "teacher"


def weighs_labels(student: Tensor, teacher: Tensor, labels: Tensor, weight: float) -> Tensor:
    return distillation_loss(student, teacher, labels, alpha=weight, temperature=2.0).total


def weighs_teacher(student: Tensor, teacher: Tensor, labels: Tensor, weight: float) -> Tensor:
    return distillation_loss(student, teacher, labels, alpha=1 - weight, temperature=2.0).total


def adds_teacher(student: Tensor, teacher: Tensor, labels: Tensor, weight: float) -> Tensor:
    parts = distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0)
    return parts.hard + weight * parts.soft


def weighs_labels_loud_teacher(student: Tensor, teacher: Tensor, labels: Tensor, weight: float) -> Tensor:
    parts = distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0)
    return weight * parts.hard + (1 - weight) * 100 * (parts.soft + 1)


LOSSES = (weighs_labels, weighs_teacher, adds_teacher, weighs_labels_loud_teacher)


def random_objective(generator: torch.Generator) -> Inputs:
    return (LOSSES[int(torch.randint(len(LOSSES), (), generator=generator))],)


WHICH_END = Exercise(
    id="04.which_end",
    title="What does the weight multiply?",
    reference=which_end,
    examples=[(loss,) for loss in LOSSES],
    random_inputs=random_objective,
    difficulty=2,
    minutes=8,
    hints=[
        "At weight 0.5 the two conventions are the same number. Which weights tell them apart?",
        "Call the loss twice with the same weight, and change only the labels; then change only the teacher's logits.",
        "Do both at weight 0 and at weight 1. If a voice is heard at both ends, the answer is 'neither'.",
    ],
    misconceptions=[
        Misconception(
            "trusts-the-name",
            trust_the_name,
            "Your answer is 'labels' for every one of our 4 losses, also for 1 − weight on the labels. A check at 0.5 "
            "passes for both conventions; only weight 0 and weight 1 tell.",
            "section 2, Break it",
        ),
        Misconception(
            "ends-exchanged",
            ends_exchanged,
            "'labels' and 'teacher' are exchanged. A weight of 1 that leaves only the cross-entropy multiplies the "
            "labels' term.",
            "section 2",
        ),
        Misconception(
            "one-end-only",
            only_one_end,
            "For hard + weight · soft you say 'teacher'. At weight 0 its teacher is silent, but at weight 1 both are "
            "heard: it runs from one voice to two. Try both voices at both ends.",
            "section 2, the table",
        ),
        Misconception(
            "compares-sizes",
            larger_end,
            "You go by the larger loss, so a teacher's term that is scaled by 100 makes you say 'teacher' where the "
            "weight is on the labels. Change an input, and see whether the number moves.",
            "section 2",
        ),
    ],
)


# 04.alpha_of


def alpha_of(hard_weight: float, soft_weight: float) -> tuple[float, float]:
    scale = hard_weight + soft_weight
    return hard_weight / scale, scale


def alpha_as_given(hard_weight: float, soft_weight: float) -> tuple[float, float]:
    return hard_weight, 1.0


def alpha_as_ratio(hard_weight: float, soft_weight: float) -> tuple[float, float]:
    return hard_weight / soft_weight, soft_weight


def alpha_of_teacher(hard_weight: float, soft_weight: float) -> tuple[float, float]:
    scale = hard_weight + soft_weight
    return soft_weight / scale, scale


def alpha_without_scale(hard_weight: float, soft_weight: float) -> tuple[float, float]:
    return hard_weight / (hard_weight + soft_weight), 1.0


def random_weights(generator: torch.Generator) -> Inputs:
    return tuple((0.5 + 4 * torch.rand(2, generator=generator)).tolist())


ALPHA_OF = Exercise(
    id="04.alpha_of",
    title="Free weights, told as an alpha",
    reference=alpha_of,
    examples=[(2.0, 5.0), (0.3, 0.7), (1.0, 1.0)],
    random_inputs=random_weights,
    difficulty=1,
    minutes=4,
    hints=[
        "a · hard + b · soft = scale · (alpha · hard + (1 − alpha) · soft). Compare the factors of hard and of soft.",
        "Add the two equations: scale = a + b.",
    ],
    misconceptions=[
        Misconception(
            "not-normalised",
            alpha_as_given,
            "For the weights 2 and 5 your alpha is 2, which is no share of anything; it must be 2/7.",
            "section 2, the table",
        ),
        Misconception(
            "ratio",
            alpha_as_ratio,
            "For the weights 2 and 5 your alpha is 0.4 = 2/5. The share of the labels is 2/(2 + 5); for equal weights "
            "yours is 1, labels alone.",
            "section 2, the table",
        ),
        Misconception(
            "teacher-share",
            alpha_of_teacher,
            "For the weights 2 and 5 your alpha is 5/7: that is the teacher's share. Here alpha weights the labels.",
            "section 2",
        ),
        Misconception(
            "scale-lost",
            alpha_without_scale,
            "alpha is right, but your scale is always 1. The weights 2 and 5 give a loss 7 times as large, which SGD "
            "takes for a learning rate 7 times as large.",
            "section 8",
        ),
    ],
)


# 04.alpha_to_write


def alpha_to_write(alpha: float, temperature: float) -> float:
    hard, soft = alpha, (1 - alpha) * temperature**2
    return hard / (hard + soft)


def alpha_unchanged(alpha: float, temperature: float) -> float:
    return alpha


def alpha_with_one_power(alpha: float, temperature: float) -> float:
    return alpha / (alpha + (1 - alpha) * temperature)


def alpha_the_other_way(alpha: float, temperature: float) -> float:
    return alpha / (alpha + (1 - alpha) / temperature**2)


def alpha_over_t_squared(alpha: float, temperature: float) -> float:
    return alpha / temperature**2


def random_mix(generator: torch.Generator) -> Inputs:
    alpha, more = torch.rand(2, generator=generator).tolist()
    return 0.05 + 0.9 * alpha, 1.5 + 4 * more


ALPHA_TO_WRITE = Exercise(
    id="04.alpha_to_write",
    title="The alpha to write where T² is missing",
    reference=alpha_to_write,
    examples=[(0.5, 4.0), (0.5, 1.0), (0.2, 2.0), (0.0, 3.0)],
    random_inputs=random_mix,
    difficulty=2,
    minutes=5,
    hints=[
        "The script makes the teacher too quiet, so the labels must be written with less weight, not more.",
        "Call it a. In the script labels and teacher weigh a : (1 − a) / T². They should weigh alpha : (1 − alpha).",
        "So the written weights are alpha : (1 − alpha) · T². Make them a share.",
    ],
    misconceptions=[
        Misconception(
            "unchanged",
            alpha_unchanged,
            "You give alpha back as it was. With 0.5 in the script, at T = 4 the labels weigh 16 times as much as the "
            "teacher.",
            "section 4, Break it",
        ),
        Misconception(
            "one-power",
            alpha_with_one_power,
            "At alpha = 0.5, T = 4 you have 0.20, and it is 0.06: a missing T² divides the soft term by T², not by T.",
            "section 4, Break it",
        ),
        Misconception(
            "other-way",
            alpha_the_other_way,
            "At alpha = 0.5, T = 4 you have 0.94: what 0.5 turns into without T². Asked was what to write so that it "
            "turns into 0.5, and that is 0.06.",
            "section 4, Break it",
        ),
        Misconception(
            "not-renormalised",
            alpha_over_t_squared,
            "At alpha = 0.5, T = 4 you have 0.03, which is alpha / T². The script takes 1 minus yours for the teacher, "
            "so divide both weights by their sum: 0.06.",
            "section 4, Break it",
        ),
    ],
)


# 04.semi


def semi(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    soft = kl_per_row(student, teacher).mean()
    labelled = int((labels != IGNORED_LABEL).sum())
    hard = F.cross_entropy(student, labels, reduction="sum") / max(labelled, 1)
    return alpha * hard + (1 - alpha) * soft


def semi_both_by_batch(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    hard = F.cross_entropy(student, labels, reduction="sum") / len(labels)
    return alpha * hard + (1 - alpha) * kl_per_row(student, teacher).mean()


def semi_both_by_labelled(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    labelled = max(int((labels != IGNORED_LABEL).sum()), 1)
    hard = F.cross_entropy(student, labels, reduction="sum") / labelled
    return alpha * hard + (1 - alpha) * kl_per_row(student, teacher).sum() / labelled


def semi_labelled_rows_only(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    rows = labels != IGNORED_LABEL
    labelled = max(int(rows.sum()), 1)
    hard = F.cross_entropy(student, labels, reduction="sum") / labelled
    return alpha * hard + (1 - alpha) * kl_per_row(student, teacher)[rows].sum() / labelled


def semi_clamped(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    hard = F.cross_entropy(student, labels.clamp(min=0))
    return alpha * hard + (1 - alpha) * kl_per_row(student, teacher).mean()


def semi_nan(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    return alpha * F.cross_entropy(student, labels) + (1 - alpha) * kl_per_row(student, teacher).mean()


def random_batch(generator: torch.Generator) -> Inputs:
    logits = torch.randn(2, 8, 3, generator=generator)
    labels = torch.randint(3, (8,), generator=generator)
    labels[torch.randperm(8, generator=generator)[:3]] = -100
    return logits[0], logits[1], labels, 0.4


SEMI = Exercise(
    id="04.semi",
    title="A batch in which some labels are missing",
    reference=semi,
    examples=[
        (
            torch.tensor([[1.0, -1.0], [0.0, 1.0], [0.5, 0.0], [0.0, 0.0]]),
            torch.tensor([[2.0, -2.0], [-1.0, 1.0], [1.0, 0.0], [0.5, -0.5]]),
            torch.tensor([1, -100, -100, -100]),
            0.5,
        ),
        (torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([-100]), 0.5),
    ],
    random_inputs=random_batch,
    difficulty=3,
    minutes=10,
    hints=[
        "Two averages over two sets of rows: which rows have something to say in each term?",
        'F.cross_entropy(…, reduction="sum") skips rows whose label is −100. Divide by the number of the others.',
        "0/0 is NaN: divide by max(labelled, 1), so that a batch without labels has a hard term of 0.",
    ],
    misconceptions=[
        Misconception(
            "both-by-batch",
            semi_both_by_batch,
            "Your hard term is divided by all rows: with 1 label in 4 rows it is a quarter of ours, as if alpha were "
            "0.2 instead of 0.5.",
            "section 5",
        ),
        Misconception(
            "both-by-labelled",
            semi_both_by_labelled,
            "Your soft term adds up all rows and is divided by the labelled ones: with 1 label in 4 rows it is four "
            "times ours.",
            "section 5",
        ),
        Misconception(
            "unlabelled-dropped",
            semi_labelled_rows_only,
            "Your soft term leaves out the rows without a label, in our first example 3 of 4. They are what a teacher "
            "is for.",
            "section 5",
        ),
        Misconception(
            "label-zero",
            semi_clamped,
            "Rows without a label are trained towards class 0: clamping turns −100 into a label, in our first example "
            "for 3 of 4 rows.",
            "section 5",
        ),
        Misconception(
            "nan",
            semi_nan,
            "Right, until a batch has 0 labelled rows: the mean over nothing is NaN, and after one step so is the "
            "student.",
            "section 5",
        ),
    ],
    gradient=True,
)

EXERCISES = [WHICH_END, PULL, ALPHA_OF, ALPHA_TO_WRITE, SEMI]
