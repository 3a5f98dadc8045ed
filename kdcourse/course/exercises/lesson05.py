"""Lesson 05: what is in a batch, what the model's forward makes of it, and what a training step divides by."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor

from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception

Rows = Sequence[dict[str, Any]]
Batch = dict[str, Tensor]
Forward = Callable[..., Any]

PAD, END = 0, 102


def collate(rows: Rows, pad_id: int) -> Batch:
    """Padded on the right to the longest row, with a mask by position."""
    longest = max(len(row["input_ids"]) for row in rows)
    gaps = [longest - len(row["input_ids"]) for row in rows]
    return {
        "input_ids": torch.tensor([row["input_ids"] + [pad_id] * gap for row, gap in zip(rows, gaps, strict=True)]),
        "attention_mask": torch.tensor([[1] * (longest - gap) + [0] * gap for gap in gaps]),
        "labels": torch.tensor([row["label"] for row in rows]),
    }


def _collate_mask_by_id(rows: Rows, pad_id: int) -> Batch:
    batch = collate(rows, pad_id)
    return batch | {"attention_mask": (batch["input_ids"] != pad_id).long()}


def _collate_label_kept(rows: Rows, pad_id: int) -> Batch:
    batch = collate(rows, pad_id)
    batch["label"] = batch.pop("labels")
    return batch


def _collate_left(rows: Rows, pad_id: int) -> Batch:
    batch = collate(rows, pad_id)
    gaps = (batch["attention_mask"] == 0).sum(dim=1).tolist()
    for name in ("input_ids", "attention_mask"):
        batch[name] = torch.stack([row.roll(gap) for row, gap in zip(batch[name], gaps, strict=True)])
    return batch


def _collate_zeros(rows: Rows, pad_id: int) -> Batch:
    return collate(rows, 0)


def _collate_all_ones(rows: Rows, pad_id: int) -> Batch:
    batch = collate(rows, pad_id)
    return batch | {"attention_mask": torch.ones_like(batch["input_ids"])}


def _random_rows(generator: Generator) -> Inputs:
    lengths = [2, *torch.randint(3, 8, (3,), generator=generator).tolist()]
    rows = [
        {
            "input_ids": [*torch.randint(103, 999, (length,), generator=generator).tolist(), END],
            "label": int(torch.randint(0, 2, (1,), generator=generator)),
        }
        for length in lengths
    ]
    return (rows, END)


def stock_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Squared error, binary or plain cross-entropy, by the number of outputs and the dtype of the labels."""
    if logits.shape[1] == 1:
        return F.mse_loss(logits.squeeze(-1), labels.float())
    if labels.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels)


def _stock_always_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels)


