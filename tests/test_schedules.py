"""alpha and temperature that change over a training; one that is killed is in `test_resume.py`."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from shapes import make_model, make_rows, make_trainer, weights_of
from transformers import TrainerCallback

from kdcourse.schedules import Schedule

SHAPE = "gpt2-classifier"
STEPS = 4


def trained(folder, *, steps=STEPS, callbacks=(), **settings):
    """A training in micro-batches, two to a step."""
    options = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": steps} | settings
    trainer = make_trainer(SHAPE, folder, train_sampling_strategy="sequential", **options)
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.train()
    return trainer


def test_each_step_is_trained_with_its_own_alpha_and_temperature(tmp_path):
    """A schedule that comes a step late, or in the middle of one; the same by hand, a training of one step each."""
    alphas, temperatures = [0.1, 0.35, 0.6, 0.85], [4.0, 3.5, 3.0, 2.5]
    schedule = Schedule(alpha=lambda progress: 0.1 + progress, temperature=lambda progress: 4 - 2 * progress)
    scheduled = trained(tmp_path, callbacks=[schedule], lr_scheduler_type="constant")

    student, rows = make_model(SHAPE), make_rows(SHAPE)
    logs = []
    for step, (alpha, temperature) in enumerate(zip(alphas, temperatures, strict=True)):
        seen = rows.select(range(8 * (step % 2), 8 * (step % 2) + 8))
        one = trained(
            tmp_path, steps=1, student=student, rows=seen, alpha=alpha, temperature=temperature,
            lr_scheduler_type="constant",
        )  # fmt: skip
        student = one.model
        logs.append(one.state.log_history[0])
    assert torch.allclose(weights_of(scheduled.model), weights_of(student), atol=1e-6)
    for log, step, alpha, temperature in zip(scheduled.state.log_history, logs, alphas, temperatures, strict=False):
        assert log["loss"] == pytest.approx(step["loss"], rel=1e-4)
        assert (log["alpha"], log["temperature"]) == (pytest.approx(alpha), pytest.approx(temperature))


class Report(TrainerCallback):
    """Keeps what a dashboard would be sent."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append(dict(logs))


def test_what_is_scheduled_is_reported_beside_the_loss(tmp_path):
    """A curve of losses whose mix changes, without the mix, on a dashboard that is told before the schedule is, too; or
    a mix beside what is no loss, or that nobody has scheduled."""
    before, behind, alone = Report(), Report(), Report()
    trained(tmp_path, steps=1, callbacks=[before, Schedule(alpha=lambda _: 0.2), behind])
    for report in (before, behind):
        step, end = report.seen
        assert {"loss", "hard_loss", "alpha", "temperature"} <= step.keys()
        assert "alpha" not in end
    trained(tmp_path, steps=1, callbacks=[alone])
    assert "alpha" not in alone.seen[0]


def test_what_is_not_scheduled_stays(tmp_path):
    """A temperature that is set to a default of the schedule's."""
    trainer = trained(tmp_path, callbacks=[Schedule(alpha=lambda _: 0.2)], temperature=3.0)
    log = trainer.state.log_history[0]
    assert (log["alpha"], log["temperature"]) == (0.2, 3.0)


@pytest.mark.parametrize("last", [0.75, 1.75])
def test_the_arguments_are_afterwards_what_they_were(last, tmp_path):
    """A next trainer with the same arguments that begins where a schedule ended, or where it broke off."""
    trainer = make_trainer(SHAPE, tmp_path, max_steps=STEPS, alpha=0.1, temperature=3.0)
    mix = {"alpha": lambda progress: progress / 0.75 * last, "temperature": lambda progress: 5 - progress}
    trainer.add_callback(Schedule(**mix))
    with pytest.raises(ValueError, match="alpha is") if last > 1 else nullcontext():
        trainer.train()
    assert trainer.state.global_step == (STEPS if last < 1 else 2)
    assert (trainer.args.alpha, trainer.args.temperature) == (0.1, 3.0)


@pytest.mark.parametrize("number", [torch.tensor, np.float32], ids=["tensor", "numpy"])
def test_a_value_may_be_any_number(number, tmp_path):
    """A training that ends at its first checkpoint, since JSON holds no tensor."""
    schedule = Schedule(alpha=lambda progress: number(progress / 2), temperature=lambda _: number(2.5))
    trainer = trained(tmp_path, steps=2, callbacks=[schedule], save_strategy="steps", save_steps=1)
    kept = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    assert [(log["alpha"], log["temperature"]) for log in kept] == [(0.0, 2.5), (0.25, 2.5)]
    assert trainer.state.global_step == 2


def test_a_value_out_of_range_stops_the_training_at_its_step(tmp_path):
    """An alpha of 1.25, which would reward the student for leaving its teacher."""
    with pytest.raises(ValueError, match=r"alpha is 1\.25"):
        trained(tmp_path, callbacks=[Schedule(alpha=lambda progress: 2.5 * progress)])
