"""Runs a script as its user would, and keeps what its models answered at the first step and what its trainer logged.

    python watched.py RECORD SCRIPT ARGUMENTS…

A model in train mode is the student; one that answers in eval mode is the teacher, if the script has one. Their first
batch goes to RECORD.safetensors (`student.logits`, `student.input_ids`, `teacher.logits` …), and the logs to
RECORD.json. Nothing is changed but the seed, for scripts that draw a student without one.
"""

import json
import runpy
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, Trainer, set_seed

answers: dict[str, torch.Tensor] = {}
logs: list[dict[str, float]] = []


def keep_answer(model, args, kwargs, outputs):
    role = "student" if model.training else "teacher"
    if not isinstance(model, PreTrainedModel) or f"{role}.logits" in answers or not hasattr(outputs, "logits"):
        return
    seen = {name: value for name, value in kwargs.items() if isinstance(value, torch.Tensor)}
    answers.update({f"{role}.{name}": value.detach().clone() for name, value in seen.items()})
    answers[f"{role}.logits"] = outputs.logits.detach().clone()


log_as_before = Trainer.log


def keep_log(self, values, *args, **kwargs):
    logs.append(dict(values))
    log_as_before(self, values, *args, **kwargs)


record, script, *arguments = sys.argv[1:]
torch.nn.modules.module.register_module_forward_hook(keep_answer, with_kwargs=True)
Trainer.log = keep_log
set_seed(0)
sys.argv = [script, *arguments]
runpy.run_path(script, run_name="__main__")
save_file(answers, f"{record}.safetensors")
Path(f"{record}.json").write_text(json.dumps(logs), encoding="utf-8")
