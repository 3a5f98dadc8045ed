"""What each process of a distributed test of other tasks and of streams runs: steps in float64, saved by the first."""

import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from shapes import TRAINERS_OWN, make_model, make_rows, make_trainer, weights_of
from test_decoders import MAKERS, make, make_examples, padded, trainer_of

LOSSES = ("loss", "hard_loss", "soft_loss", "eval_loss", "eval_hard_loss", "eval_soft_loss")

STREAM, ROWS, ABSENT = "llama-lm", 22, 7
DEALT_OUT = {"dispatched": None, "each its own": False}
"""Whether the first process reads a stream and deals its batches out (as Accelerate does unless told otherwise)."""


def outcome(trainer):
    logged = [log[name] for log in trainer.state.log_history for name in LOSSES if name in log]
    weights = weights_of(trainer.accelerator.unwrap_model(trainer.model))
    return {"weights": weights, "losses": torch.tensor(logged, dtype=torch.float64)}


def train_tasks(folder, batch, accumulation):
    results = {}
    for name in MAKERS:
        rows = Dataset.from_list(make_examples(name, 13))
        trainer = trainer_of(
            name, folder, student=make(name).double(), teacher=make(name, 1).double(), eval_rows=rows,
            collator=in_float64(name), per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
            per_device_eval_batch_size=4, max_steps=2,
        )  # fmt: skip
        trainer.train()
        trainer.evaluate()
        results[name] = outcome(trainer)
    return results


def in_float64(name):
    """Recordings are, as the models are; texts have the trainer's own collator."""

    def collate(rows):
        return {column: each.double() if each.is_floating_point() else each for column, each in padded(rows).items()}

    return TRAINERS_OWN if name in ("t5", "bart") else collate


def even(row):
    """A row of 14 tokens: batches that are dealt out are put together first, and have to be of one length."""
    ids = (row["input_ids"] * 5)[:14]
    return {"input_ids": ids, "attention_mask": [1] * 14, "labels": [-100, *ids[1:]]}


def train_streams(folder, batch, accumulation):
    """Passes of 11 micro-batches of two rows, and steps of two micro-batches: one is left at the first pass's end."""
    results, rows = {}, make_rows(STREAM, ROWS)
    for name, dispatch in DEALT_OUT.items():
        trainer = make_trainer(
            STREAM, folder, student=make_model(STREAM).double(), teacher=make_model(STREAM, seed=1).double(),
            rows=(rows.map(even) if dispatch is None else rows).to_iterable_dataset(),
            per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_steps=8,
            accelerator_config={"dispatch_batches": dispatch},
        )  # fmt: skip
        trainer.train()
        results[name] = outcome(trainer)
    return results


def train_parts(folder):
    """A stream in two parts, one for each process, of which one is longer by a step."""
    stream = make_rows(STREAM, ROWS).to_iterable_dataset(num_shards=2)
    stream = stream.filter(lambda row: len(row["input_ids"]) != ABSENT)
    trainer = make_trainer(
        STREAM, folder, rows=stream, per_device_train_batch_size=1, gradient_accumulation_steps=2, max_steps=12,
        accelerator_config={"dispatch_batches": False},
    )  # fmt: skip
    trainer.train()
    with pytest.raises(ValueError, match="evaluated rows are a stream and dispatch_batches is False"):
        trainer.evaluate(stream)
    return {"steps": trainer.state.global_step}


def train_all(folder, batch, accumulation):
    return {"tasks": train_tasks(folder, batch, accumulation), "streams": train_streams(folder, max(batch // 8, 1), 2)}


if __name__ == "__main__":
    out, batch, accumulation = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    results = train_all(out.parent, batch, accumulation) | {"parts": train_parts(out.parent)}
    if torch.distributed.get_rank() == 0:
        torch.save(results, out)
    torch.distributed.destroy_process_group()
