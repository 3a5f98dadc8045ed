"""`evaluate.load("kdcourse/labs/metrics/calibration_error.py")`"""

from __future__ import annotations

import numpy as np

from kdcourse.labs.metrics.row_metric import LABELS, RowMetric

BINS = 15


class CalibrationError(RowMetric):
    """Expected calibration error: |accuracy − confidence| in 15 equal bins of confidence, weighted by their rows.

    Confidence is the probability of the class that the model names.
    """

    name = "calibration_error"
    references = LABELS
    citation = "Guo et al. (2017), On Calibration of Modern Neural Networks, ICML"

    def value(self, log_probs: np.ndarray, references: np.ndarray) -> float:
        confidence = np.exp(log_probs.max(axis=1))
        surplus = confidence - (log_probs.argmax(axis=1) == references)
        bins = np.ceil(confidence * BINS).astype(int)  # each open on the left: 1 to 15, as confidence is above 0
        return np.abs(np.bincount(bins, weights=surplus)).sum() / len(references)
