"""Settings of the Trainer that change how an evaluation is made: its losses are held to those in float64."""

import pytest
from settings.by_hand import losses
from shapes import make_model, make_rows, make_trainer

SHAPES = ["bert-classifier", "gpt2-lm"]
ROWS = 13
"""More than three batches of four."""

THE_SAME_LOSSES = {
    "nothing": {},
    "only losses": {"prediction_loss_only": True},
    "fetched at each batch": {"eval_accumulation_steps": 1},
    "metrics of each batch": {"batch_eval_metrics": True},
    "inputs and losses for metrics": {"include_for_metrics": ["inputs", "loss"]},
    "no names of labels": {"label_names": []},
    "whole logits": {"fused": False},
}


def evaluated(shape, student):
    return losses(shape, make_rows(shape, ROWS, seed=1), student, make_model(shape, seed=1))


def evaluating_trainer(shape, folder, **settings):
    return make_trainer(
        shape, folder, eval_rows=make_rows(shape, ROWS, seed=1), per_device_eval_batch_size=4, **settings
    )


@pytest.mark.parametrize("setting", THE_SAME_LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_evaluations_losses_are_those_of_the_formula(shape, setting, tmp_path):
    """A mean over batches in the place of one over rows or tokens, or a loss that a setting switches off."""
    trainer = evaluating_trainer(shape, tmp_path, **THE_SAME_LOSSES[setting])
    trainer.compute_metrics = lambda prediction, compute_result=True: {}
    expected = evaluated(shape, make_model(shape))
    predicted = trainer.predict(trainer.eval_dataset).metrics
    for prefix, measured in (("eval", trainer.evaluate()), ("test", predicted)):
        for name, value in zip(("loss", "hard_loss", "soft_loss"), expected, strict=True):
            assert measured[f"{prefix}_{name}"] == pytest.approx(value.item(), rel=1e-5), (prefix, name)


@pytest.mark.parametrize("metric", ["loss", "eval_hard_loss", "soft_loss"])
def test_the_best_model_is_the_one_with_the_least_loss(metric, tmp_path):
    """A best model by a loss of another step, or by the greatest loss: the weights that come back have that loss."""
    shape = "bert-classifier"
    trainer = evaluating_trainer(
        shape, tmp_path, max_steps=4, learning_rate=3.0, per_device_train_batch_size=4, eval_strategy="steps",
        eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True, metric_for_best_model=metric,
    )  # fmt: skip
    trainer.train()
    name = f"eval_{metric.removeprefix('eval_')}"
    seen = [log[name] for log in trainer.state.log_history if name in log]
    assert trainer.state.best_metric == min(seen) < max(seen)
    total, hard, soft = evaluated(shape, trainer.model)
    kept = {"eval_loss": total, "eval_hard_loss": hard, "eval_soft_loss": soft}[name]
    assert kept.item() == pytest.approx(min(seen), rel=1e-5)
