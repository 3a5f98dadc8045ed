"""The exercises of lesson 05: what is in a batch, what forward makes of it, and what a training step divides by."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception

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
    minutes=6,
    examples=[
        ([{"input_ids": [101, 7, 102], "label": 1}, {"input_ids": [101, 102], "label": 0}], PAD),
        ([{"input_ids": [101, 7, 102], "label": 1}, {"input_ids": [101, 102], "label": 0}], END),
    ],
    random_inputs=_random_rows,
    reference=_collate,
    misconceptions=[
        Misconception(
            "mask-by-id",
            _collate_mask_by_id,
            "Your mask is 0 wherever the id equals pad_id: where pad and end of text share an id, each row loses 1 "
            "real token, its end.",
            "section 8, the end token as padding",
        ),
        Misconception(
            "label-not-renamed",
            _collate_label_not_renamed,
            "Your batch has the key 'label', and forward reads 'labels': it finds 0 labels and returns no loss.",
            "section 2",
        ),
        Misconception(
            "left-padding",
            _collate_left_padding,
            "Your padding is on the left, so a row with 1 pad has every word 1 position too far right; without "
            "position_ids that changes GPT-2's logits.",
            "section 8, padding sides",
        ),
        Misconception(
            "pad-id-ignored",
            lambda rows, pad_id: _collate(rows, 0),
            "You pad with 0 whatever pad_id is; with pad_id 102, a GPT-2 classifier takes your 0 for the last real "
            "token.",
            "section 8",
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
# 05.stock_loss


def _random_classification(generator: Generator) -> Inputs:
    return torch.randn(4, 3, generator=generator), torch.randint(0, 3, (4,), generator=generator)


def _stock_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Squared error, binary or plain cross-entropy, by the number of outputs and the dtype of the labels."""
    if logits.shape[1] == 1:
        return F.mse_loss(logits.squeeze(-1), labels.float())
    if labels.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels)


