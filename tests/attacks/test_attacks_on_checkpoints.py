"""Checkpoints that have lost a part, or were cut short: a sentence, and no training that goes on all the same."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from shapes import make_model, make_trainer, weights_of

from kdcourse.checkpoints import ORDER, PARTS, CheckpointError, EpochOrder, last_checkpoint

SHAPE = "bert-classifier"
READ = ["model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth"]
"""The files of a checkpoint that a training is resumed from."""


def trainer_in(folder, **settings):
    options = {"max_steps": 4, "per_device_train_batch_size": 4, "optim": "adamw_torch", "save_strategy": "steps"}
    return make_trainer(SHAPE, folder, **options | {"save_steps": 2} | settings)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    trainer_in(folder).train()
    return folder / "checkpoint-2"


@pytest.fixture
def checkpoint(made, tmp_path):
    return shutil.copytree(made, tmp_path / "checkpoint-2")


def refusal(folder, checkpoint):
    with pytest.raises(CheckpointError) as refused:
        trainer_in(folder).train(resume_from_checkpoint=str(checkpoint))
    assert str(checkpoint) in str(refused.value)
    return str(refused.value)


def test_a_whole_checkpoint_is_resumed(checkpoint, tmp_path):
    """A check that refuses what the Trainer itself has written."""
    trainer = trainer_in(tmp_path)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.state.global_step == 4


def test_a_training_that_was_killed_while_it_saved_goes_on_before(checkpoint, tmp_path):
    """The newest folder, half written, is taken for a checkpoint; a first run that finds none and ends."""
    assert last_checkpoint(str(tmp_path / "nowhere")) is None
    half = shutil.copytree(checkpoint, tmp_path / "checkpoint-4")
    for name in (ORDER, "optimizer.pt"):
        (half / name).unlink()
    assert last_checkpoint(tmp_path) == checkpoint
    trainer = trainer_in(tmp_path)
    trainer.train(resume_from_checkpoint=last_checkpoint(trainer.args.output_dir))
    assert trainer.state.global_step == 4
    assert last_checkpoint(tmp_path) == half


# peft reads a property that transformers has renamed; both names mean the same until transformers 6.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("name", ["default", "distilled"])
def test_an_adapter_is_resumed_whatever_its_name(name, tmp_path):
    """A refusal for want of weights, of a checkpoint that keeps an adapter in a folder of the adapter's name."""
    ends = []
    for checkpoint in (None, str(tmp_path / "checkpoint-2")):
        lora = LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS", init_lora_weights=False)
        torch.manual_seed(0)
        trainer = trainer_in(tmp_path, student=get_peft_model(make_model(SHAPE), lora, adapter_name=name))
        trainer.train(resume_from_checkpoint=checkpoint)
        ends.append(weights_of(trainer.model))
    assert torch.equal(*ends)
    kept = tmp_path / "checkpoint-2" / ("" if name == "default" else name) / "adapter_model.safetensors"
    kept.unlink()
    assert "has no weights" in refusal(tmp_path, tmp_path / "checkpoint-2")


@pytest.mark.parametrize("name", READ)
def test_a_part_that_is_missing_is_named(name, checkpoint, tmp_path):
    """Moments of 0, a learning rate that begins anew, other dropout: the Trainer goes on, and calls it resumed."""
    (checkpoint / name).unlink()
    part = list(PARTS)[["trainer", "model", "optimizer", "scheduler", "rng"].index(name.split(".")[0].split("_")[0])]
    assert f"has no {part}" in refusal(tmp_path, checkpoint)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", READ)
def test_a_part_that_is_cut_short_is_a_sentence(name, share, checkpoint, tmp_path):
    """A traceback from the depths of PyTorch after a disk was full."""
    content = (checkpoint / name).read_bytes()
    (checkpoint / name).write_bytes(content[: int(len(content) * share)])
    assert "cannot be read" in refusal(tmp_path, checkpoint)


def test_weights_alone_are_no_checkpoint(tmp_path):
    """save_only_model, and a resume that is another training."""
    trainer_in(tmp_path, save_only_model=True).train()
    assert refusal(tmp_path, tmp_path / "checkpoint-2") == (
        f"{tmp_path / 'checkpoint-2'} has no optimizer state, no learning-rate schedule, no state of the random "
        "numbers, so training would not go on there as it was. Resume from a whole checkpoint "
        "(save_only_model=False), or load this one's weights into the student and begin anew."
    )


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("checkpoint")], ids=["none", "file"])
def test_what_is_no_folder_is_a_sentence(make, tmp_path):
    """A name with a typing error."""
    make(tmp_path / "checkpoint-9")
    words = refusal(tmp_path, tmp_path / "checkpoint-9")
    assert "is no checkpoint that can be read" in words
    assert words.endswith("; name its folder, or leave resume_from_checkpoint out to begin anew.")


def test_a_later_epoch_goes_on_in_its_order(tmp_path):
    """Rows of one length that are grouped anew in the middle of a second epoch."""
    settings = {"max_steps": 8, "save_steps": 6, "train_sampling_strategy": "group_by_length"}
    whole = trainer_in(tmp_path, **settings)
    whole.train()
    resumed = trainer_in(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert torch.equal(weights_of(whole.model), weights_of(resumed.model))


def test_an_epoch_goes_on_in_its_order_after_two_resumes(tmp_path):
    """Rows in the order of the epoch before: a resume at an epoch's end kept that one, and a second resume took it."""
    settings = {"max_steps": 12, "save_steps": 1, "train_sampling_strategy": "group_by_length"}
    whole = trainer_in(tmp_path / "whole", **settings)
    whole.train()
    assert json.loads((tmp_path / "whole" / "checkpoint-4" / "trainer_state.json").read_text())["epoch"] == 1
    for step in (4, 6):
        resumed = trainer_in(tmp_path / f"from {step}", **settings)
        before = tmp_path / ("whole" if step == 4 else "from 4")
        resumed.train(resume_from_checkpoint=str(before / f"checkpoint-{step}"))
        assert torch.equal(weights_of(whole.model), weights_of(resumed.model)), step


@pytest.mark.parametrize(("is_first", "step", "kept"), [(True, 3, True), (False, 3, False), (True, 4, False)])
def test_one_process_keeps_the_order_where_the_checkpoint_is(is_first, step, kept, tmp_path):
    """Two processes that write one file at once; a folder that a search has put elsewhere, and an error for it."""
    (tmp_path / "checkpoint-3").mkdir()
    order = EpochOrder()
    order.on_epoch_begin(SimpleNamespace(ignore_data_skip=False), SimpleNamespace(global_step=0), None)
    state = SimpleNamespace(is_world_process_zero=is_first, global_step=step, epoch=0.75)
    order.on_save(SimpleNamespace(output_dir=str(tmp_path)), state, None)
    assert (tmp_path / "checkpoint-3" / ORDER).exists() == kept