def _stock_soft_labels(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return stock_loss(logits, labels)
    return F.cross_entropy(logits, labels)


def _stock_one_output_is_binary(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits.squeeze(-1), labels.float())
    return stock_loss(logits, labels)


def _stock_broadcast(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return (logits - labels.float()).square().mean()
    return stock_loss(logits, labels)


def _random_classification(generator: Generator) -> Inputs:
    return torch.randn(4, 3, generator=generator), torch.randint(0, 3, (4,), generator=generator)


def share(logits: Tensor, labels: Tensor, items: int, steps: int) -> Tensor:
    """Summed cross-entropy of the labelled rows over the labelled rows of the whole step."""
    return F.cross_entropy(logits, labels, reduction="sum") / items


def _share_mean(logits: Tensor, labels: Tensor, items: int, steps: int) -> Tensor:
    return F.cross_entropy(logits, labels)


def _share_mean_over_steps(logits: Tensor, labels: Tensor, items: int, steps: int) -> Tensor:
    return F.cross_entropy(logits, labels) / steps


def _share_divided_twice(logits: Tensor, labels: Tensor, items: int, steps: int) -> Tensor:
    return F.cross_entropy(logits, labels) / items


def _share_all_rows(logits: Tensor, labels: Tensor, items: int, steps: int) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum") / (len(labels) * steps)


def _share_also_by_steps(logits: Tensor, labels: Tensor, items: int, steps: int) -> Tensor:
    return share(logits, labels, items, steps) / steps


def _random_micro_batch(generator: Generator) -> Inputs:
    labels = torch.randint(0, 3, (4,), generator=generator)
    labels[0] = -100
    return torch.randn(4, 3, generator=generator), labels, 13, 4


def split(inputs: Batch) -> tuple[Batch, Batch]:
    """What the student reads, and what the teacher reads."""
    student = {name: value for name, value in inputs.items() if name != "labels" and not name.startswith("teacher_")}
    own = {name.removeprefix("teacher_"): value for name, value in inputs.items() if name.startswith("teacher_")}
    own.pop("logits", None)
    return student, own or student


def _split_labels_left_in(inputs: Batch) -> tuple[Batch, Batch]:
    student, teacher = split(inputs)
    labels = {name: inputs[name] for name in ("labels",) if name in inputs}
    return student | labels, teacher | labels


def _split_pops(inputs: Batch) -> tuple[Batch, Batch]:
    inputs.pop("labels", None)
    return split(inputs)


def _split_same_for_both(inputs: Batch) -> tuple[Batch, Batch]:
    student, _ = split(inputs)
    return student, student


def _split_prefix_kept(inputs: Batch) -> tuple[Batch, Batch]:
    student, teacher = split(inputs)
    own = {name: inputs[name] for name in inputs if name.startswith("teacher_") and name != "teacher_logits"}
    return student, own or teacher


def _split_everything(inputs: Batch) -> tuple[Batch, Batch]:
    everything = {name: value for name, value in inputs.items() if name != "labels"}
    return everything, everything


def _batch(generator: Generator, *names: str) -> Batch:
    return {name: torch.randint(0, 99, (2, 3), generator=generator) for name in names}


_IDS = ("input_ids", "attention_mask")


def _random_batch(generator: Generator) -> Inputs:
    return (_batch(generator, *_IDS, "labels", "teacher_input_ids", "teacher_attention_mask"),)


def kept(columns: Sequence[str], forward: Forward, label_names: Sequence[str]) -> list[str]:
    """The columns that forward names, and those that are known to be labels."""
    known = {*inspect.signature(forward).parameters, "label", "label_ids", *label_names}
    return [name for name in columns if name in known]


def _kept_only_named(columns: Sequence[str], forward: Forward, label_names: Sequence[str]) -> list[str]:
    return [name for name in columns if name in inspect.signature(forward).parameters]


def _kept_kwargs_take_all(columns: Sequence[str], forward: Forward, label_names: Sequence[str]) -> list[str]:
    kinds = [parameter.kind for parameter in inspect.signature(forward).parameters.values()]
    return list(columns) if inspect.Parameter.VAR_KEYWORD in kinds else kept(columns, forward, label_names)


def _kept_labels_always(columns: Sequence[str], forward: Forward, label_names: Sequence[str]) -> list[str]:
    return kept(columns, forward, [*label_names, "labels"])


def _kept_order_of_forward(columns: Sequence[str], forward: Forward, label_names: Sequence[str]) -> list[str]:
    known = dict.fromkeys([*inspect.signature(forward).parameters, "label", "label_ids", *label_names])
    return [name for name in known if name in columns]


def _bert_forward(input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, labels: Any = None,
                  **kwargs: Any) -> None: ...  # fmt: skip


def _distilbert_forward(
    input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **kwargs: Any
) -> None: ...


def _wrapped_forward(input_ids: Any, attention_mask: Any, **kwargs: Any) -> None: ...


_COLUMNS = ["text", "label", "labels", "attention_mask", "input_ids", "token_type_ids", "teacher_logits"]


def _random_columns(generator: Generator) -> Inputs:
    order = torch.randperm(len(_COLUMNS), generator=generator).tolist()[:5]
    return [_COLUMNS[index] for index in order], _wrapped_forward, ["labels"]


COLLATE = Exercise(
    id="05.collate",
    title="Your own collator",
    reference=collate,
    examples=[
        ([{"input_ids": [101, 7, 102], "label": 1}, {"input_ids": [101, 102], "label": 0}], PAD),
        ([{"input_ids": [101, 7, 102], "label": 1}, {"input_ids": [101, 102], "label": 0}], END),
    ],
    random_inputs=_random_rows,
    difficulty=1,
    minutes=6,
    hints=[
        "How many pads does each row need? The longest row's length, minus its own.",
        "The mask follows from the lengths, not from the ids.",
    ],
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
            _collate_label_kept,
            "Your batch has the key 'label', and forward reads 'labels': it finds 0 labels and returns no loss.",
            "section 2",
        ),
        Misconception(
            "left-padding",
            _collate_left,
            "Your padding stands on the left, so a row with 1 pad has every word 1 position too far right; without "
            "position_ids that changes GPT-2's logits.",
            "section 8, padding sides",
        ),
        Misconception(
            "pad-id-ignored",
            _collate_zeros,
            "You pad with 0 whatever pad_id is; with pad_id 102, a GPT-2 classifier takes your 0 for the last real "
            "token.",
            "section 8",
        ),
        Misconception(
            "mask-of-ones",
            _collate_all_ones,
            "Your mask is 1 everywhere, so 100% of the padding is read as words.",
            "section 1",
        ),
    ],
)

