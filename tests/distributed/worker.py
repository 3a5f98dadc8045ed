"""What each process of a distributed test runs: one step and one evaluation per shape, saved by the first process."""

import sys
from pathlib import Path

import torch
from shapes import SHAPES, make_prompted_rows, make_rows, make_trainer, weights_of
from transformers import DataCollatorWithFlattening

from kdcourse import OnPolicy

LOGGED = ("loss", "hard_loss", "soft_loss", "eval_loss", "eval_hard_loss", "eval_soft_loss")
EVAL_ROWS = 13

WRAPPED = {
    "unused weights are looked for": {"ddp_find_unused_parameters": True},
    "no unused weights are looked for": {"ddp_find_unused_parameters": False},
    "the graph is static": {"ddp_find_unused_parameters": False, "ddp_static_graph": True},
}  # fmt: skip
"""Settings of DDP that look through the graph of a model's outputs, in which a head's weights have to be."""


def train_all(folder, batch, accumulation):
    results = {}
    for shape in SHAPES:
        trainer = make_trainer(
            shape, folder, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
            eval_rows=make_rows(shape, EVAL_ROWS, seed=1), per_device_eval_batch_size=4,
        )  # fmt: skip
        trainer.train()
        trainer.evaluate()
        logged = {name: value for log in trainer.state.log_history for name, value in log.items() if name in LOGGED}
        student = trainer.accelerator.unwrap_model(trainer.model)
        results[shape] = {"weights": weights_of(student), **{name: torch.tensor(logged[name]) for name in LOGGED}}
    for name, settings in WRAPPED.items():
        trainer = make_trainer("llama-lm", folder, per_device_train_batch_size=batch * accumulation, **settings)
        trainer.train()
        assert trainer.students_head.is_seen
        results[name] = {"weights": weights_of(trainer.accelerator.unwrap_model(trainer.model))}
    results["writing"] = write(folder, batch, accumulation)
    results["packed"] = {"eval_loss": torch.tensor(evaluate_packed(folder))}
    return results


def write(folder, batch, accumulation):
    """Steps on the data's text, and on what the student writes itself: each process, its own rows."""
    trainer = make_trainer(
        "gpt2-lm", folder, rows=make_prompted_rows(), per_device_train_batch_size=batch, max_steps=4,
        gradient_accumulation_steps=accumulation, on_policy=OnPolicy(share=0.5, max_new_tokens=5),
    )  # fmt: skip
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    on_own_text = ["hard_loss" not in log for log in trainer.state.log_history if "loss" in log]
    student = trainer.accelerator.unwrap_model(trainer.model)
    return {
        "weights": weights_of(student), "losses": torch.tensor(losses), "on_own_text": torch.tensor(on_own_text),
    }  # fmt: skip


def evaluate_packed(folder):
    """The texts of a batch in one row: what fills up the last batch is inside a row, not a row of its own."""
    texts = make_rows("llama-lm", EVAL_ROWS, seed=1).remove_columns(["labels", "attention_mask"])
    trainer = make_trainer(
        "llama-lm", folder, rows=texts, eval_rows=texts, per_device_eval_batch_size=4,
        collator=DataCollatorWithFlattening(return_position_ids=True),
    )  # fmt: skip
    return trainer.evaluate()["eval_loss"]


if __name__ == "__main__":
    out, batch, accumulation = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    results = train_all(out.parent, batch, accumulation)
    if torch.distributed.get_rank() == 0:
        torch.save(results, out)
    torch.distributed.destroy_process_group()
