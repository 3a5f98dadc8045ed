"""A `Trainer` that learns from a stream, whose rows have no number, as from rows that have one (lesson 05)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput, has_length

from kdcourse.checkpoints import CheckpointError, began_at
from kdcourse.columns import Batch


class StreamTrainer(Trainer):
    """What a trainer does for streams, and nothing where the rows have a number."""

    _left: Sequence[Batch] = ()

    @property
    def _is_streamed(self) -> bool:
        return isinstance(self.train_dataset, IterableDataset)

    def create_accelerator_and_postprocess(self) -> None:
        """One process has nobody to deal a stream's batches out to.

        Accelerate would do so all the same, and cut each column to as many entries as the first one has: of texts that
        are packed into one row, to one text's place in a cache.
        """
        super().create_accelerator_and_postprocess()
        settings = self.accelerator.dataloader_config
        if self.accelerator.num_processes == 1 and settings.dispatch_batches is None:
            settings.dispatch_batches = False

    def _inner_training_loop(self, *args: Any, **options: Any) -> Any:
        self._left = ()
        return super()._inner_training_loop(*args, **options)

    def get_batch_samples(self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device) -> Any:
        """The micro-batches of one optimizer step, and nothing counted yet.

        What a stream has left at its end fills no step, and the Trainer takes none: it begins the first one of the next
        pass, since its gradient would be added to that step's. Several processes take a step together, or none of them.

        Raises:
            ValueError: a stream ends before the first step is whole.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches - len(self._left), device)
        batches, self._left = [*self._left, *batches], ()
        found = self._of_each_process(len(batches), device)
        if min(found) < num_batches:
            if any(found) and self.state.global_step == 0:
                raise ValueError(
                    f"train_dataset ends after {min(found)} micro-batches, and gradient_accumulation_steps is "
                    f"{self.args.gradient_accumulation_steps}, so that it fills no step. Take a smaller one of the two "
                    "sizes, gradient_accumulation_steps or per_device_train_batch_size."
                )
            batches, self._left = [], batches
            self.control.should_epoch_stop = True  # the Trainer would ask for each of max_steps that are to come
        return batches, None

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> None:
        """Nothing: the Trainer's count is another one, and gathers it, but not in a process that has no batch left."""

    def _of_each_process(self, number: int, device: torch.device) -> list[int]:
        """A number of each process, where streams can make them differ."""
        if self.args.world_size == 1 or not self._is_streamed:
            return [number]
        return self.accelerator.gather(torch.tensor([number], device=device)).tolist()

    def evaluation_loop(self, dataloader: DataLoader[Any], *args: Any, **options: Any) -> EvalLoopOutput:
        """
        Raises:
            ValueError: a stream of which each process reads its own part; rows that fill up the last batch cannot be
                told from others.
        """
        if (
            self.args.world_size > 1
            and isinstance(dataloader.dataset, IterableDataset)
            and self.accelerator.dispatch_batches is False
        ):
            raise ValueError(
                "The evaluated rows are a stream and dispatch_batches is False, so that rows which fill up the last "
                "batch of several processes would count twice. Evaluate a dataset whose rows have a number."
            )
        return super().evaluation_loop(dataloader, *args, **options)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **options: Any) -> None:
        """
        Raises:
            CheckpointError: it stands in a later pass of a stream that does not say how long a pass is.
        """
        began = began_at(Path(resume_from_checkpoint))
        if self._is_streamed and not has_length(self.train_dataset) and began and not self.args.ignore_data_skip:
            raise CheckpointError(
                f"{resume_from_checkpoint} stands in a pass of the stream that began at step {began}, and the Trainer "
                "finds its place again in the first pass alone, since the stream has no length. Resume with "
                "ignore_data_skip=True, at the stream's first row; or from a checkpoint of the first pass; or give the "
                "stream as a dataset whose rows have a number."
            )
        super()._load_from_checkpoint(resume_from_checkpoint, *args, **options)
