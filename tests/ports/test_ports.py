"""Three scripts that others wrote, and their ports: how much changes, and whether the first step is what it should be.

`before_….py` does in its users' idiom what the page or the example does that its head names; `after_….py` is the port.
What is compared with a logged loss is the formula in float64 (`objective_reference`), on the logits that the models
gave in that step and on labels that the test knows from the data.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import layout
import numpy as np
import pytest
import torch
from changes import HERE, SCRIPTS, removed, table, written
from objective_reference import lm_objective, objective
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

PAGE = HERE.parents[1] / "docs" / "porting.md"
LINES = 5
SECONDS = 300
OFFLINE = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}

deep = [
    pytest.mark.slow,
    pytest.mark.skipif("KDCOURSE_DEEP" not in os.environ, reason="seven trainings in processes: make test-deep"),
]
needs_trl = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None, reason="TRL is not installed: pip install --no-deps trl==1.16.0"
)


class Run(NamedTuple):
    """What a script left behind."""

    answers: dict
    logs: list
    output: Path

    @property
    def first(self):
        """The log of the first step."""
        return self.logs[0]


def run(script, folder, *arguments):
    """Run a script in a folder; its output goes to a folder of the script's name in there."""
    done = subprocess.run(
        [sys.executable, HERE / "watched.py", folder / script, HERE / f"{script}.py", *map(str, arguments)],
        cwd=folder, env=os.environ | OFFLINE, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    logs = json.loads((folder / f"{script}.json").read_text(encoding="utf-8"))
    return Run(load_file(folder / f"{script}.safetensors"), logs, folder / script)


def double(answers, role):
    return answers[f"{role}.logits"].double().numpy()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_port_is_five_lines(name):
    """A library that is a rewrite. Of the vision guide, the whole trainer goes; nothing else does without a line."""
    assert 0 < written(name) <= LINES
    if name != "image_distillation":
        assert removed(name) <= LINES


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_page_shows_the_ports_as_they_are(name):
    """Documentation of an older port: `python tests/ports/changes.py` prints the tables."""
    page = PAGE.read_text(encoding="utf-8")
    assert table(name) in page
    assert f"{written(name)} lines written" in page
