"""`evaluate.load("kdcourse/labs/metrics/rater_divergence.py")`"""

from __future__ import annotations

import numpy as np
import scipy.special

from kdcourse.labs.metrics.row_metric import PROBABILITIES, RowMetric


class RaterDivergence(RowMetric):
    """Mean of KL(raters ‖ model), in nats: how far the model is from what people say of each row."""

    name = "rater_divergence"
    references = PROBABILITIES

    def value(self, log_probs: np.ndarray, references: np.ndarray) -> float:
        named = np.where(references > 0, log_probs, 0)  # 0 · −inf counts as 0
        cross_entropy = -(references * named).sum(axis=1)
        return np.mean(cross_entropy - scipy.special.entr(references).sum(axis=1))
