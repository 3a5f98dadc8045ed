"""`evaluate.load("kdcourse/labs/metrics/agreement.py")`"""

from __future__ import annotations

import numpy as np

from kdcourse.labs.metrics.row_metric import LOGITS, RowMetric


class Agreement(RowMetric):
    """Share of the rows on which student and teacher give the same class, right or wrong."""

    name = "agreement"
    references = LOGITS
    citation = "Stanton et al. (2021), Does Knowledge Distillation Really Work?, NeurIPS"

    def value(self, log_probs: np.ndarray, references: np.ndarray) -> float:
        return np.mean(log_probs.argmax(axis=1) == references.argmax(axis=1))
