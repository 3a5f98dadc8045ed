"""A `Trainer` whose student also learns features: it tries the layers, and trains, averages, clips and keeps the
projections between them, as the Trainer does with the student's own weights (lesson 11).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kdcourse.columns import Batch
from kdcourse.features import PROJECTIONS, Features, require_one_place
from kdcourse.layers import Seen
from kdcourse.streams import StreamTrainer
from kdcourse.teacher import in_eval_mode

FEW_ROWS = 2
"""On which it is tried whether layers fit."""


class FeatureTrainer(StreamTrainer):
    """What a trainer of distillation does for features, and nothing where there are none."""

    features: Features

    def _ask_student(self, model: nn.Module, inputs: Batch, *, whole: bool) -> tuple[Any, Any]:
        raise NotImplementedError

    def _ask_teacher(self, inputs: Batch, *, whole: bool) -> Any:
        raise NotImplementedError

    def _require_one_place(self) -> None:
        """Refuse ways of training under which the student's layers are not seen whole, or not in this process."""
        ways = {
            "FSDP": self.is_fsdp_enabled,
            "DeepSpeed": self.is_deepspeed_enabled,
            "tensor parallelism": getattr(self, "is_distributed_loading_by_transformers", False),
            "DataParallel (several GPUs in one process)": self.args.n_gpu > 1,
            "torch_compile": self.args.torch_compile,
        }
        if self.features:
            require_one_place(ways)

    def _watched_teacher(self) -> Any:
        return self.features.watched(self.features.teacher, "teacher")

    def _feature_losses(
        self, ours: Seen, theirs: Seen, inputs: Batch, counts: Tensor | None, own: int | None = None
    ) -> Tensor | None:
        if not self.features:
            return None
        if not self.features.has_met:
            self.features.meet(ours, theirs, inputs)
        return self.features.losses(ours, theirs, inputs, counts, own)

    def _meet_layers(self, batch: Batch | None = None) -> None:
        """Let both models answer once, so that it is known whether their layers fit, before a step is taken.

        Args:
            batch: as the models are to read it; a few rows of the training data, if there is none.
        """
        if not self.features or (batch is not None and self.features.has_met):
            return
        student = cast("nn.Module", self.model)
        with undisturbed(), torch.no_grad(), in_eval_mode(student), self.compute_loss_context_manager():
            batch = self._prepare_inputs(dict(batch) if batch is not None else self._few_rows())
            with self.features.watched(student, "student") as ours:
                self._ask_student(student, batch, whole=True)
            with self._watched_teacher() as theirs:
                self._ask_teacher(batch, whole=True)
            self.features.meet(ours, theirs, batch)

    def _few_rows(self) -> dict[str, Any]:
        """Of the training data, as the models read them."""
        dataset, collate = self.train_dataset, self.data_collator
        if dataset is None:
            raise ValueError("There are features, and no train_dataset, on whose first rows the layers would be tried.")
        if hasattr(dataset, "column_names") and hasattr(dataset, "remove_columns") and hasattr(dataset, "__len__"):
            dataset = self._remove_unused_columns(dataset, "training")
        else:
            collate = self._get_collator_with_removed_columns(collate, "training")
        return cast("dict[str, Any]", next(iter(DataLoader(dataset, batch_size=FEW_ROWS, collate_fn=collate))))

    def create_optimizer(self, *args: Any, **options: Any) -> Any:
        """The Trainer's, which also trains the projections of features."""
        self._meet_layers()
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(*args, **options)
        self.features.add_to(optimizer, self.args, is_new)
        return optimizer

    def training_step(self, *args: Any, **options: Any) -> Tensor:
        """The Trainer's; at the last micro-batch of a step, the projections' gradients are those of all processes."""
        loss = super().training_step(*args, **options)
        if self.args.world_size > 1 and self.accelerator.sync_gradients:
            self.features.average_gradients(self.args.world_size)
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Of the whole step's gradient, the projections' included."""
        return super()._clip_grad_norm(nn.ModuleList([model, self.features.projections]) if self.features else model)

    def _split(self, num_items: Tensor | int | None) -> tuple[Any, Tensor | None]:
        """The counts of (labelled, taught) rows, and those of features."""
        if num_items is None or not self.features:
            return num_items, None
        counts = torch.as_tensor(num_items)
        if counts.shape != (2 + len(self.features),):
            raise ValueError(
                f"num_items_in_batch is {num_items}, but with features it also says what each is averaged over; take "
                "what get_batch_samples gives."
            )
        return counts[:2], counts[2:]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **options: Any) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, *args, **options)
        self.features.load(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        best = Path(cast("str", self.state.best_model_checkpoint))
        if (best / PROJECTIONS).exists():  # save_only_model=True keeps none
            self.features.load(best)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            self.features.save(Path(output_dir))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever is drawn meanwhile, random numbers go on as they were."""
    own, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(own)
        np.random.set_state(of_numpy)
