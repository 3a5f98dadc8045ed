"""Metrics of a student (lesson 07), as modules of `evaluate` that need no hub: `Accuracy().compute(...)`, or by path.

Each module is imported on a line of its own: `evaluate.load` takes `import a, b` for a package called "a,".
"""

from __future__ import annotations

from typing import Any

from kdcourse.labs.metrics.accuracy import Accuracy
from kdcourse.labs.metrics.agreement import Agreement
from kdcourse.labs.metrics.calibration_error import CalibrationError
from kdcourse.labs.metrics.negative_log_likelihood import NegativeLogLikelihood
from kdcourse.labs.metrics.rater_divergence import RaterDivergence
from kdcourse.labs.metrics.row_metric import LABELS, LOGITS, PROBABILITIES, RowMetric

METRICS: tuple[type[RowMetric], ...] = (
    Accuracy,
    Agreement,
    CalibrationError,
    NegativeLogLikelihood,
    RaterDivergence,
)


def measure(logits: Any, *, labels: Any, teacher_logits: Any = None, raters: Any = None) -> dict[str, float]:
    """Every metric for which there is a reference, by name: logits (N, C), labels (N,), raters (N, C) sum to 1."""
    references = {LABELS: labels, LOGITS: teacher_logits, PROBABILITIES: raters}
    measured: dict[str, float] = {}
    for metric in METRICS:
        if references[metric.references] is not None:
            kept_in_memory = metric(keep_in_memory=True)  # else evaluate writes each row to a file in the home folder
            measured |= kept_in_memory.compute(predictions=logits, references=references[metric.references]) or {}
    return measured


__all__ = [
    "METRICS",
    "Accuracy",
    "Agreement",
    "CalibrationError",
    "NegativeLogLikelihood",
    "RaterDivergence",
    "RowMetric",
    "measure",
]
