"""`DistillationTrainer`: the objective of `loss.py` on `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from kdcourse.loss import IGNORED_LABEL, DistillationLoss, distillation_loss, resolve_divergence
from kdcourse.teacher import LOGITS_COLUMN

Batch = dict[str, Any]


@dataclass
class DistillationArguments(TrainingArguments):
    """`TrainingArguments` and the three numbers of distillation."""

    alpha: float = field(default=0.5, metadata={"help": "Weight of the labels, 0 (teacher only) to 1 (labels only)."})
    temperature: float = field(default=2.0, metadata={"help": "T, which softens student and teacher."})
    divergence: str = field(default="forward_kl", metadata={"help": "forward_kl, reverse_kl or jensen_shannon."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor is {self.label_smoothing_factor}, but the objective of distillation does not "
                "smooth labels; set it to 0."
            )
        resolve_divergence(self.divergence)


class DistillationTrainer(Trainer):
    """Trains a classifier on labels and on a teacher.

    Args:
        teacher: a classifier that scores each batch, kept in eval mode and without gradients. None if the datasets
            carry its logits in the column `teacher_logits` (see `kdcourse.teacher.add_logits`).
        args: `DistillationArguments`.

    Rows whose label is -100 learn from the teacher alone. The loss of an optimizer step is the same however it is cut
    into micro-batches: sums are divided by the rows of the whole step, not of each piece.
    """

    args: DistillationArguments

    # compute_loss divides by the counts of the whole step; without this the Trainer would divide once more.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module | None = None,
        args: DistillationArguments | None = None,
        *,
        teacher: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(args, DistillationArguments):
            raise TypeError(
                f"args is {type(args).__name__}, but alpha and temperature come with DistillationArguments."
            )
        if kwargs.get("compute_loss_func") is not None:
            raise ValueError("compute_loss_func would replace the objective of distillation; leave it out.")
        super().__init__(model, args, **kwargs)
        # An attribute of the trainer, not of the student: model.train() must not reach it, nor a checkpoint hold it.
        self.teacher = None if teacher is None else teacher.to(self.args.device).eval().requires_grad_(False)
        self._parts = torch.zeros(2)
        self._steps_at_last_log = 0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The objective on one micro-batch, as its share of the optimizer step."""
        features = {name: value for name, value in inputs.items() if name not in ("labels", LOGITS_COLUMN)}
        outputs = model(**features)
        loss = distillation_loss(
            outputs.logits,
            self._teacher_logits(inputs, features),
            inputs.get("labels"),
            alpha=self.args.alpha,
            temperature=self.args.temperature,
            divergence=self.args.divergence,
            # An evaluation batch is no part of a step: it is averaged over its own rows.
            num_items=num_items_in_batch if model.training else None,
        )
        if model.training:
            self._record(loss)
        total = loss.total * self._processes_to_average(model)
        return (total, outputs) if return_outputs else total

    def get_batch_samples(self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device) -> Any:
        """The micro-batches of one optimizer step, and how many (labelled, all) rows they hold over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = sum((_count_rows(batch) for batch in batches), torch.zeros(2, dtype=torch.long)).to(device)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts.unsqueeze(0)).sum(dim=0)
        return batches, counts

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the two parts of the training loss, each averaged like the loss itself."""
        steps = self.state.global_step - self._steps_at_last_log
        if "loss" in logs and steps > 0:
            parts = self.accelerator.reduce(self._parts.to(self.args.device), reduction="sum") / steps
            logs["hard_loss"], logs["soft_loss"] = parts.tolist()
            self._parts, self._steps_at_last_log = torch.zeros(2), self.state.global_step
        super().log(logs, *args, **kwargs)

    def _teacher_logits(self, inputs: Batch, features: Batch) -> Tensor:
        if LOGITS_COLUMN in inputs:
            return inputs[LOGITS_COLUMN]
        if self.teacher is None:
            raise ValueError(
                f"There is no teacher: pass teacher=..., or add its logits to the dataset as column '{LOGITS_COLUMN}'."
            )
        with torch.no_grad():
            return self.teacher(**features).logits

    def _record(self, loss: DistillationLoss) -> None:
        self._parts = self._parts.to(loss.total.device) + torch.stack([loss.hard.detach(), loss.soft.detach()])

    def _processes_to_average(self, model: nn.Module) -> int:
        """Data-parallel training averages gradients over processes, but the sums are divided by the rows of all."""
        return self.args.world_size if model.training else 1

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the teacher's logits when the Trainer drops the columns that the student's forward does not name."""
        super()._set_signature_columns_if_needed()
        columns: list[str] = self._signature_columns or []
        if LOGITS_COLUMN not in columns:
            columns.append(LOGITS_COLUMN)


def _count_rows(batch: Batch) -> Tensor:
    """(labelled rows, all rows) of a batch of a classifier."""
    rows = len(next(iter(batch.values())))
    labels = batch.get("labels")
    labelled = 0 if labels is None else int((labels != IGNORED_LABEL).sum())
    return torch.tensor([labelled, rows])
