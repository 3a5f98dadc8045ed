"""`evaluate.load("kdcourse/labs/metrics/accuracy.py")`"""

from __future__ import annotations

import numpy as np

from kdcourse.labs.metrics.row_metric import LABELS, RowMetric


class Accuracy(RowMetric):
    """Share of the rows whose largest logit is that of the label."""

    name = "accuracy"
    references = LABELS

    def value(self, log_probs: np.ndarray, references: np.ndarray) -> float:
        return np.mean(log_probs.argmax(axis=1) == references)