def _stock_loss_float_labels_are_soft_labels(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return _stock_loss(logits, labels)
    return F.cross_entropy(logits, labels)


def _stock_loss_one_output_is_binary(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits.squeeze(-1), labels.float())
    return _stock_loss(logits, labels)


def _stock_loss_broadcast_squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return (logits - labels.float()).square().mean()
    return _stock_loss(logits, labels)


STOCK_LOSS = Exercise(
    id="05.stock_loss",
    title="What forward computes",
    difficulty=2,
    minutes=6,
    examples=[
        (torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])),
        (torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])),
        (torch.tensor([[2.0], [0.5]]), torch.tensor([0.0, 1.0])),
        (torch.tensor([[2.0], [0.5]]), torch.tensor([0, 1])),
    ],
    random_inputs=_random_classification,
    reference=_stock_loss,
    gradient=True,
    misconceptions=[
        Misconception(
            "always-cross-entropy",
            F.cross_entropy,
            "Cross-entropy in every case: with 1 output it gives 0 or an error, where a stock model computes a squared "
            "error.",
            "section 3",
        ),
        Misconception(
            "float-labels-are-soft-labels",
            _stock_loss_float_labels_are_soft_labels,
            "You take float rows for soft labels; forward takes them for 2 questions with a sigmoid each: 0.71, not "
            "0.72, on our second example.",
            "section 3",
        ),
        Misconception(
            "one-output-is-binary",
            _stock_loss_one_output_is_binary,
            "You take 1 output for a yes-or-no classifier; num_labels=1 is regression, with a squared error.",
            "section 3",
        ),
        Misconception(
            "broadcast-squared-error",
            _stock_loss_broadcast_squared_error,
            "(N, 1) minus (N,) is (N, N): you average 4 differences for 2 rows. Squeeze the logits first.",
            "section 3; lesson 06 on broadcasting",
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
    minutes=8,
    examples=[
        (torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), 8, 4),
        (torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, -100]), 7, 4),
        (torch.tensor([[2.0, 0.0]]), torch.tensor([1]), 7, 4),
    ],
    random_inputs=_random_micro_batch,
    reference=_share,
    gradient=True,
    misconceptions=[
        Misconception(
            "mean",
            lambda logits, labels, items, steps: F.cross_entropy(logits, labels),
            "You return the mean of the piece: 4 equal pieces add up to 4 times the loss of the whole step.",
            "section 5",
        ),
        Misconception(
            "mean-over-steps",
            lambda logits, labels, items, steps: F.cross_entropy(logits, labels) / steps,
            "You divide the mean by the number of pieces: right for 4 equal pieces, but in 2+2+2+1 rows the single one "
            "weighs twice as much.",
            "section 5, uneven pieces",
        ),
        Misconception(
            "divided-twice",
            lambda logits, labels, items, steps: F.cross_entropy(logits, labels) / items,
            "You divide by the rows twice, as a mean and by items: 2 labelled rows give half of our loss.",
            "section 5",
        ),
        Misconception(
            "unlabelled-rows-counted",
            _share_unlabelled_rows_counted,
            "You divide by rows × pieces, so a row with label -100 counts, and 4 pieces with 7 labels are taken for 8.",
            "section 5, two counts",
        ),
        Misconception(
            "share-divided-by-steps",
            lambda logits, labels, items, steps: _share(logits, labels, items, steps) / steps,
            "Yours is right, divided once more by the number of pieces: a quarter of ours at 4.",
            "section 5, loss_is_scaled_for_ga",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 05.split

IDS = ("input_ids", "attention_mask")


def _batch(generator: Generator, *names: str) -> Batch:
    return {name: torch.randint(0, 99, (2, 3), generator=generator) for name in names}


def _random_batch(generator: Generator) -> Inputs:
    return (_batch(generator, *IDS, "labels", "teacher_input_ids", "teacher_attention_mask"),)


def _split(inputs: Batch) -> tuple[Batch, Batch]:
    """What the student reads, and what the teacher reads."""
    student = {name: value for name, value in inputs.items() if name != "labels" and not name.startswith("teacher_")}
    own = {name.removeprefix("teacher_"): value for name, value in inputs.items() if name.startswith("teacher_")}
    own.pop("logits", None)
    return student, own or student


def _split_labels_left_in(inputs: Batch) -> tuple[Batch, Batch]:
    student, teacher = _split(inputs)
    labels = {name: inputs[name] for name in ("labels",) if name in inputs}
    return student | labels, teacher | labels


def _split_labels_popped(inputs: Batch) -> tuple[Batch, Batch]:
    inputs.pop("labels", None)
    return _split(inputs)


def _split_student_ids_for_both(inputs: Batch) -> tuple[Batch, Batch]:
    student, _ = _split(inputs)
    return student, student


def _split_prefix_kept(inputs: Batch) -> tuple[Batch, Batch]:
    student, teacher = _split(inputs)
    own = {name: inputs[name] for name in inputs if name.startswith("teacher_") and name != "teacher_logits"}
    return student, own or teacher


def _split_everything_to_both(inputs: Batch) -> tuple[Batch, Batch]:
    everything = {name: value for name, value in inputs.items() if name != "labels"}
    return everything, everything


SPLIT = Exercise(
    id="05.split",
    title="To each its own",
    difficulty=2,
    minutes=8,
    examples=[
        (_batch(Generator().manual_seed(10), *IDS, "labels"),),
        (_batch(Generator().manual_seed(11), *IDS, "labels", "teacher_logits"),),
        (_batch(Generator().manual_seed(12), *IDS, "labels", "teacher_input_ids", "teacher_token_type_ids"),),
    ],
    random_inputs=_random_batch,
    reference=_split,
    misconceptions=[
        Misconception(
            "labels-left-in",
            _split_labels_left_in,
            "The labels are still in: forward then computes a cross-entropy of its own, so there are 2 hard losses, "
            "one of them without smoothing.",
            "sections 3 and 11",
        ),
        Misconception(
            "labels-popped",
            _split_labels_popped,
            "Your function takes 'labels' out of the batch itself: after 1 call, whoever reads inputs['labels'] next "
            "finds none.",
            "section 11, the hand-built trainer",
        ),
        Misconception(
            "student-ids-for-both",
            _split_student_ids_for_both,
            "Your teacher reads the student's ids, though the batch has teacher_input_ids: 1 tokenizer's ids are "
            "another's words.",
            "section 9",
        ),
        Misconception(
            "prefix-kept",
            _split_prefix_kept,
            "Your teacher's arguments are still called teacher_input_ids: **kwargs swallows them, and it gets 0 ids.",
            "section 9, swallowed columns",
        ),
        Misconception(
            "everything-to-both",
            _split_everything_to_both,
            "Both models get the teacher's columns as well; a stock forward swallows all of them in **kwargs, a "
            "million times too large or not.",
            "section 9, swallowed columns",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 05.kept

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
    id="05.kept",
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
            "section 1",
        ),
        Misconception(
            "kwargs-let-all-through",
            _kept_kwargs_let_all_through,
            "You let **kwargs keep all 7 columns; to the Trainer it is 1 parameter with the name kwargs.",
            "section 9, the wrapper",
        ),
        Misconception(
            "labels-always-kept",
            lambda columns, forward, label_names: _kept(columns, forward, [*label_names, "labels"]),
            "You always keep `labels`; a wrapper that takes it in **kwargs has 0 label_names, and it is dropped.",
            "section 9, the wrapper",
        ),
        Misconception(
            "order-of-forward",
            _kept_order_of_forward,
            "You keep the right columns in the order of forward's parameters; the dataset's order was asked for.",
            "exercise 05.kept, the task",
        ),
    ],
)


EXERCISES = [COLLATE, STOCK_LOSS, SHARE, SPLIT, KEPT]