STOCK_LOSS = Exercise(
    id="05.stock_loss",
    title="What forward computes",
    reference=stock_loss,
    examples=[
        (torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])),
        (torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])),
        (torch.tensor([[2.0], [0.5]]), torch.tensor([0.0, 1.0])),
        (torch.tensor([[2.0], [0.5]]), torch.tensor([0, 1])),
    ],
    random_inputs=_random_classification,
    difficulty=2,
    minutes=6,
    hints=[
        "There are three cases; the number of columns is asked first.",
        "labels.is_floating_point() tells the other two apart.",
    ],
    misconceptions=[
        Misconception(
            "always-cross-entropy",
            _stock_always_cross_entropy,
            "Cross-entropy in every case: with 1 output it gives 0 or an error, where a stock model computes a squared "
            "error.",
            "section 3",
        ),
        Misconception(
            "float-labels-are-soft-labels",
            _stock_soft_labels,
            "You take float rows for soft labels; forward takes them for 2 questions with a sigmoid each: 0.71, not "
            "0.72, on our second example.",
            "section 3",
        ),
        Misconception(
            "one-output-is-binary",
            _stock_one_output_is_binary,
            "You take 1 output for a yes-or-no classifier; num_labels=1 is regression, with a squared error.",
            "section 3",
        ),
        Misconception(
            "broadcast-squared-error",
            _stock_broadcast,
            "(N, 1) minus (N,) is (N, N): you average 4 differences for 2 rows. Squeeze the logits first.",
            "section 3; lesson 06 on broadcasting",
        ),
    ],
    gradient=True,
)

SHARE = Exercise(
    id="05.share",
    title="A micro-batch's share",
    reference=share,
    examples=[
        (torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), 8, 4),
        (torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, -100]), 7, 4),
        (torch.tensor([[2.0, 0.0]]), torch.tensor([1]), 7, 4),
    ],
    random_inputs=_random_micro_batch,
    difficulty=2,
    minutes=8,
    hints=[
        "Is `steps` needed at all, if micro-batches are not equally long?",
        'F.cross_entropy(..., reduction="sum") skips -100; divide it by the right count.',
    ],
    misconceptions=[
        Misconception(
            "mean",
            _share_mean,
            "You return the mean of the piece: 4 equal pieces add up to 4 times the loss of the whole step.",
            "section 5",
        ),
        Misconception(
            "mean-over-steps",
            _share_mean_over_steps,
            "You divide the mean by the number of pieces: right for 4 equal pieces, but in 2+2+2+1 rows the single one "
            "weighs twice as much.",
            "section 5, uneven pieces",
        ),
        Misconception(
            "divided-twice",
            _share_divided_twice,
            "You divide by the rows twice, as a mean and by items: 2 labelled rows give half of our loss.",
            "section 5",
        ),
        Misconception(
            "unlabelled-rows-counted",
            _share_all_rows,
            "You divide by rows × pieces, so a row with label -100 counts, and 4 pieces with 7 labels are taken for 8.",
            "section 5, two counts",
        ),
        Misconception(
            "share-divided-by-steps",
            _share_also_by_steps,
            "Yours is right, divided once more by the number of pieces: a quarter of ours at 4.",
            "section 5, loss_is_scaled_for_ga",
        ),
    ],
    gradient=True,
)

SPLIT = Exercise(
    id="05.split",
    title="To each its own",
    reference=split,
    examples=[
        (_batch(Generator().manual_seed(10), *_IDS, "labels"),),
        (_batch(Generator().manual_seed(11), *_IDS, "labels", "teacher_logits"),),
        (_batch(Generator().manual_seed(12), *_IDS, "labels", "teacher_input_ids", "teacher_token_type_ids"),),
    ],
    random_inputs=_random_batch,
    difficulty=2,
    minutes=8,
    hints=[
        "Two dict comprehensions; `pop` would take the labels away from whoever comes next.",
        "Drop the prefix, drop logits, and fall back on the student's dict if nothing is left.",
    ],
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
            _split_pops,
            "Your function takes 'labels' out of the batch itself: after 1 call, whoever reads inputs['labels'] next "
            "finds none.",
            "section 11, the hand-built trainer",
        ),
        Misconception(
            "student-ids-for-both",
            _split_same_for_both,
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
            _split_everything,
            "Both models get the teacher's columns as well; a stock forward swallows all of them in **kwargs, a "
            "million times too large or not.",
            "section 9, swallowed columns",
        ),
    ],
)

KEPT = Exercise(
    id="05.kept",
    title="Which columns survive?",
    reference=kept,
    examples=[
        (["label", "input_ids", "text"], _wrapped_forward, []),
        (_COLUMNS, _wrapped_forward, []),
        (_COLUMNS, _distilbert_forward, ["labels"]),
        (_COLUMNS, _bert_forward, ["labels"]),
    ],
    random_inputs=_random_columns,
    difficulty=3,
    minutes=10,
    hints=[
        "inspect.signature(forward).parameters has the names.",
        "**kwargs counts as one parameter that is called kwargs; label and label_ids are always known, labels is not.",
    ],
    misconceptions=[
        Misconception(
            "only-what-forward-names",
            _kept_only_named,
            "You drop `label`, which no forward here names: it is 1 of 2 names that the Trainer always keeps for the "
            "collator.",
            "section 1",
        ),
        Misconception(
            "kwargs-let-all-through",
            _kept_kwargs_take_all,
            "You let **kwargs keep all 7 columns; to the Trainer it is 1 parameter with the name kwargs.",
            "section 9, the wrapper",
        ),
        Misconception(
            "labels-always-kept",
            _kept_labels_always,
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
