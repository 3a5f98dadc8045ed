"""Claims: what a lesson states, computed, held against a tolerance, shown and recorded.

    open_lesson("01", PROFILE)
    claim("KL(q ‖ p), nats", forward_kl(p, q).item())
    claim("the naive gradient is NaN", naive.isnan().all())

What is expected stands in a file beside the lesson (`kdcourse.course.expectations`): who has read it can no longer
predict. A notebook that opens no lesson states it in the call, `claim("gain, points", gain, at_least=1.0)`.

A claim shows a line with its value and leaves a record in the metadata of the cell's output, where `kdcourse run`
collects it. The line shows the value only as far as the tolerance goes, so that it is the same on every machine on
which the claim holds; held against a bound it has three digits behind a `≈`, which no comparison of outputs looks at. A
claim that only guards shows nothing. One that does not hold raises `ClaimError`; in a run (`KDCOURSE_CLAIMS`) it
is recorded, the lesson goes on, and the run fails at the end with all that did not hold. A cell can hide its outputs
(`%%capture`, `clear_output()`), so in a run each claim is also written to a file; see `kdcourse.course.ledger`.
"""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdcourse.course.expectations import (
    Bounds,
    Expectations,
    ExpectedClaim,
    PerDevice,
    find_expectations,
    problem_of_bounds,
)
from kdcourse.labs import assets

METADATA_KEY = "kdcourse_claim"
HIDDEN_KEY = "kdcourse_hidden_claims"
"""In a cell's metadata: the claims that it made, and that its outputs do not show."""
MODE_VARIABLE = "KDCOURSE_CLAIMS"
"""Set to `collect`, claims that do not hold are recorded and not raised."""
LEDGER_VARIABLE = "KDCOURSE_CLAIMS_FILE"
"""The file to which each claim of a run is written, as a line of JSON."""

NUMBERS = ("value", "expected", "tolerance", "at_least", "at_most", "spread")
NOT_FINITE = {str(number): number for number in (math.nan, math.inf, -math.inf)}
"""What JSON has no number for, by the word that stands for it in a record."""

BESIDE_A_BOUND = re.compile(r"(✓ .*: |It is )≈ \S+")
"""A line up to a value that may differ between machines; `tests/nbval_sanitize.cfg` has the same pattern."""

_made: dict[str, Claim] = {}
_opened: Opened | None = None


class ClaimError(AssertionError):
    """A number that a lesson states is not what was measured."""


@dataclass(frozen=True)
class Opened:
    """The lesson of this kernel: what it is held against, and in which circumstances it runs."""

    expectations: Expectations
    profile: str

    @property
    def circumstances(self) -> tuple[str, str]:
        return self.profile, assets.source()


def open_lesson(number: str, profile: str = "quick") -> None:
    """From now on, claims and predictions are held against `claims/<number>.toml`.

    Args:
        profile: the lesson's parameter PROFILE.

    Raises:
        ExpectationError: there is no such file, or it is none.
    """
    global _opened  # noqa: PLW0603  (one kernel runs one lesson)
    _opened = Opened(find_expectations(number), profile)


def opened() -> Opened:
    """The lesson of this kernel.

    Raises:
        ValueError: none has been opened.
    """
    if _opened is None:
        raise ValueError('No lesson is open; say open_lesson("01", PROFILE) first, with the number of yours.')
    return _opened


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
        """One line: what was measured; and what it is held against, where it does not hold."""
        if not self.holds:
            return f"✗ {self.name} does not hold: it is {self.value:.6g}, {self.condition}"
        return f"✓ {self.name}" if self.is_truth else f"✓ {self.name}: {self.shown}"

    @property
    def shown(self) -> str:
        """The value, without the digits that the tolerance leaves open, or with three beside a bound; 0 has no sign."""
        if self.tolerance is None:
            return f"≈ {self.value:.3g}" if self.value else "≈ 0"
        if self.tolerance == 0:
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
        value: a number, a tensor of one element, or a truth value.
        expected, tolerance: the number and how far off, in its unit, it may be; always together. These and the bounds
            are for a notebook that opens no lesson: those of a lesson stand in its file.
        at_least, at_most: bounds, instead of an expected number. Tolerance and bounds may differ between devices.
        spread: the standard deviation of the value over seeds; `kdcourse compare` holds a change against it.

    Raises:
        ClaimError: it does not hold.
        ExpectationError: the lesson's file has no such claim.
        ValueError: a number without anything to compare with, a lesson's claim with bounds in the call, a truth value
            for a number or a number for a truth.
    """
    value = value.item() if hasattr(value, "item") else value
    is_truth = isinstance(value, bool)
    bounds = Bounds(expected, tolerance, at_least, at_most)
    entry = _entry(name, bounds, is_truth)
    if entry.when and entry.when not in opened().circumstances:
        print(f"– {name}: ≈ {float(value):.3g}")
        return
    if entry.holds != is_truth:
        is_, asked = ("a truth value", "a number") if is_truth else ("a number", "a truth (`holds = true`)")
        raise ValueError(f"The claim '{name}' was given {value!r}, which is {is_}; its entry is of {asked}.")
    stated = hold_against(name, float(value), entry, is_truth=is_truth, spread=spread)
    if not (entry.guard and stated.holds):
        _show(stated)
    require_held(stated)


def _entry(name: str, bounds: Bounds, is_truth: bool) -> ExpectedClaim:
    """What a claim is held against: what its lesson's file says, or the call itself where no lesson is open."""
    is_bound = bounds != Bounds()
    if _opened is None:
        if not is_truth and (problem := problem_of_bounds(bounds)):
            raise ValueError(
                f"The claim '{name}' needs an expected number with its tolerance, or at_least, or at_most: {problem}."
            )
        return ExpectedClaim(**(vars(bounds) if not is_truth else {"holds": True}))
    if is_bound:
        raise ValueError(
            f"The claim '{name}' is held against its entry in {_opened.expectations.path.name}; leave the bounds out "
            "of the call."
        )
    return _opened.expectations.claim(name)


