"""What the metrics have in common: logits, a row per example, held against labels or against distributions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import datasets
import evaluate
import numpy as np
import scipy.special

ROWS_AND_CLASSES = 2

LABELS = "labels"
"""References are class ids, (N,)."""
LOGITS = "logits"
"""References are a teacher's logits, (N, C)."""
PROBABILITIES = "probabilities"
"""References are distributions over the classes, (N, C)."""


class RowMetric(evaluate.Metric, ABC):
    """A metric of a classifier's logits; `name` is the key of its value, `references` one of the kinds above.

    Log-probabilities serve as well as logits: softmax does not see a shift.
    """

    name: str
    references: str
    citation = ""

    @abstractmethod
    def value(self, log_probs: np.ndarray, references: np.ndarray) -> float:
        """The metric of log-probabilities (N, C), in float64."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.List(datasets.Value("float64"))
        label = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=(type(self).__doc__ or "").strip(),
            citation=self.citation,
            inputs_description=f"predictions: logits (N, C); references: {self.references}.",
            features=datasets.Features({"predictions": row, "references": label if self.references == LABELS else row}),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Keep a batch for `compute`.

        Raises:
            ValueError: shapes or values that make no sense; it says which, and what is expected.
        """
        predictions, references = np.asarray(predictions), np.asarray(references)
        check_rows(predictions, references, self.references)
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        log_probs = scipy.special.log_softmax(np.asarray(predictions, dtype=np.float64), axis=1)
        return {self.name: float(self.value(log_probs, np.asarray(references)))}


def check_rows(predictions: np.ndarray, references: np.ndarray, kind: str) -> None:
    """Raise a ValueError in words unless predictions are logits (N, C) and references fit them."""
    if predictions.ndim != ROWS_AND_CLASSES or 0 in predictions.shape:
        raise ValueError(
            f"predictions have shape {predictions.shape}; logits are needed, one row per example and one column per "
            "class, and at least one row."
        )
    rows, classes = predictions.shape
    expected = (rows,) if kind == LABELS else (rows, classes)
    if references.shape != expected:
        raise ValueError(
            f"references have shape {references.shape}, but {kind} for predictions of shape {predictions.shape} have "
            f"{expected}."
        )
    both = {"predictions": predictions, "references": references}
    for name, logits in (both if kind == LOGITS else {"predictions": predictions}).items():
        if not np.isfinite(logits.max(axis=1)).all():
            raise ValueError(f"{name} hold NaN, inf or a row of −inf alone; look at the model that gave these logits.")
    if kind == LABELS and not (np.isin(references, np.arange(classes))).all():
        raise ValueError(
            f"references hold {references.min()} to {references.max()}, but labels are class ids from 0 to "
            f"{classes - 1}; leave out rows without a label."
        )
    if kind == PROBABILITIES and not (np.allclose(references.sum(axis=1), 1, atol=1e-4) and (references >= 0).all()):
        raise ValueError("references are no distributions: each row needs numbers from 0 that add up to 1.")
