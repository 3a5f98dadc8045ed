"""What lab 07 and the exercises have kept, damaged: a sentence, and they go on."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from killed_experiment import make_arms, make_experiment
from safetensors.torch import load_file

from kdcourse.checkpoints import last_checkpoint
from kdcourse.course import exercises, own_record
from kdcourse.course.exercises import progress
from kdcourse.labs.experiments import Arm, Experiment, Progress

pytestmark = pytest.mark.slow


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


ARMS = {
    "weights cut short": lambda folder: cut(folder / "model.safetensors"),
    "a bit of a weight": lambda folder: flip(folder / "model.safetensors"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "answers cut short": lambda folder: cut(folder / "logits.safetensors"),
    "a bit of an answer": lambda folder: flip(folder / "logits.safetensors"),
    "no answers": lambda folder: (folder / "logits.safetensors").unlink(),
    "a cost that is none": lambda folder: (folder / "cost.json").write_text("{", encoding="utf-8"),
    "no configuration": lambda folder: (folder / "config.json").unlink(),
    "no digests": lambda folder: (folder / "digests.json").unlink(),
    "digests of nothing": lambda folder: (folder / "digests.json").write_text("{}", encoding="utf-8"),
    "digests that are a list": lambda folder: (folder / "digests.json").write_text("[]", encoding="utf-8"),
    "an empty folder": lambda folder: [path.unlink() for path in folder.iterdir()],
    "a file": lambda folder: (shutil.rmtree(folder), folder.touch()),
}


@pytest.mark.parametrize("attack", ARMS.values(), ids=list(ARMS))
def test_an_arm_that_is_damaged_is_trained_anew(attack, tmp_path, monkeypatch, capsys):
    """A lab that ends at every start in a traceback about a header; or a student with another weight."""
    monkeypatch.setattr(Experiment, "_fit", lambda *_: {"seconds": 1.0})
    arm, experiment = make_arms()[0], make_experiment(tmp_path)
    first = experiment.run(arm, 0)
    answers = first.logits["test"].clone()  # the file itself is not read into memory
    attack(first.folder)
    again = experiment.run(arm, 0)
    assert torch.equal(again.logits["test"], answers)
    assert again.student() is not None
    said = capsys.readouterr().out
    kept = [path for path in tmp_path.iterdir() if ".yours-1" in path.name]
    assert len(kept) == 1
    assert f"{first.folder} was damaged: it is now {kept[0].name}, and is trained anew.\n" in said
    experiment.run(arm, 0)
    assert capsys.readouterr().out == ""


class DiesAtStepTen(Progress):
    def on_step_end(self, arguments, state, control, **_):
        if state.global_step == 10:
            raise KeyboardInterrupt


CHECKPOINTS = {
    "weights cut short": lambda folder: cut(folder / "model.safetensors"),
    "no optimizer": lambda folder: (folder / "optimizer.pt").unlink(),
    "half an optimizer": lambda folder: cut(folder / "optimizer.pt"),
    "half a schedule": lambda folder: cut(folder / "scheduler.pt"),
    "half of the random numbers": lambda folder: cut(folder / "rng_state.pth"),
    "no state": lambda folder: (folder / "trainer_state.json").write_text("", encoding="utf-8"),
    "half of the order": lambda folder: cut(folder / "order.safetensors"),
    "a state that is a list": lambda folder: (folder / "trainer_state.json").write_text("[]", encoding="utf-8"),
}


@pytest.fixture(scope="module", params=["a teacher", "labels alone"])
def interrupted(request, tmp_path_factory):
    """An arm that stopped after its checkpoint at step 9, its experiment, and the student of one that did not."""
    arm = make_arms()[0]
    if request.param == "labels alone":
        arm = Arm("labels", arm.rows.remove_columns("teacher_logits").filter(lambda row: row["label"] >= 0), 1.0)
    experiment = make_experiment(tmp_path_factory.mktemp("interrupted"))
    student = experiment.make_student(0)
    whole = make_experiment(tmp_path_factory.mktemp("whole")).run(arm, 0)
    name = f".{whole.folder.name}"
    with pytest.raises(KeyboardInterrupt):
        experiment._fit(arm, 0, student, experiment.folder / name / "checkpoints", DiesAtStepTen())
    assert last_checkpoint(experiment.folder / name / "checkpoints").name == "checkpoint-9"
    return arm, experiment.folder, name, load_file(whole.folder / "model.safetensors")


@pytest.mark.parametrize("attack", CHECKPOINTS.values(), ids=list(CHECKPOINTS))
def test_from_a_damaged_checkpoint_an_arm_begins_anew(attack, interrupted, tmp_path, capsys):
    """A lab that cannot be started any more; or a student whose optimizer has forgotten nine steps."""
    arm, folder, name, expected = interrupted
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    attack(tmp_path / name / "checkpoints" / "checkpoint-9")
    run = make_experiment(tmp_path).run(arm, 0)
    weights = load_file(run.folder / "model.safetensors")
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    said = f"{arm.name}, seed 0, is trained from the beginning: its checkpoint-9 is damaged.\n"
    assert said in capsys.readouterr().out


def test_from_a_checkpoint_in_a_later_epoch_it_is_the_same_student(interrupted, tmp_path, capsys):
    """An order of the second epoch that is drawn anew: the Trainer keeps no record of how it was drawn."""
    arm, folder, _, expected = interrupted
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    run = make_experiment(tmp_path).run(arm, 0)
    weights = load_file(run.folder / "model.safetensors")
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert capsys.readouterr().out == ""


def test_a_folder_that_only_looks_like_a_checkpoint_is_none(interrupted, tmp_path, capsys):
    """`checkpoint-best`, which somebody has kept, and a ValueError about an int."""
    arm, folder, name, expected = interrupted
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    checkpoints = tmp_path / name / "checkpoints"
    shutil.copytree(checkpoints / "checkpoint-9", checkpoints / "checkpoint-best")
    run = make_experiment(tmp_path).run(arm, 0)
    weights = load_file(run.folder / "model.safetensors")
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert "damaged" not in capsys.readouterr().out


def test_an_error_of_the_training_itself_is_not_the_checkpoints(interrupted, tmp_path, monkeypatch):
    """An afternoon of steps, thrown away for a typing error in a collator."""
    arm, folder, name, _ = interrupted
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)

    def fails_at_a_step(trainer, *_, **__):
        raise ValueError("no such column")

    monkeypatch.setattr(arm.trainer, "training_step", fails_at_a_step)
    with pytest.raises(ValueError, match="no such column"):
        make_experiment(tmp_path).run(arm, 0)
    assert last_checkpoint(tmp_path / name / "checkpoints").name == "checkpoint-9"


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv(progress.FILE_VARIABLE, str(path))
    return path


SOLVED = exercises.find_exercise("00.soft_label")


def own_soft_label(votes):
    return (sum(votes[5:]) + votes[4] / 2) / sum(votes)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(st.sampled_from([SOLVED.id, "passed", "01.else"]), part, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=40) | VALUES.map(lambda value: json.dumps(value).encode()) | st.just(b"[" * 100_000))
def test_whatever_the_record_holds_an_answer_is_counted(tmp_path_factory, content):
    """An OverflowError about infinity, where somebody's answer was to be checked; a record of years that is gone."""
    folder = tmp_path_factory.mktemp("progress")
    path = folder / "progress.json"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(progress.FILE_VARIABLE, str(path))
        said = progress.record(SOLVED.id, "passed")
        assert progress.load()[SOLVED.id]["passed"] >= 1
    kept = folder / "progress.yours-1.json"
    assert kept.exists() == bool(said)
    if said:
        assert kept.read_bytes() == content
        assert said == f"The record of your exercises was damaged, and is begun anew; the old one is {kept}."


