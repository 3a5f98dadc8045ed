"""Which rows or tokens of a batch count, and the averages over those of many batches and processes (lesson 05)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kdcourse.checks import IGNORED_LABEL, whole_labels
from kdcourse.columns import LABELS, Batch, is_packed
from kdcourse.loss import DistillationLoss


class WrittenBatch(dict[str, Any]):
    """A batch of texts that the student wrote (see `kdcourse.on_policy`). Its labels say which tokens it is taught
    about; none of them is the right one, so that no token counts for the hard term.
    """


class Averages:
    """The hard and the soft term per row of their own, over many batches and all processes; and of features likewise.

    Args:
        feature_weights: what the loss of each feature is times, where there are some.
    """

    def __init__(self, feature_weights: Sequence[float] = ()) -> None:
        self._feature_weights = list(feature_weights)
        terms = 2 + len(self._feature_weights)
        self._sums = torch.zeros(terms, dtype=torch.float32)  # whatever the default is: bfloat16 counts to 256
        self._items = torch.zeros(terms, dtype=torch.float32)

    def add_sums(self, loss: DistillationLoss, divided_by: Tensor, features: Tensor | None = None) -> None:
        """The sums behind a loss, which were divided by `divided_by`: (labelled, taught) rows, and features'."""
        losses = torch.stack([loss.hard.detach(), loss.soft.detach()])
        if features is not None:
            losses = torch.cat([losses, features.detach()])
        sums = losses * divided_by
        self._sums = self._sums.to(sums.device) + sums  # stays on the device: fetching it would make each step wait

    def add_items(self, items: Tensor) -> None:
        """(labelled, taught) rows of this process, and those of features."""
        self._items = self._items.to(items.device) + items

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """`hard_loss` and `soft_loss` in nats, each only if there was a row for it; and `feature_loss`, the weighted
        sum that was added to them, if there are features.
        """
        totals = torch.stack([self._sums.to(accelerator.device), self._items.to(accelerator.device)])
        sums, items = accelerator.reduce(totals, reduction="sum").tolist()
        means = [total / count if count else None for total, count in zip(sums, items, strict=True)]
        named = {name: mean for name, mean in zip(("hard_loss", "soft_loss"), means, strict=False) if mean is not None}
        if self._feature_weights and any(items[2:]):
            named["feature_loss"] = sum(
                weight * (mean or 0.0) for weight, mean in zip(self._feature_weights, means[2:], strict=True)
            )
        return named


def real_positions(batch: Batch, own: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Which rows of a batch count, (B,), and which of its tokens, (B, T): those that are no padding; None without any.

    Args:
        own: of the first so many rows alone (of texts, where they are packed into one row); of all, if None.
    """
    first = next(each for each in batch.values() if isinstance(each, Tensor))
    rows = torch.arange(len(first), device=first.device) < (len(first) if own is None or is_packed(batch) else own)
    ids, mask = batch.get("input_ids"), batch.get("attention_mask")
    if mask is None or mask.ndim != 2:  # noqa: PLR2004  (of whole attention, which says nothing of padding alone)
        mask = None if ids is None else torch.ones_like(ids)
    if mask is None:
        return rows, None
    tokens = mask.bool() & rows[:, None]
    if own is not None and is_packed(batch):
        tokens &= (batch["position_ids"] == 0).cumsum(dim=1) <= own
    return rows, tokens


def labels_of(batch: Batch, is_shifted: bool) -> Tensor | None:
    """The labels of a batch; of a language model's text that is padded on its left, without the first token's.

    Nothing stands before a text, so nothing predicts its first token: on the right, where it is the first of its row,
    the shift leaves it out, and on the left it would be predicted from padding.
    """
    labels, mask = whole_labels(batch.get(LABELS)), batch.get("attention_mask")
    if not is_shifted or labels is None or mask is None or mask.shape != labels.shape:
        return labels
    behind_padding = nn.functional.pad(mask[:, :-1] == 0, (1, 0))
    return labels.masked_fill(behind_padding.to(labels.device), IGNORED_LABEL)


def count_items(batch: Batch, is_shifted: bool) -> Tensor:
    """(labelled, taught) rows of a classifier's batch, or tokens of a batch of texts.

    A language model's are counted after the shift: the Trainer counts before it where it does not know the model's
    loss, as for GPT-2.
    """
    labels = labels_of(batch, is_shifted)
    if labels is None:
        return torch.tensor([0, len(next(iter(batch.values())))])
    labelled = ((labels[:, 1:] if is_shifted else labels) != IGNORED_LABEL).sum()
    if isinstance(batch, WrittenBatch):
        return torch.stack([torch.zeros_like(labelled), labelled])
    return torch.stack([labelled, labelled if labels.ndim > 1 else torch.full_like(labelled, len(labels))])
