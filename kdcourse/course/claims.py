"""Claims: what a lesson states, computed, held against a tolerance, shown and recorded.

    claim("KL(q ‖ p), nats", forward_kl(p, q).item(), 1.0021, tolerance=1e-4)
    claim("gain of the teacher, points", gain, at_least=1.0)
    claim("the naive gradient is NaN", naive.isnan().all())

A claim prints a line and leaves its exact value in the metadata of the cell's output, where `kdcourse run` collects it.
The line shows the value only as far as the tolerance goes, so that it is the same on every machine on which the claim
holds; beside a bound it shows three digits, which no comparison of outputs looks at. One that does not hold raises
`ClaimError`; in a run (`KDCOURSE_CLAIMS=collect`) it is recorded, the lesson goes on, and the run fails at the end with
all that did not hold.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

METADATA_KEY = "kdcourse_claim"
MODE_VARIABLE = "KDCOURSE_CLAIMS"
"""Set to `collect`, claims that do not hold are recorded and not raised."""

PerDevice = float | Mapping[str, float]
"""One number, or one for each kind of device where arithmetic differs: `{"cpu": 1e-6, "cuda": 1e-4}`."""

BESIDE_A_BOUND = re.compile(r"(✓ .*: )\S+( \(at (?:least|most) )")
"""A claim's line around a value that may differ between machines; `tests/nbval_sanitize.cfg` has the same pattern."""

_made: dict[str, Claim] = {}


class ClaimError(AssertionError):
    """A number that a lesson states is not what was measured."""


@dataclass(frozen=True)
class Claim:
    """One statement; a truth value is recorded as 1 or 0."""

    name: str
    value: float
    expected: float | None = None
    tolerance: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    is_truth: bool = False
    spread: float | None = None
    """Standard deviation of the value over seeds, where it was measured."""

    @property
    def holds(self) -> bool:
        """NaN holds nothing."""
        if self.expected is not None and self.tolerance is not None:
            return abs(self.value - self.expected) <= self.tolerance
        above = self.at_least is None or self.value >= self.at_least
        below = self.at_most is None or self.value <= self.at_most
        return above and below and not math.isnan(self.value)

    @property
    def condition(self) -> str:
        """What the value is held against, in words."""
        if self.is_truth:
            return "holds"
        if self.expected is not None:
            return f"expected {self.expected:g} ± {self.tolerance:g}"
        bounds = [("at least", self.at_least), ("at most", self.at_most)]
        return ", ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)

    @property
    def room(self) -> float:
        """How far the value may move: the tolerance, or the distance from where it is to the nearer bound."""
        if self.tolerance is not None:
            return self.tolerance
        return min(abs(self.value - bound) for bound in (self.at_least, self.at_most) if bound is not None)

    def __str__(self) -> str:
        """One line: what was measured, beside what it is held against."""
        if not self.holds:
            return f"✗ {self.name} does not hold: it is {self.value:.6g}, {self.condition}"
        if self.is_truth:
            return f"✓ {self.name}: {self.condition}"
        return f"✓ {self.name}: {self._shown} ({self.condition})"

    @property
    def _shown(self) -> str:
        """The value, without the digits that the tolerance leaves open, or with three beside a bound; 0 has no sign."""
        if self.tolerance is None:
            shown = f"{self.value:.3g}"
        elif self.tolerance == 0:
            shown = f"{self.value:g}"
        else:
            shown = f"{self.value:.{min(max(0, math.ceil(-math.log10(self.tolerance))), 12)}f}"
        return shown if float(shown) else shown.lstrip("-")


def claim(
    name: str,
    value: Any,
    expected: float | None = None,
    *,
    tolerance: PerDevice | None = None,
    at_least: PerDevice | None = None,
    at_most: PerDevice | None = None,
    spread: float | None = None,
) -> None:
    """State a number, or a truth; raise if it is not so.

    Args:
        name: what is claimed, with its unit; unique in its notebook.
        value: a number, a tensor of one element, or a truth value (then there is nothing to compare with).
        expected, tolerance: the number and how far off, in its unit, it may be; always together.
        at_least, at_most: bounds, instead of an expected number. Tolerance and bounds may differ between devices.
        spread: the standard deviation of the value over seeds; `kdcourse compare` holds a change against it.

    Raises:
        ClaimError: it does not hold.
        ValueError: a number without anything to compare with, or `expected` without `tolerance`.
    """
    value = value.item() if hasattr(value, "item") else value
    is_truth = isinstance(value, bool)
    tolerance, at_least, at_most = map(_on_this_device, (tolerance, at_least, at_most))
    comparisons = (expected, at_least, at_most)
    if is_truth:
        at_least = 1.0
    elif (expected is None) != (tolerance is None) or all(bound is None for bound in comparisons):
        raise ValueError(f"The claim '{name}' needs an expected number with its tolerance, or at_least, or at_most.")
    stated = Claim(name, float(value), expected, tolerance, at_least, at_most, is_truth, spread)
    _made[stated.name] = stated
    _show(stated)
    if not stated.holds and os.environ.get(MODE_VARIABLE) != "collect":
        raise ClaimError(f"'{name}' does not hold: it is {stated.value:.6g}, {stated.condition}.")


def claims_made() -> list[Claim]:
    """The claims that this process has made so far, the latest of each name, also those that do not hold."""
    return list(_made.values())


def claims_of(notebook: Any) -> list[dict[str, Any]]:
    """The claims that an executed notebook has recorded, in the order of its cells, each with its cell's id.

    A value that JSON has no number for, such as NaN, is its name in a string; `float()` reads both.
    """
    return [
        {"cell": cell.id, **output.metadata[METADATA_KEY]}
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if METADATA_KEY in output.get("metadata", {})
    ]


def claim_from(record: Mapping[str, Any]) -> Claim:
    """A claim as `claims_of` or a `claims.json` has it."""
    known: dict[str, Any] = {each.name: record[each.name] for each in fields(Claim) if each.name in record}
    return Claim(**{**known, "value": float(record["value"])})


def _show(stated: Claim) -> None:
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        print(stated)
        return
    value = stated.value if math.isfinite(stated.value) else str(stated.value)
    given = {name: part for name, part in asdict(stated).items() if part is not None}
    record = {**given, "value": value, "holds": stated.holds}
    display({"text/plain": str(stated)}, metadata={METADATA_KEY: record}, raw=True)


def _on_this_device(bound: PerDevice | None) -> float | None:
    if not isinstance(bound, Mapping):
        return bound
    import torch

    return bound["cuda" if torch.cuda.is_available() else "cpu"]
