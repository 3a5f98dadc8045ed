"""A stream, whose rows have no number, teaches as a dataset whose rows have one, or is refused."""

import pytest
import torch
from datasets import concatenate_datasets
from shapes import make_model, make_rows, make_tokenizer, make_trainer, weights_of
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from kdcourse.checkpoints import CheckpointError
from kdcourse.collators import LanguageModelCollator
from kdcourse.teacher import cache_logits

SHAPE = "llama-lm"


@pytest.mark.parametrize(("batch", "accumulation"), [(16, 1), (5, 4)])
def test_packed_texts_of_a_stream_learn_from_a_cache(batch, accumulation, tmp_path):
    """Of a packed row's places in the cache, the first alone was left: a sentence about lengths, and no training."""
    rows = make_rows(SHAPE)
    cached = cache_logits(tmp_path / "cache", make_model(SHAPE, seed=1), make_tokenizer(), rows, batch_size=4)
    numbered = cached.add_rows(rows)
    packing = LanguageModelCollator(make_tokenizer(), packed=True)
    settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    packed = make_trainer(
        SHAPE, tmp_path, teacher=cached, rows=numbered.to_iterable_dataset(), collator=packing, **settings
    )
    padded = make_trainer(SHAPE, tmp_path, teacher=make_model(SHAPE, seed=1), rows=rows)
    for trainer in (packed, padded):
        trainer.train()
    step = (weights_of(padded.model) - weights_of(make_model(SHAPE))).norm()
    assert (weights_of(packed.model) - weights_of(padded.model)).norm() / step < 1e-5
    evaluated = packed.evaluate(numbered.to_iterable_dataset())
    assert evaluated["eval_loss"] == pytest.approx(packed.evaluate(numbered)["eval_loss"], rel=1e-5)


class Asks(TrainerCallback):
    """Counts how often a trainer asks for the batches of a step."""

    def __init__(self, trainer):
        self.number, ask = 0, trainer.get_batch_samples

        def counted(*args):
            self.number += 1
            return ask(*args)

        trainer.get_batch_samples = counted


def streaming_trainer(folder, **settings):
    """Five micro-batches of two rows in each pass, and steps of two micro-batches."""
    rows = settings.pop("rows", make_rows(SHAPE, 10).to_iterable_dataset())
    return make_trainer(
        SHAPE, folder, rows=rows, per_device_train_batch_size=2, gradient_accumulation_steps=2, save_strategy="steps",
        save_steps=1, lr_scheduler_type="constant", **{"max_steps": 6, **settings},
    )  # fmt: skip


def test_a_pass_that_is_over_is_asked_no_more(tmp_path):
    """Each pass asked as often as there are steps in all: a training that takes the square of its steps."""
    trainer = streaming_trainer(tmp_path, max_steps=40)
    asks = Asks(trainer)
    trainer.train()
    assert trainer.state.global_step == 40
    assert asks.number < 2 * 40


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    trainer = streaming_trainer(folder)
    trainer.train()
    return folder, weights_of(trainer.model)


def test_a_stream_is_resumed_in_its_first_pass(undisturbed, tmp_path):
    """Rows seen twice or never; a checkpoint of what was resumed already, taken for one of a later pass."""
    folder, weights = undisturbed
    resumed = streaming_trainer(tmp_path / "once", max_steps=2)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-1"))
    again = streaming_trainer(tmp_path / "twice")
    again.train(resume_from_checkpoint=str(tmp_path / "once" / "checkpoint-2"))
    assert torch.equal(weights_of(again.model), weights)


def test_a_stream_is_not_resumed_in_a_later_pass(undisturbed, tmp_path):
    """A pass that began anew at its first row, in silence: the weights were those of other rows."""
    checkpoint = str(undisturbed[0] / "checkpoint-3")
    with pytest.raises(CheckpointError, match=r"pass of the stream that began at step 2.*ignore_data_skip=True"):
        streaming_trainer(tmp_path).train(resume_from_checkpoint=checkpoint)
    anew = streaming_trainer(tmp_path, ignore_data_skip=True)
    anew.train(resume_from_checkpoint=checkpoint)
    assert anew.state.global_step == 6
    numbered = make_trainer(
        SHAPE, tmp_path, rows=concatenate_datasets([make_rows(SHAPE, 10)] * 2), per_device_train_batch_size=2,
        gradient_accumulation_steps=2, max_steps=6, train_sampling_strategy="sequential", lr_scheduler_type="constant",
    )  # fmt: skip
    numbered.train(resume_from_checkpoint=checkpoint)  # twenty rows, so that step 3 is in its first pass
    assert torch.equal(weights_of(numbered.model), undisturbed[1])


class Sized(IterableDataset):
    """Rows without a number, of which somebody knows how many there are."""

    def __len__(self):
        return 10

    def __iter__(self):
        return iter(make_rows(SHAPE, 10))


def test_a_stream_with_a_length_is_resumed_in_any_pass(tmp_path):
    """A training that could go on, and is refused."""
    settings = {"rows": Sized(), "max_steps": -1, "num_train_epochs": 3}
    whole = streaming_trainer(tmp_path / "whole", **settings)
    whole.train()
    resumed = streaming_trainer(tmp_path / "resumed", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-5"))
    assert resumed.state.global_step == whole.state.global_step == 9
    assert torch.equal(weights_of(resumed.model), weights_of(whole.model))
