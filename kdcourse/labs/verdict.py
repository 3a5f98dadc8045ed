"""Is one way of training better than another, or may chance have done it (lessons 00, 03, 04, 07)?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats


@dataclass(frozen=True)
class Verdict:
    """The mean difference (second minus first), its confidence interval and its standard deviation over the seeds."""

    difference: float
    low: float
    high: float
    spread: float

    @property
    def word(self) -> str:
        """`better`, `worse`, or `no difference shown` if the interval holds 0."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference shown"


def compare_paired(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Verdict:
    """Student's t interval of the differences between two series that were run with the same seeds, in the same order.

    The seeds are the sample: the interval says what another seed might have given, not what other test sentences might.

    Raises:
        ValueError: the series do not pair up, hold fewer than two values, or one that is not finite.
    """
    if len(first) != len(second) or len(first) < 2:  # noqa: PLR2004  (a spread needs two values)
        raise ValueError(
            f"There are {len(first)} and {len(second)} scores; they are compared pair by pair, at least two."
        )
    differences = np.subtract(second, first)
    if not np.isfinite(differences).all():
        raise ValueError(f"The scores are {list(first)} and {list(second)}; a verdict needs finite numbers.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy's, where every seed gives the same difference
        low, high = scipy.stats.ttest_1samp(differences, 0).confidence_interval(confidence)
    return Verdict(float(differences.mean()), float(low), float(high), float(differences.std(ddof=1)))
