"""The library stands alone: what it asks for, what it loads, and how long that takes."""

import importlib.metadata
import json
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DIRECT, ALL = 12, 50
"""The most packages that `pip install kdcourse` may name, and bring."""
SLOWER = 0.3
"""Seconds that an import may take beyond what it cannot do without."""


def requirements(name, extras=frozenset()):
    """What a package asks for on this platform, with these of its extras."""
    for requirement in map(Requirement, importlib.metadata.requires(name) or []):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield requirement


def closure(name, extras=frozenset(), found=None):
    """All packages that come with one, itself included."""
    found = {} if found is None else found
    known = found.setdefault(canonicalize_name(name), set())
    if known >= extras and known:
        return found
    known |= {"", *extras}
    for requirement in requirements(name, extras):
        closure(requirement.name, frozenset(requirement.extras), found)
    return found


def modules_after(statement):
    """The modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_library_asks_for_little():
    """JupyterLab and pytest for somebody who wants a loss: 163 packages and 2 GB."""
    direct = {requirement.name for requirement in requirements("kdcourse")}
    assert len(direct) <= DIRECT
    assert not direct & {"jupyterlab", "papermill", "pytest", "datasets", "matplotlib", "typer"}
    # A virtual environment has pip, too. On Linux, builds of torch for a GPU bring NVIDIA's own packages besides.
    brought = {name for name in closure("kdcourse") if not name.startswith(("nvidia", "cuda", "triton"))}
    assert len(brought | {"pip"}) <= ALL


def test_the_course_is_what_the_other_packages_are_for():
    """An extra that forgets what the lessons import."""
    assert {"jupyterlab", "papermill", "datasets", "matplotlib"} <= closure("kdcourse", frozenset({"course"})).keys()


def test_the_trainer_loads_no_other_wing():
    """An import that finds the assets' folder and the reviews' loader on its way."""
    of_ours = {
        name for name in modules_after("from kdcourse import DistillationTrainer") if name.startswith("kdcourse")
    }
    assert "kdcourse.trainer" in of_ours
    assert not {name for name in of_ours if name.startswith(("kdcourse.labs", "kdcourse.course"))}


def test_the_trainer_loads_nothing_but_transformers_and_itself():
    """A package that is in the course's environment by chance, and missing in a practitioner's."""
    theirs = modules_after("from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments")
    ours = modules_after("from kdcourse import DistillationTrainer")
    assert {name.partition(".")[0] for name in ours - theirs} == {"kdcourse"}


@pytest.mark.parametrize(
    ("needed", "ours"),
    [
        ("import torch", "import kdcourse"),
        ("import torch", "from kdcourse import distillation_loss"),
        ("from transformers import PreTrainedTokenizerBase, Trainer", "from kdcourse import DistillationTrainer"),
    ],
)
def test_an_import_takes_hardly_longer_than_what_it_needs(needed, ours):
    """Seconds of waiting for modules that a step does not use."""
    code = f"{needed}\nimport time\nstarted = time.perf_counter()\n{ours}\nprint(time.perf_counter() - started)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert float(done.stdout.splitlines()[-1]) <= SLOWER
