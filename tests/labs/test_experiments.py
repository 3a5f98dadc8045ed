"""Arms of an experiment: nothing is trained twice, nothing is half there, and nothing is taken for something else."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from killed_experiment import BUDGET, SHAPE, make_arms, make_experiment
from safetensors.torch import load_file
from shapes import make_model, make_rows
from transformers import Trainer

from kdcourse.checkpoints import ORDER, last_checkpoint
from kdcourse.labs import experiments
from kdcourse.labs.experiments import Arm

TESTS = Path(__file__).parents[1]


def run_worker(folder, mode):
    return subprocess.run(
        [sys.executable, str(TESTS / "killed_experiment.py"), str(folder), mode],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def finished(folder):
    """The runs that a reader of the folder sees."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def contents(folder):
    """Weights and answers of every finished run."""
    return {
        (name, file, tensor): values
        for name in finished(folder)
        for file in ("model.safetensors", experiments.LOGITS_FILE)
        for tensor, values in load_file(folder / name / file).items()
    }


@pytest.mark.slow
def test_an_experiment_that_is_killed_goes_on_where_it_was(tmp_path):
    """Arms that are trained again, half a run under the name of a whole one, or another student after the break."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_worker(whole, "whole").returncode == 0
    assert run_worker(killed, "kill").returncode == -signal.SIGKILL
    assert len(finished(killed)) == 1
    checkpoints = [path.name for path in killed.glob(".*/checkpoints/checkpoint-*")]
    assert checkpoints == ["checkpoint-6"]
    kept = (killed / finished(killed)[0] / "model.safetensors").stat().st_mtime_ns
    again = run_worker(killed, "whole")
    assert again.returncode == 0, again.stderr[-3000:]
    assert (killed / finished(whole)[0] / "model.safetensors").stat().st_mtime_ns == kept
    assert finished(killed) == finished(whole)
    assert len(finished(whole)) == 4
    expected, found = contents(whole), contents(killed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert not [path for path in killed.glob(".*") if path.is_dir()]


@pytest.fixture
def counted(monkeypatch):
    """How often anything was trained."""
    trained = []
    train = Trainer.train
    monkeypatch.setattr(Trainer, "train", lambda self, **kwargs: (trained.append(1), train(self, **kwargs)))
    return trained


def test_what_is_finished_is_not_trained_again(tmp_path, counted):
    """An hour of training for a figure's colour."""
    (arm, _), experiment = make_arms(), make_experiment(tmp_path)
    first, again = experiment.run(arm, 0), experiment.run(arm, 0)
    assert len(counted) == 1
    assert torch.equal(first.logits["test"], again.logits["test"])
    assert first.cost == again.cost
    assert first.cost["seconds"] > 0


CHANGES = {
    "another seed": lambda arm, experiment: (arm, experiment, 1),
    "another alpha": lambda arm, experiment: (replace(arm, alpha=0.6), experiment, 0),
    "fewer rows": lambda arm, experiment: (replace(arm, rows=arm.rows.select(range(31))), experiment, 0),
    "other logits": lambda arm, experiment: (
        replace(arm, rows=arm.rows.remove_columns("teacher_logits").add_column("teacher_logits", [[0.0] * 3] * 32)),
        experiment, 0,
    ),
    "another budget": lambda arm, experiment: (arm, replace(experiment, budget=replace(BUDGET, steps=13)), 0),
    "another student": lambda arm, experiment: (
        arm, replace(experiment, make_student=lambda seed: make_model(SHAPE, seed=7)), 0,
    ),
    "another test set": lambda arm, experiment: (
        arm, replace(experiment, tests={"test": make_rows(SHAPE, 8, seed=2)}), 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_whatever_changes_the_result_changes_the_fingerprint(tmp_path, counted, change):
    """The student of last week, under this week's settings."""
    (arm, _), experiment = make_arms(), make_experiment(tmp_path)
    experiment.run(arm, 0)
    changed, other, seed = change(arm, experiment)
    other.run(changed, seed)
    assert len(counted) == 2
    assert len(finished(tmp_path)) == 2


def test_a_student_that_is_loaded_gives_the_stored_answers(tmp_path):
    """Weights from before the last steps, or a model in training mode."""
    (arm, _), experiment = make_arms(), make_experiment(tmp_path)
    run = experiment.run(arm, 0)
    student = run.student()
    assert not student.training
    again = experiments.score(student, experiment.tokenizer, experiment.tests["test"])
    torch.testing.assert_close(again, run.logits["test"])


def test_answers_without_a_student_are_enough_until_somebody_asks_for_it(tmp_path, counted):
    """80 GB of students that nobody loads again, or a student that is promised and is not there."""
    (arm, _), experiment = make_arms(), make_experiment(tmp_path)
    answers = experiment.run(arm, 0, keep_student=False)
    assert not list(answers.folder.glob("model*"))
    with pytest.raises(FileNotFoundError, match="run it with keep_student=True"):
        answers.student()
    assert torch.equal(experiment.run(arm, 0, keep_student=False).logits["test"], answers.logits["test"])
    assert len(counted) == 1
    kept = experiment.run(arm, 0)
    assert len(counted) == 2
    assert not kept.student().training
    assert torch.equal(kept.logits["test"], answers.logits["test"])
    assert experiment.run(arm, 0, keep_student=False).student()
    assert len(counted) == 2


def test_a_setting_that_came_later_leaves_older_runs_what_they_are(tmp_path):
    """An afternoon of training that nobody finds again, because a field was added that it does not use."""
    (arm, _), experiment = make_arms(), make_experiment(tmp_path)
    student = experiment.make_student(0)
    settings = "steps", "batch_size", "learning_rate", "temperature", "bf16"
    older = {name: getattr(experiment.budget, name) for name in settings}
    assert experiments._in_use(experiment.budget) == older
    in_half = replace(experiment, budget=replace(BUDGET, fp16=True))
    assert in_half._digest(arm, 0, student) != experiment._digest(arm, 0, student)


def test_labels_alone_need_no_teacher(tmp_path):
    """A fine-tuning that asks for logits; it is the stock Trainer's."""
    (arm, _), experiment = make_arms(), make_experiment(tmp_path)
    labelled = arm.rows.remove_columns("teacher_logits")
    alone = Arm("labels", labelled.filter(lambda row: row["label"] >= 0), 1.0)
    assert alone.trainer is Trainer
    assert experiment.run(alone, 0).logits["test"].shape == (8, 3)


def test_a_checkpoint_that_is_half_written_is_not_the_last(tmp_path):
    """A kill while the Trainer saves: the folder is there, its state is not."""
    for step, complete in ((6, True), (9, True), (10, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if complete:
            (tmp_path / f"checkpoint-{step}" / ORDER).touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    assert last_checkpoint(tmp_path / "nothing") is None
