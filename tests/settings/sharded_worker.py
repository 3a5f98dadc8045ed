"""What each of two processes runs: one step and one evaluation of a student whose weights are spread over both."""

import os
import sys
from pathlib import Path

import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from shapes import make_rows, make_trainer
from torch.distributed.tensor import DTensor

BLOCKS = {"bert-classifier": "BertLayer", "llama-lm": "LlamaDecoderLayer"}
"""Each shape's module that is gathered at a time."""


def shard_on_cpu(trainer, block):
    """Have the Trainer take its way through FSDP2, which accelerate opens on accelerators only."""
    state = trainer.accelerator.state
    state.distributed_type = DistributedType.FSDP
    state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=[block],
        cpu_ram_efficient_loading=False,
    )  # fmt: skip
    trainer.is_fsdp_enabled = True


def train_sharded(shape, folder):
    trainer = make_trainer(
        shape, folder, per_device_train_batch_size=4, gradient_accumulation_steps=2,
        eval_rows=make_rows(shape, 13, seed=1), per_device_eval_batch_size=4,
    )  # fmt: skip
    shard_on_cpu(trainer, BLOCKS[shape])
    trainer.train()
    weights = list(trainer.accelerator.unwrap_model(trainer.model).parameters())
    assert not trainer.students_head.is_seen
    assert all(isinstance(weight, DTensor) and weight.to_local().numel() < weight.numel() for weight in weights)
    logged = trainer.state.log_history[0] | trainer.evaluate()
    trainer.accelerator.state.distributed_type = DistributedType.MULTI_CPU  # as the next trainer expects it
    return {
        "weights": torch.cat([weight.full_tensor().detach().flatten() for weight in weights]),
        "teacher is whole": torch.tensor(
            not any(isinstance(weight, DTensor) for weight in trainer.teacher.model.parameters())
        ),
    } | {name: torch.tensor(value) for name, value in logged.items() if name.endswith("loss")}


if __name__ == "__main__":
    out = Path(sys.argv[1])
    results = {shape: train_sharded(shape, out.parent) for shape in BLOCKS}
    if torch.distributed.get_rank() == 0:
        torch.save(results, out)
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    # torch keeps FSDP2's groups until Python has ended, and now and then aborts while it takes down their threads.
    os._exit(0)
