"""The exercises of lesson 05: what is in a batch, what a piece's loss is divided by, and a whole compute_loss."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor, nn

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises import trainers
from kdcourse.course.exercises.edges import IN_FLOAT64, NO_LABELS, ONE_ROW
from kdcourse.course.exercises.exercise import Edge, Exercise, Inputs, Misconception
from kdcourse.course.exercises.kinds.repairs import Property, RepairARun
from kdcourse.loss import distillation_loss

Batch = dict[str, Tensor]


# ---------------------------------------------------------------------------------------------------------------------
# 05.collate

Rows = Sequence[dict[str, Any]]

PAD, END = 0, 102


def _random_rows(generator: Generator) -> Inputs:
    lengths = [2, *torch.randint(3, 8, (3,), generator=generator).tolist()]
    rows = [
        {
            "input_ids": [*torch.randint(103, 999, (length,), generator=generator).tolist(), END],
            "label": int(torch.randint(0, 2, (1,), generator=generator)),
        }
        for length in lengths
    ]
    return rows, END


def _collate(rows: Rows, pad_id: int) -> Batch:
    """Padded on the right to the longest row, with a mask by position."""
    longest = max(len(row["input_ids"]) for row in rows)
    gaps = [longest - len(row["input_ids"]) for row in rows]
    return {
        "input_ids": torch.tensor([row["input_ids"] + [pad_id] * gap for row, gap in zip(rows, gaps, strict=True)]),
        "attention_mask": torch.tensor([[1] * (longest - gap) + [0] * gap for gap in gaps]),
        "labels": torch.tensor([row["label"] for row in rows]),
    }


def _collate_mask_by_id(rows: Rows, pad_id: int) -> Batch:
    batch = _collate(rows, pad_id)
    return batch | {"attention_mask": (batch["input_ids"] != pad_id).long()}


def _collate_label_not_renamed(rows: Rows, pad_id: int) -> Batch:
    batch = _collate(rows, pad_id)
    batch["label"] = batch.pop("labels")
    return batch


def _collate_left_padding(rows: Rows, pad_id: int) -> Batch:
    batch = _collate(rows, pad_id)
    gaps = (batch["attention_mask"] == 0).sum(-1).tolist()
    for name in ("input_ids", "attention_mask"):
        batch[name] = torch.stack([row.roll(gap) for row, gap in zip(batch[name], gaps, strict=True)])
    return batch


def _collate_mask_of_ones(rows: Rows, pad_id: int) -> Batch:
    batch = _collate(rows, pad_id)
    return batch | {"attention_mask": torch.ones_like(batch["input_ids"])}


COLLATE = Exercise(
    id="05.collate",
    title="Your own collator",
    difficulty=1,
    minutes=5,
    examples=[
        ([{"input_ids": [101, 7, 102], "label": 1}, {"input_ids": [101, 102], "label": 0}], PAD),
        ([{"input_ids": [101, 7, 102], "label": 1}, {"input_ids": [101, 102], "label": 0}], END),
    ],
    random_inputs=_random_rows,
    reference=_collate,
    edges=[
        Edge("for a single row", lambda rows, pad_id: (rows[:1], pad_id)),
        Edge("for rows of one length", lambda rows, pad_id: ([rows[0], rows[0]], pad_id)),
        Edge("for rows that are mappings of another kind", lambda rows, pad_id: ([*map(UserDict, rows)], pad_id)),
        Edge("for rows of a single token", lambda rows, pad_id: ([{"input_ids": [pad_id], "label": 1}] * 2, pad_id)),
    ],
    misconceptions=[
        Misconception(
            "mask-by-id",
            _collate_mask_by_id,
            "Your mask is 0 wherever the id equals pad_id: where pad and end of text share an id, each row loses 1 "
            "real token, its end.",
            "lesson 06, section 5, What the labels mark",
        ),
        Misconception(
            "label-not-renamed",
            _collate_label_not_renamed,
            "Your batch has the key 'label', and forward reads 'labels': it finds 0 labels and returns no loss.",
            "section 1, the six stops",
        ),
        Misconception(
            "left-padding",
            _collate_left_padding,
            "Your padding is on the left, so a row with 1 pad has every word 1 position too far right; without "
            "position_ids that changes GPT-2's logits.",
            "lesson 13, case 12",
        ),
        Misconception(
            "pad-id-ignored",
            lambda rows, pad_id: _collate(rows, 0),
            "You pad with 0 whatever pad_id is; with pad_id 102, a GPT-2 classifier takes your 0 for the last real "
            "token.",
            "lesson 13, case 12",
        ),
        Misconception(
            "mask-of-ones",
            _collate_mask_of_ones,
            "Your mask is 1 everywhere, so 100% of the padding is read as words.",
            "section 1",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 05.share


def _random_micro_batch(generator: Generator) -> Inputs:
    labels = torch.randint(0, 3, (4,), generator=generator)
    labels[0] = IGNORED_LABEL
    return torch.randn(4, 3, generator=generator), labels, 13, 4


def _share(logits: Tensor, labels: Tensor, items: int, steps: int) -> Tensor:
    """Summed cross-entropy of the labelled rows, by the labelled rows of the whole step."""
    return F.cross_entropy(logits, labels, reduction="sum") / items


def _share_unlabelled_rows_counted(logits: Tensor, labels: Tensor, items: int, steps: int) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum") / (len(labels) * steps)


SHARE = Exercise(
    id="05.share",
    title="A micro-batch's share",
    difficulty=2,
    minutes=5,
    examples=[
        (torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), 8, 4),
        (torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, -100]), 7, 4),
        (torch.tensor([[2.0, 0.0]]), torch.tensor([1]), 7, 4),
    ],
    random_inputs=_random_micro_batch,
    reference=_share,
    edges=[
        NO_LABELS,
        ONE_ROW,
        IN_FLOAT64,
        Edge("for logits from −600 to 600", lambda logits, *others: (logits * (600 / logits.abs().max()), *others)),
    ],
    gradient=True,
    misconceptions=[
        Misconception(
            "mean",
            lambda logits, labels, items, steps: F.cross_entropy(logits, labels),
            "You return the mean of the piece: 4 equal pieces add up to 4 times the loss of the whole step.",
            "section 4",
        ),
        Misconception(
            "mean-over-steps",
            lambda logits, labels, items, steps: F.cross_entropy(logits, labels) / steps,
            "You divide the mean by the number of pieces: right for 4 equal pieces, but in 2+2+2+1 rows the single one "
            "weighs twice as much.",
            "section 4, the boxes",
        ),
        Misconception(
            "divided-twice",
            lambda logits, labels, items, steps: F.cross_entropy(logits, labels) / items,
            "You divide by the rows twice, as a mean and by items: 2 labelled rows give half of our loss.",
            "section 4",
        ),
        Misconception(
            "unlabelled-rows-counted",
            _share_unlabelled_rows_counted,
            "You divide by rows × pieces, so a row with label -100 counts, and 4 pieces with 7 labels are taken for 8.",
            "section 4, two counts",
        ),
        Misconception(
            "share-divided-by-steps",
            lambda logits, labels, items, steps: _share(logits, labels, items, steps) / steps,
            "Yours is right, divided once more by the number of pieces: a quarter of ours at 4.",
            "section 4, loss_is_scaled_for_ga",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 05.trainer

Items = tuple[Any, Any]


def _tutorial(
    self: Any, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Items | None = None
) -> Any:
    """As many scripts have it."""
    temperature, alpha = self.args.temperature, self.args.alpha
    outputs = self.model(**inputs)
    teacher_logits = self.teacher(**inputs).logits
    soft = temperature**2 * F.kl_div(
        F.log_softmax(outputs.logits / temperature, dim=-1),
        F.softmax(teacher_logits / temperature, dim=-1),
        reduction="batchmean",
    )
    return alpha * outputs.loss + (1 - alpha) * soft


def _features(inputs: Any) -> Batch:
    return {name: value for name, value in inputs.items() if name != "labels"}


def _counted(labels: Tensor, items: Items | None) -> Items:
    """The labelled and the taught rows: those of the whole step, or those of a batch that is all there is.

    A batch without labels counts 1, so that its hard term is 0.
    """
    return ((labels != IGNORED_LABEL).sum().clamp(min=1), len(labels)) if items is None else items


def _soft(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T²·KL of each row."""
    log_probs, targets = F.log_softmax(student / temperature, dim=-1), F.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_probs, targets, reduction="none", log_target=True).sum(dim=-1)


