"""The exercises of lesson 05: what is in a batch, what a micro-batch's loss is divided by, and a whole compute_loss."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises.edges import IN_FLOAT64, NO_LABELS, ONE_ROW, ending
from kdcourse.course.exercises.exercise import Edge, Exercise, Inputs, Misconception
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
            "lesson 06, pad is eos",
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
            "notebook 13, GPT-2 and padding",
        ),
        Misconception(
            "pad-id-ignored",
            lambda rows, pad_id: _collate(rows, 0),
            "You pad with 0 whatever pad_id is; with pad_id 102, a GPT-2 classifier takes your 0 for the last real "
            "token.",
            "notebook 13, GPT-2 and padding",
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
# 05.own

Items = tuple[int, int]


@dataclass(frozen=True)
class Answer:
    """What a classifier returns: logits, and a loss of its own if it was given labels."""

    logits: Tensor
    loss: Tensor | None


@dataclass(frozen=True)
class ToyClassifier:
    """Called like a model of transformers: the mean of its words' rows in a table that a seed has drawn."""

    seed: int
    size: float = 2.0
    table: Tensor = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", self.size * torch.randn(99, 3, generator=Generator().manual_seed(self.seed)))

    def parameters(self) -> list[Tensor]:
        return [self.table]

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Answer:
        mask = attention_mask[..., None]
        logits = (self.table[input_ids] * mask).sum(dim=1) / mask.sum(dim=1)
        return Answer(logits, None if labels is None else F.cross_entropy(logits, labels))


SURE, SURE_TEACHER = ToyClassifier(2, 40.0), ToyClassifier(3, 40.0)


def _micro_batch(generator: Generator, labels: Sequence[int]) -> Batch:
    ids = torch.randint(0, 99, (len(labels), 3), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor(labels)}


def _random_step(generator: Generator) -> Inputs:
    batch = _micro_batch(generator, [2, IGNORED_LABEL, 0, 1])
    return ToyClassifier(0), ToyClassifier(1), batch, (9, 13), 0.3, 3.0


def _with_labels(batch: Batch, label: int) -> Batch:
    return batch | {"labels": torch.full_like(batch["labels"], label)}


def _rows(batch: Batch, rows: slice) -> Batch:
    return {name: column[rows] for name, column in batch.items()}


def _padded(batch: Batch) -> Batch:
    """The second row has one token less, the third two."""
    mask = batch["attention_mask"].clone()
    mask[1:, -1] = 0
    mask[2:, -2] = 0
    return batch | {"attention_mask": mask}


def _features(inputs: Batch) -> Batch:
    return {name: value for name, value in inputs.items() if name != "labels"}


