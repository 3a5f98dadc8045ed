"""`evaluate.load("kdcourse/labs/metrics/negative_log_likelihood.py")`"""

from __future__ import annotations

import numpy as np

from kdcourse.labs.metrics.row_metric import LABELS, RowMetric


class NegativeLogLikelihood(RowMetric):
    """Mean of −log p(label), in nats: the cross-entropy with the labels."""

    name = "negative_log_likelihood"
    references = LABELS

    def value(self, log_probs: np.ndarray, references: np.ndarray) -> float:
        return -np.mean(log_probs[np.arange(len(references)), references])