def _compute_loss(
    self: Any, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Items | None = None
) -> Any:
    """Both terms as sums, each divided by its own count of the whole step."""
    labels = inputs["labels"]
    labelled, taught = _counted(labels, num_items_in_batch)
    outputs = model(**_features(inputs))
    with torch.no_grad():
        teacher_logits = self.teacher(**_features(inputs)).logits
    hard = F.cross_entropy(outputs.logits, labels, reduction="sum") / labelled
    soft = _soft(outputs.logits, teacher_logits, self.args.temperature).sum() / taught
    loss = self.args.alpha * hard + (1 - self.args.alpha) * soft
    return (loss, outputs) if return_outputs else loss


def _with(self: Any, **changes: Any) -> Any:
    """The trainer, with something in its place."""
    return SimpleNamespace(**({"args": self.args, "model": self.model, "teacher": self.teacher} | changes))


def _loss_labels_for_the_teacher(self: Any, model: nn.Module, inputs: Any, *others: Any, **named: Any) -> Any:
    def told(**features: Any) -> Any:
        return self.teacher(**features, labels=inputs["labels"])

    return _compute_loss(_with(self, teacher=told), model, inputs, *others, **named)


def _loss_teacher_in_the_graph(self: Any, *others: Any, **named: Any) -> Any:
    def with_graph(**features: Any) -> Any:
        with torch.enable_grad():
            return self.teacher(**features)

    return _compute_loss(_with(self, teacher=with_graph), *others, **named)


