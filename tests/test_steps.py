"""One optimizer step is the same however its rows are cut, for every shape of model."""

import pytest
from shapes import SHAPES, make_model, make_trainer, weights_of

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
