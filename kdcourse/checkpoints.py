"""Checkpoints that training goes on from as it was, or a sentence about what they lack (lesson 05)."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers import TrainerState

STATE = "trainer_state.json"

PARTS = {
    "the training's state": (STATE,),
    "weights": ("model", "pytorch_model", "adapter_model", "global_step"),
    "optimizer state": ("optimizer", "global_step"),
    "learning-rate schedule": ("scheduler", "global_step"),
    "state of the random numbers": ("rng_state", "random_states"),
}
"""What a checkpoint holds, and how the names of the files or folders begin in which the Trainer, FSDP or DeepSpeed keep
it."""


class CheckpointError(ValueError):
    """Training cannot go on from this checkpoint; the message says why, and what to do."""


def require_whole(checkpoint: Path) -> None:
    """A training that is resumed ends with the weights that it would have had: nothing may begin anew in silence.

    The Trainer itself goes on without a part that it does not find: with an optimizer, for one, whose moments are 0.

    Raises:
        CheckpointError: a part is missing, the state cannot be read, or there is no such folder.
    """
    try:
        names = [path.name for path in checkpoint.iterdir()]
    except OSError as error:
        raise CheckpointError(
            f"{checkpoint} is no checkpoint that can be read ({error.strerror}); name its folder, or leave "
            "resume_from_checkpoint out to begin anew."
        ) from None
    missing = [part for part, starts in PARTS.items() if not any(name.startswith(starts) for name in names)]
    if missing:
        raise CheckpointError(
            f"{checkpoint} has no {', no '.join(missing)}, so training would not go on there as it was. Resume from a "
            "whole checkpoint (save_only_model=False), or load this one's weights into the student and begin anew."
        )
    with said_of_a_checkpoint(checkpoint):
        TrainerState.load_from_json(str(checkpoint / STATE))


@contextmanager
def said_of_a_checkpoint(checkpoint: Path | str | None) -> Iterator[None]:
    """What the depths of PyTorch say of a damaged file, as a sentence with its folder and what to do."""
    try:
        yield
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{checkpoint} cannot be read ({reason[0]}); resume from an older checkpoint, or begin anew."
        ) from error
