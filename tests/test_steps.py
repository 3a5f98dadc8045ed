"""One optimizer step is the same however its rows are cut, for every shape of model."""

import pytest
import torch
from datasets import concatenate_datasets
from shapes import SHAPES, make_model, make_rows, make_trainer, weights_of

LOGGED = ("loss", "hard_loss", "soft_loss")


@pytest.fixture(scope="module", params=SHAPES)
def whole(request, tmp_path_factory):
    """A shape, and the trainer that has made one step on 16 rows at once."""
    trainer = make_trainer(request.param, tmp_path_factory.mktemp("whole"))
    trainer.train()
    return request.param, trainer


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 4), (1, 16), (5, 4)])
def test_a_step_is_the_same_however_it_is_cut(whole, tmp_path, batch, accumulation):
    """Gradients 4× too large at 4 accumulation steps (transformers#47688, trl#2617, #4719, #6006, Soup#720), means of
    means over uneven numbers of tokens, a count before the shift (GPT-2: 29 tokens for 25), double division
    (torchtune)."""
    shape, trainer = whole
    cut = make_trainer(shape, tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
    cut.train()
    step = (weights_of(trainer.model) - weights_of(make_model(shape))).norm()
    assert step > 0
    assert (weights_of(trainer.model) - weights_of(cut.model)).norm() / step < 1e-5
    for name in LOGGED:
        assert cut.state.log_history[0][name] == pytest.approx(trainer.state.log_history[0][name], rel=1e-5)


@pytest.mark.parametrize("shape", ["gpt2-classifier", "llama-lm"])
def test_what_a_stream_has_left_begins_the_next_pass(shape, tmp_path):
    """A step that is too long: the gradient of what did not fill a pass's last step was added to the step after it."""
    rows = make_rows(shape, 5)
    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "max_steps": 5}
    streamed = make_trainer(shape, tmp_path, rows=rows.to_iterable_dataset(), **settings)
    listed = make_trainer(
        shape, tmp_path, rows=concatenate_datasets([rows, rows]), train_sampling_strategy="sequential", **settings
    )
    for trainer in (streamed, listed):
        trainer.train()
    assert torch.equal(weights_of(streamed.model), weights_of(listed.model))
    for ours, theirs in zip(streamed.state.log_history[:5], listed.state.log_history[:5], strict=True):
        assert [ours.get(name) for name in LOGGED] == [theirs.get(name) for name in LOGGED]


def test_a_stream_without_a_whole_step_is_refused(tmp_path):
    """Passes without end and without a step."""
    stream = make_rows("gpt2-classifier", 3).to_iterable_dataset()
    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "max_steps": 2}
    with pytest.raises(ValueError, match=r"ends after 3 micro-batches.*gradient_accumulation_steps is 4"):
        make_trainer("gpt2-classifier", tmp_path, rows=stream, **settings).train()