def _terms(student: ToyClassifier, teacher: ToyClassifier, inputs: Batch, temperature: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over labelled rows, and T²·KL of each row."""
    student_logits, teacher_logits = (model(**_features(inputs)).logits for model in (student, teacher))
    hard = F.cross_entropy(student_logits, inputs["labels"], reduction="sum")
    student_log_probs = F.log_softmax(student_logits / temperature, dim=-1)
    teacher_log_probs = F.log_softmax(teacher_logits / temperature, dim=-1)
    soft = F.kl_div(student_log_probs, teacher_log_probs, reduction="none", log_target=True).sum(dim=-1)
    return hard, temperature**2 * soft


def _own(
    student: ToyClassifier, teacher: ToyClassifier, inputs: Batch, items: Items, alpha: float, temperature: float
) -> Tensor:
    """Both terms as sums, each divided by its own count of the whole step."""
    hard, soft = _terms(student, teacher, inputs, temperature)
    labelled, taught = items
    return alpha * hard / labelled + (1 - alpha) * soft.sum() / taught


def _own_means(
    student: ToyClassifier, teacher: ToyClassifier, inputs: Batch, items: Items, alpha: float, temperature: float
) -> Tensor:
    hard = F.cross_entropy(student(**_features(inputs)).logits, inputs["labels"])
    _, soft = _terms(student, teacher, inputs, temperature)
    return alpha * hard + (1 - alpha) * soft.mean()


def _own_with_the_students_loss(
    student: ToyClassifier, teacher: ToyClassifier, inputs: Batch, items: Items, alpha: float, temperature: float
) -> Tensor:
    hard = F.cross_entropy(student(**_features(inputs)).logits, inputs["labels"])
    _, soft = _terms(student, teacher, inputs, temperature)
    return alpha * hard + (1 - alpha) * soft.sum() / items[1]


def _own_by_one_count(
    student: ToyClassifier, teacher: ToyClassifier, inputs: Batch, items: Items, alpha: float, temperature: float
) -> Tensor:
    labelled, _ = items
    return _own(student, teacher, inputs, (labelled, labelled), alpha, temperature)


def _own_labelled_rows_alone(
    student: ToyClassifier, teacher: ToyClassifier, inputs: Batch, items: Items, alpha: float, temperature: float
) -> Tensor:
    hard, soft = _terms(student, teacher, inputs, temperature)
    labelled, taught = items
    return alpha * hard / labelled + (1 - alpha) * soft[inputs["labels"] != IGNORED_LABEL].sum() / taught


def _own_without_t_squared(
    student: ToyClassifier, teacher: ToyClassifier, inputs: Batch, items: Items, alpha: float, temperature: float
) -> Tensor:
    hard, soft = _terms(student, teacher, inputs, temperature)
    return alpha * hard / items[0] + (1 - alpha) * soft.sum() / temperature**2 / items[1]


def _own_alpha_on_the_teacher(
    student: ToyClassifier, teacher: ToyClassifier, inputs: Batch, items: Items, alpha: float, temperature: float
) -> Tensor:
    return _own(student, teacher, inputs, items, 1 - alpha, temperature)


def _own_labels_popped(
    student: ToyClassifier, teacher: ToyClassifier, inputs: Batch, items: Items, alpha: float, temperature: float
) -> Tensor:
    loss = _own(student, teacher, inputs, items, alpha, temperature)
    inputs.pop("labels")
    return loss


OWN = Exercise(
    id="05.own",
    title="A compute_loss of your own",
    difficulty=3,
    minutes=10,
    examples=[
        (ToyClassifier(0), ToyClassifier(1), _micro_batch(Generator().manual_seed(10), [0, 2]), (7, 7), 0.3, 2.0),
        (
            ToyClassifier(0), ToyClassifier(1), _micro_batch(Generator().manual_seed(11), [1, IGNORED_LABEL]),
            (5, 7), 0.3, 2.0,
        ),
    ],
    random_inputs=_random_step,
    reference=_own,
    gradient=True,
    edges=[
        Edge("for a batch that is no dict", lambda s, t, batch, *others: (s, t, UserDict(batch), *others)),
        Edge("where no row has a label", lambda s, t, batch, *others: (s, t, _with_labels(batch, -100), *others)),
        Edge("where every row has a label", lambda s, t, batch, *others: (s, t, _with_labels(batch, 1), *others)),
        Edge("for rows that are padded", lambda s, t, batch, *others: (s, t, _padded(batch), *others)),
        Edge("where student and teacher agree", lambda s, t, *others: (ToyClassifier(t.seed), t, *others)),
        Edge("for models that are sure of themselves", lambda s, t, *others: (SURE, SURE_TEACHER, *others)),
        Edge("for a single row", lambda s, t, batch, *others: (s, t, _rows(batch, slice(1, 2)), *others)),
        ending("at alpha = 0 and T = 1", 0.0, 1.0),
        ending("at alpha = 1 and T = 2.5", 1.0, 2.5),
        ending("at T = 2.5", 0.6, 2.5),
    ],
    excludes=[distillation_loss],
    misconceptions=[
        Misconception(
            "means",
            _own_means,
            "You return the means of this micro-batch: 4 equal ones add up to 4 times the loss of the step.",
            "section 4",
        ),
        Misconception(
            "the-students-own-loss",
            _own_with_the_students_loss,
            "Your hard term is the loss that forward returns, a mean over this micro-batch: 4 of them add up to 4 "
            "times that of the step.",
            "section 4",
        ),
        Misconception(
            "one-count",
            _own_by_one_count,
            "You divide both terms by the labelled rows; where half of the labels are missing, your soft term is 2 "
            "times too large.",
            "section 4, two counts",
        ),
        Misconception(
            "labelled-rows-alone",
            _own_labelled_rows_alone,
            "You leave rows with the label -100 out of both terms; to a classifier they are taught rows, and the "
            "teacher has an answer for 100% of them.",
            "section 4, two counts",
        ),
        Misconception(
            "t-squared-missing",
            _own_without_t_squared,
            "Your soft term is a quarter of ours at T = 2 and a ninth at T = 3: T² is missing.",
            "lesson 03, what T² is for",
        ),
        Misconception(
            "alpha-on-the-teacher",
            _own_alpha_on_the_teacher,
            "Your alpha weights the teacher; here it weights the labels, so yours at 0.3 is ours at 0.7.",
            "lesson 04, the dictionary of conventions",
        ),
        Misconception(
            "labels-popped",
            _own_labels_popped,
            "Your function takes 'labels' out of the batch itself: after 1 call, whoever reads inputs['labels'] next "
            "finds none.",
            "section 4, the class PerRow",
        ),
    ],
)  # fmt: skip


EXERCISES = [COLLATE, SHARE, OWN]