def hold_against(
    name: str, value: float, bounds: Bounds, *, is_truth: bool = False, spread: float | None = None
) -> Claim:
    """A claim, made and recorded, on this device."""
    tolerance, at_least, at_most = map(_on_this_device, (bounds.tolerance, bounds.at_least, bounds.at_most))
    at_least = 1.0 if is_truth else at_least
    stated = Claim(name, value, bounds.expected, tolerance, at_least, at_most, is_truth, spread)
    _made[stated.name] = stated
    _write_down(record_of(stated))
    return stated


def require_held(stated: Claim) -> None:
    """
    Raises:
        ClaimError: it does not hold, and no run collects what does not.
    """
    if not stated.holds and not in_a_run():
        raise ClaimError(f"'{stated.name}' does not hold: it is {stated.value:.6g}, {stated.condition}.")


def in_a_run() -> bool:
    """Whether nobody is there, and claims that do not hold are collected."""
    return os.environ.get(MODE_VARIABLE) == "collect"


def claims_made() -> list[Claim]:
    """The claims that this process has made so far, the latest of each name, also those that do not hold."""
    return list(_made.values())


def claims_of(notebook: Any) -> list[dict[str, Any]]:
    """The claims that an executed notebook has recorded, in the order of its cells, each with its cell's id.

    A value that JSON has no number for, such as NaN, is its name in a string; `float()` reads both.
    """
    return [
        {**(record if isinstance(record, Mapping) else {}), "cell": cell.id}
        for cell in notebook.cells
        for record in (*shown_claims(cell), *_listed(cell.metadata.get(HIDDEN_KEY, [])))
    ]


def _listed(records: Any) -> list[Any]:
    return records if isinstance(records, list) else [records]


def shown_claims(cell: Any) -> list[Any]:
    """The records in the outputs of a cell."""
    metadata = [output.get("metadata", {}) for output in cell.get("outputs", [])]
    return [each[METADATA_KEY] for each in metadata if METADATA_KEY in each]


def checked_claims(notebook: Any) -> list[dict[str, Any]]:
    """`claims_of` a notebook that was just run, such that reports can rely on each field, and on `holds`.

    A record that no `claim` has written stands as a claim that does not hold.
    """
    return [{**_checked(record), "cell": record["cell"]} for record in claims_of(notebook)]


def _checked(record: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return record_of(claim_from(record))
    except ValueError as error:
        return record_of(Claim(f"a claim that cannot be read: {error}", math.nan, at_least=1.0, is_truth=True))


def record_of(stated: Claim) -> dict[str, Any]:
    """A claim as a notebook and a `claims.json` have it, without what was not given."""
    given = {name: part for name, part in asdict(stated).items() if part is not None}
    return {**given, **{name: _as_json(given[name]) for name in NUMBERS if name in given}, "holds": stated.holds}


def _as_json(number: float) -> float | str:
    """The number as Python's own, or the word for it; a NumPy scalar is not known to JSON."""
    if not math.isfinite(number):
        return str(float(number))
    return number if isinstance(number, int) else float(number)


def claim_from(record: object) -> Claim:
    """A claim as a notebook or a `claims.json` has it.

    Raises:
        ValueError: a field does not hold what it should; the message says which, and what it holds.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"it is {reprlib.repr(record)}, and no object with a name and a value")
    name, is_truth = record.get("name"), record.get("is_truth", False)
    if not isinstance(name, str):
        raise ValueError(f"name is {reprlib.repr(name)}, which is no text")
    if not isinstance(is_truth, bool):
        raise ValueError(f"is_truth is {reprlib.repr(is_truth)}, which is neither true nor false")
    value, expected, tolerance, at_least, at_most, spread = (_number(record, field) for field in NUMBERS)
    if value is None:
        raise ValueError("value is missing")
    if (expected is None) != (tolerance is None):
        raise ValueError("expected and tolerance only go together")
    if tolerance is None and at_least is None and at_most is None:
        raise ValueError("it is held against nothing: tolerance, at_least and at_most are missing")
    return Claim(name, value, expected, tolerance, at_least, at_most, is_truth, spread)


def _number(record: Mapping[str, Any], field: str) -> float | None:
    number = record.get(field)
    if number is None:
        return None
    if isinstance(number, int | float) and not isinstance(number, bool):
        try:
            return float(number)
        except OverflowError:
            raise ValueError(f"{field} is larger than any float") from None
    if isinstance(number, str) and number in NOT_FINITE:
        return NOT_FINITE[number]
    raise ValueError(f"{field} is {reprlib.repr(number)}, which is no number")


def _write_down(record: Mapping[str, Any]) -> None:
    """Where a run asks for it, to a file that no cell shows or hides."""
    if ledger := os.environ.get(LEDGER_VARIABLE):
        with Path(ledger).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def _show(stated: Claim) -> None:
    show_with(stated, {"text/plain": str(stated)})


def show_with(stated: Claim, data: Mapping[str, str]) -> None:
    """Show something that holds a claim, with its record; outside of notebooks, its plain text."""
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        print(data["text/plain"])
        return
    display(dict(data), metadata={METADATA_KEY: record_of(stated)}, raw=True)


def _on_this_device(bound: PerDevice | None) -> float | None:
    if not isinstance(bound, Mapping):
        return bound
    import torch

    return bound["cuda" if torch.cuda.is_available() else "cpu"]
