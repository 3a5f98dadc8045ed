"""An experiment that may be killed in the middle of an arm; arguments: folder, and `kill` or `whole`."""

import os
import signal
import sys
from pathlib import Path

import torch
from datasets import Dataset
from shapes import make_model, make_rows, make_tokenizer

from kdcourse.labs import experiments
from kdcourse.labs.experiments import Arm, Budget, Experiment
from kdcourse.trainer import DistillationTrainer

SHAPE = "gpt2-classifier"
BUDGET = Budget(steps=12, batch_size=4, learning_rate=1e-2)
DIES_AT = 20
"""In the second run, two steps after its second checkpoint."""


class Mortal(DistillationTrainer):
    """Killed with SIGKILL before a step: no handler runs, nothing is saved."""

    steps = 0

    def training_step(self, *args, **kwargs):
        Mortal.steps += 1
        if Mortal.steps == DIES_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(*args, **kwargs)


def make_arms():
    rows = make_rows(SHAPE, 32)
    columns = {"input_ids": rows["input_ids"], "attention_mask": rows["attention_mask"], "label": rows["labels"]}
    logits = torch.randn(32, 3, generator=torch.Generator().manual_seed(0)).tolist()
    taught = Dataset.from_dict(columns | {"teacher_logits": logits})
    return [Arm("both voices", taught, 0.5), Arm("teacher", taught, 0.0)]


def make_experiment(folder, **changes):
    settings = {
        "budget": BUDGET, "make_student": lambda seed: make_model(SHAPE, seed=seed, dropout=0.1),
        "tokenizer": make_tokenizer(), "tests": {"test": make_rows(SHAPE, 8, seed=1)},
    }  # fmt: skip
    return Experiment(folder, **settings | changes)


if __name__ == "__main__":
    torch.set_num_threads(1)
    experiments.DistillationTrainer = Mortal if sys.argv[2] == "kill" else DistillationTrainer
    experiment = make_experiment(Path(sys.argv[1]))
    for arm in make_arms():
        for seed in range(2):
            experiment.run(arm, seed)