def _loss_of_the_trainers_own_model(self: Any, model: nn.Module, *others: Any, **named: Any) -> Any:
    return _compute_loss(self, self.model, *others, **named)


def _loss_means(self: Any, *others: Any, num_items_in_batch: Items | None = None, **named: Any) -> Any:
    return _compute_loss(self, *others, **named)


def _loss_hard_term_of_forward(
    self: Any, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Items | None = None
) -> Any:
    labelled, _ = _counted(inputs["labels"], num_items_in_batch)
    summed = F.cross_entropy(model(**_features(inputs)).logits, inputs["labels"], reduction="sum") / labelled
    loss, outputs = _compute_loss(self, model, inputs, True, num_items_in_batch)
    loss = loss + self.args.alpha * (F.cross_entropy(outputs.logits, inputs["labels"]) - summed)
    return (loss, outputs) if return_outputs else loss


def _loss_one_count(self: Any, *others: Any, num_items_in_batch: Items | None = None, **named: Any) -> Any:
    items = num_items_in_batch and (num_items_in_batch[0], num_items_in_batch[0])
    return _compute_loss(self, *others, **(named | {"num_items_in_batch": items}))


def _loss_labelled_rows_alone(
    self: Any, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Items | None = None
) -> Any:
    rows, (_, taught) = inputs["labels"] == IGNORED_LABEL, _counted(inputs["labels"], num_items_in_batch)
    loss, outputs = _compute_loss(self, model, inputs, True, num_items_in_batch)
    with torch.no_grad():
        teacher_logits = self.teacher(**_features(inputs)).logits
    left_out = _soft(outputs.logits, teacher_logits, self.args.temperature)[rows].sum() / taught
    loss = loss - (1 - self.args.alpha) * left_out
    return (loss, outputs) if return_outputs else loss


def _loss_t_squared_missing(
    self: Any, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Items | None = None
) -> Any:
    args = SimpleNamespace(alpha=0.0, temperature=self.args.temperature)
    loss, outputs = _compute_loss(self, model, inputs, True, num_items_in_batch)
    soft = _compute_loss(_with(self, args=args), model, inputs, num_items_in_batch=num_items_in_batch)
    loss = loss - (1 - self.args.alpha) * (1 - 1 / self.args.temperature**2) * soft
    return (loss, outputs) if return_outputs else loss


def _loss_alpha_on_the_teacher(self: Any, *others: Any, **named: Any) -> Any:
    args = SimpleNamespace(alpha=1 - self.args.alpha, temperature=self.args.temperature)
    return _compute_loss(_with(self, args=args), *others, **named)


def _loss_labels_popped(self: Any, model: nn.Module, inputs: Any, *others: Any, **named: Any) -> Any:
    loss = _compute_loss(self, model, inputs, *others, **named)
    inputs.pop("labels")
    return loss


def _loss_without_outputs(
    self: Any, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Items | None = None
) -> Any:
    return _compute_loss(self, model, inputs, num_items_in_batch=num_items_in_batch)


def _loss_of_no_count(
    self: Any, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
) -> Any:
    labelled, taught = num_items_in_batch
    return _compute_loss(self, model, inputs, return_outputs, (labelled, taught))


def _loss_nan(
    self: Any, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Items | None = None
) -> Any:
    here = (inputs["labels"] != IGNORED_LABEL).sum(), len(inputs["labels"])
    return _compute_loss(self, model, inputs, return_outputs, num_items_in_batch or here)


def _loss_student_without_gradient(self: Any, *others: Any, **named: Any) -> Any:
    with torch.no_grad():
        return _compute_loss(self, *others, **named)


