"""alpha and temperature that change while a student is trained (lessons 03 and 04)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsFloat

from transformers import TrainerCallback

from kdcourse.checks import require_mix

Course = Callable[[float], SupportsFloat]
"""From progress, 0 at the first step and nearly 1 at the last, to a value."""


class Schedule(TrainerCallback):
    """Sets `args.alpha` and `args.temperature` before each optimizer step; the trainer logs both, and gives the
    arguments back as they were when the training ends.

    A step's progress is its number over that of all steps, so a training that is resumed goes on where it was. All
    micro-batches of a step are trained with one alpha and one temperature. An evaluation meanwhile takes those of the
    last step: compare `eval_hard_loss` and a metric over time, not `eval_loss`, whose mix changes.

    Args:
        alpha, temperature: functions of progress; what is left out stays as it is in the arguments.

    Example:
        `Schedule(alpha=lambda progress: progress)` begins with the teacher alone and ends with the labels.
    """

    def __init__(self, *, alpha: Course | None = None, temperature: Course | None = None) -> None:
        self.alpha, self.temperature = alpha, temperature

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """
        Raises:
            ValueError: alpha or temperature are out of range at this step.
        """
        progress = state.global_step / state.max_steps
        if self.alpha is not None:
            args.alpha = float(self.alpha(progress))  # which a checkpoint holds as JSON
        if self.temperature is not None:
            args.temperature = float(self.temperature(progress))
        require_mix(args.alpha, args.temperature)
