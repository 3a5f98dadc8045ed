"""What each of two processes runs: one step and one evaluation of a student whose weights are spread over both.

The settings of FSDP2 are those that `accelerate launch` puts into the environment.
"""

import os
import sys
from pathlib import Path

import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from shapes import make_model, make_rows, make_trainer
from torch.distributed.tensor import DTensor

from kdcourse.sharding import shard_teacher

BLOCKS = {"bert-classifier": "BertLayer", "llama-lm": "LlamaDecoderLayer"}
"""Each shape's module that is gathered at a time: what a user puts into the configuration for another student."""


def shard_on_cpu(trainer, block):
    """Have the Trainer take its way through FSDP2, which accelerate opens on accelerators only."""
    state = trainer.accelerator.state
    state.distributed_type = DistributedType.FSDP
    os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = block
    state.fsdp_plugin = FullyShardedDataParallelPlugin()
    assert state.fsdp_plugin.fsdp_version == 2
    trainer.is_fsdp_enabled = True


def is_piece(weight):
    """Whether this process holds a part of a weight, and not all of it."""
    return isinstance(weight, DTensor) and weight.to_local().numel() < weight.numel()


def whole(weights):
    """All weights of all processes, one behind the other."""
    return torch.cat(
        [(weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().flatten() for weight in weights]
    )


def train_sharded(shape, folder, is_teacher_sharded):
    teacher = make_model(shape, seed=1, dropout=0.1)
    trainer = make_trainer(
        shape, folder, per_device_train_batch_size=4, gradient_accumulation_steps=2,
        eval_rows=make_rows(shape, 13, seed=1), per_device_eval_batch_size=4,
        teacher=shard_teacher(teacher) if is_teacher_sharded else teacher,
    )  # fmt: skip
    # Weights are looked at where they are in pieces: a forward pass leaves the last ones that it has gathered whole.
    teachers = list(trainer.teacher.model.parameters())
    assert all(is_piece(weight) == is_teacher_sharded for weight in teachers)
    shard_on_cpu(trainer, BLOCKS[shape])
    trainer.train()
    students = list(trainer.accelerator.unwrap_model(trainer.model).parameters())
    assert all(map(is_piece, students))
    assert not trainer.students_head.is_seen
    logged = trainer.state.log_history[0] | trainer.evaluate()
    trainer.accelerator.state.distributed_type = DistributedType.MULTI_CPU  # as the next trainer expects it
    return {"weights": whole(students), "teacher": whole(teachers)} | {
        name: torch.tensor(value) for name, value in logged.items() if name.endswith("loss")
    }


if __name__ == "__main__":
    out = Path(sys.argv[1])
    torch.distributed.init_process_group("gloo")
    results = {
        (shape, is_teacher_sharded): train_sharded(shape, out.parent, is_teacher_sharded)
        for shape in BLOCKS
        for is_teacher_sharded in (False, True)
    }
    if torch.distributed.get_rank() == 0:
        torch.save(results, out)
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    # torch keeps FSDP2's groups until Python has ended, and now and then aborts while it takes down their threads.
    os._exit(0)