def test_a_lock_that_stays_held_hangs_no_exercise(file, monkeypatch, capsys):
    """A kernel that was suspended with the lock, and a check of an answer in another that never comes back."""
    monkeypatch.setattr(own_record, "LOCK_SECONDS", 0.5)
    begun = time.monotonic()
    with FileLock(file.with_name(f".{file.name}.lock")):
        assert exercises.check(SOLVED.id, own_soft_label).passed
    assert time.monotonic() - begun < 30
    assert capsys.readouterr().out.startswith("This answer is not recorded: another program has been using ")
    assert not file.exists()


def test_where_nothing_can_be_written_an_answer_is_still_checked(file, monkeypatch, capsys):
    """A read-only home, in which no exercise can be solved."""
    file.parent.joinpath("file").touch()
    monkeypatch.setenv(progress.FILE_VARIABLE, str(file.parent / "file" / "progress.json"))
    assert exercises.check(SOLVED.id, own_soft_label).passed
    assert capsys.readouterr().out.startswith("This answer is not recorded: ")


def test_a_record_that_is_a_link_stays_one(file):
    """Progress that is shared between two machines, until the first answer."""
    shared = file.parent / "shared" / "progress.json"
    shared.parent.mkdir()
    shared.write_text("{}", encoding="utf-8")
    file.symlink_to(shared)
    assert progress.record(SOLVED.id, "passed") == ""
    assert file.is_symlink()
    assert json.loads(shared.read_text(encoding="utf-8")) == {SOLVED.id: {"passed": 1}}
    assert [path.name for path in Path(shared.parent).glob("[!.]*")] == ["progress.json"]
