"""Checkpoints that training goes on from as it was, or a sentence about what they lack (lesson 05)."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerState

STATE = "trainer_state.json"

ORDER = "order.safetensors"
"""The random numbers from which the rows of an epoch were put in order, and the step at which it began, as `EpochOrder`
keeps them."""

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


def last_checkpoint(folder: Path | str) -> Path | None:
    """The newest checkpoint in a trainer's output_dir that was written to its end; None if there is none, or no folder.

    `trainer.train(resume_from_checkpoint=last_checkpoint(arguments.output_dir))` begins a training and goes on with it,
    also where it was killed while it saved: the order of an epoch is written last (see `EpochOrder`).
    """
    complete = [path.parent for path in Path(folder).glob(f"checkpoint-*/{ORDER}")]
    numbered = [path for path in complete if path.name.partition("-")[2].isdecimal()]
    return max(numbered, key=lambda path: int(path.name.partition("-")[2]), default=None)


def require_whole(checkpoint: Path) -> None:
    """A training that is resumed ends with the weights that it would have had: nothing may begin anew in silence.

    The Trainer itself goes on without a part that it does not find: with an optimizer, for one, whose moments are 0.

    Raises:
        CheckpointError: a part is missing, the state cannot be read, or there is no such folder.
    """
    try:
        names = [path.name for path in checkpoint.iterdir()]
        names += [path.name for path in checkpoint.glob("*/adapter_model*")]  # of an adapter that has a name of its own
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
    except CheckpointError:  # said already
        raise
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{checkpoint} cannot be read ({reason[0]}); resume from an older checkpoint, or begin anew."
        ) from error


class EpochOrder(TrainerCallback):
    """Keeps in each checkpoint how the order of its epoch was drawn, and draws it so again after a resume.

    The Trainer keeps the random numbers of the step, which come later: a sampler that draws from them, such as that of
    `train_sampling_strategy="group_by_length"`, would put the rest of the epoch in another order.

    Args:
        resumed_from: the checkpoint, if a training goes on from one.
    """

    def __init__(self, resumed_from: Path | None = None) -> None:
        self.resumed_from = resumed_from

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.resumed_from is not None and (kept := self.resumed_from / ORDER).exists():
            with said_of_a_checkpoint(self.resumed_from):
                torch.set_rng_state(safetensors.torch.load_file(kept)["order"])
        goes_on = self.resumed_from is not None and not args.ignore_data_skip
        self._began = began_at(cast("Path", self.resumed_from)) if goes_on else state.global_step
        self.resumed_from = None
        self._order = torch.get_rng_state()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"  # a search for settings has others
        if state.is_world_process_zero and folder.is_dir():  # all processes share the rows of one order
            # At the end of an epoch the Trainer draws the order of the next from the random numbers that it keeps.
            order = torch.get_rng_state() if float(state.epoch).is_integer() else self._order
            safetensors.torch.save_file({"order": order, "began": torch.tensor(self._began)}, folder / ORDER)


def began_at(checkpoint: Path) -> int:
    """The step at which the epoch of a checkpoint began; 0 if it does not say."""
    if not (kept := checkpoint / ORDER).exists():
        return 0
    with said_of_a_checkpoint(checkpoint):
        return int(safetensors.torch.load_file(kept).get("began", 0))