TRAINER = RepairARun(
    id="05.trainer",
    title="Repair a compute_loss",
    difficulty=3,
    minutes=10,
    broken=_tutorial,
    reference=_compute_loss,
    excludes=[distillation_loss],
    properties=[
        Property("the teacher is asked without the labels", trainers.labels_told),
        Property("the teacher keeps no graph", trainers.graph_of_the_teacher),
        Property("the model that is handed over is asked", trainers.model_passed_over),
        Property("inputs and modes are as they were", trainers.what_has_changed),
        Property("gradient of one batch at T = 1", trainers.weights_at(1.0)),
        Property("gradient of one batch at T = 4", trainers.weights_at(4.0)),
        Property("pieces of 2, 2, 2, 2 rows are the step of 8", trainers.weights_in_pieces(trainers.EVEN)),
        Property(
            "pieces of 2, 2, 2, 1 rows are the step of 7", trainers.weights_in_pieces(trainers.UNEVEN, temperature=2.5)
        ),
        Property("a row without label learns from the teacher", trainers.weights_without_labels),
        Property("a piece may be without labels", trainers.weights_in_pieces(trainers.ONE_UNLABELLED)),
        Property("value of the step", trainers.value),
        Property("without a count, a batch counts itself", trainers.evaluation),
        Property("outputs come back when they are asked for", trainers.outputs_returned),
    ],
    misconceptions=[
        Misconception(
            "labels-for-the-teacher",
            _loss_labels_for_the_teacher,
            "1 thing is left: your teacher is handed the labels. It computes a loss of its own that nobody reads, and "
            "a teacher with other classes stops there.",
            "section 2",
        ),
        Misconception(
            "teacher-in-the-graph",
            _loss_teacher_in_the_graph,
            "Your teacher answers with a graph, 4 times in 4 pieces: memory and time for gradients that nobody uses. "
            "Ask it under `torch.no_grad()`.",
            "section 5, What the teacher is doing",
        ),
        Misconception(
            "the-trainers-own-model",
            _loss_of_the_trainers_own_model,
            "You call `self.model`, and the model that is handed over is asked 0 times. It is a wrapper where there "
            "are several processes, and averages their gradients: without it each trains a student of its own.",
            "section 4, two counts",
        ),
        Misconception(
            "means",
            _loss_means,
            "You return the means of this piece: 4 equal pieces add up to 4 times the step. Divide sums by the counts "
            "that are handed over.",
            "section 4",
        ),
        Misconception(
            "hard-term-of-forward",
            _loss_hard_term_of_forward,
            "Your soft term is right, and your hard term is the loss that forward returns, a mean over this piece: 4 "
            "of them add up to 4 times that of the step.",
            "section 4",
        ),
        Misconception(
            "one-count",
            _loss_one_count,
            "You divide both terms by the labelled rows: where half of the labels are missing, the teacher weighs 2 "
            "times too much.",
            "section 4, two counts",
        ),
        Misconception(
            "labelled-rows-alone",
            _loss_labelled_rows_alone,
            "You leave rows with the label -100 out of both terms; the teacher has an answer for 100% of the rows.",
            "section 4, two counts",
        ),
        Misconception(
            "t-squared-missing",
            _loss_t_squared_missing,
            "At T = 1 your gradient is right, and at T = 4 the teacher weighs a sixteenth of what it should: T² is "
            "missing.",
            "lesson 03, what T² is for",
        ),
        Misconception(
            "alpha-on-the-teacher",
            _loss_alpha_on_the_teacher,
            "Your alpha weights the teacher; here it weights the labels, so yours at 0.3 is ours at 0.7.",
            "lesson 04, the dictionary of conventions",
        ),
        Misconception(
            "labels-popped",
            _loss_labels_popped,
            "You take 'labels' out of the batch itself: after 1 call, whoever reads inputs['labels'] next finds none. "
            "An evaluation does.",
            "section 4, the class PerRow",
        ),
        Misconception(
            "outputs-forgotten",
            _loss_without_outputs,
            "With return_outputs=True you give back 1 thing, and an evaluation asks for 2, the loss and the outputs. "
            "Without these there is no accuracy.",
            "section 3, the class FirstTry",
        ),
        Misconception(
            "no-count",
            _loss_of_no_count,
            "An evaluation hands over no count: num_items_in_batch is None, and your function stops there. Then count "
            "the rows of the 1 batch that you have.",
            "section 3",
        ),
        Misconception(
            "nan",
            _loss_nan,
            "Right, until an evaluation has a batch with 0 labelled rows: its hard term is 0 divided by 0, which is "
            "NaN, and so is the loss of the whole evaluation. Count at least 1.",
            "lesson 04, section 6",
        ),
        Misconception(
            "student-without-gradient",
            _loss_student_without_gradient,
            "Labels and teacher weigh 0.00 in your gradient: the student, too, is asked under `no_grad()`, and learns "
            "nothing.",
            "section 5, What the teacher is doing",
        ),
    ],
)


EXERCISES = [COLLATE, SHARE, TRAINER]
