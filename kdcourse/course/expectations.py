"""What claims and predictions of a lesson are held against: `notebooks/claims/01.toml`, beside it and out of sight.

[claim."KL(q ‖ p), nats"]
expected = 1.0021
tolerance = {cpu = 1e-6, cuda = 1e-4}       # or one number for both

[claim."gain over labels alone, points"]
at_least = 1
when = "full"                               # of this profile, or of these assets; elsewhere it is only shown

[claim."answers in another order are refused"]
holds = true
guard = true                                # shows nothing

[prediction."01.surprise"]
answer = 0.8543                             # or the text of the right choice, or a sentence
tolerance = 1e-4
usual = "3"
why = "…"
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from kdcourse.course.lessons import LessonError, course_notebooks
from kdcourse.course.misuse import MisuseError

FOLDER = "claims"
"""Beside the notebooks."""

CIRCUMSTANCES = ("quick", "full", "embedded", "hub")
"""What `when` can name: a profile, or where models and data come from."""

PerDevice = float | Mapping[str, float]
"""One number, or one for each kind of device where arithmetic differs: `{"cpu": 1e-6, "cuda": 1e-4}`."""


class ExpectationError(MisuseError):
    """A file of expectations is not there, is none, or lacks what a lesson claims; the message says what to do."""


@dataclass(frozen=True)
class Bounds:
    """What a number is held against; nothing for a truth."""

    expected: float | None = None
    tolerance: PerDevice | None = None
    at_least: PerDevice | None = None
    at_most: PerDevice | None = None


@dataclass(frozen=True)
class ExpectedClaim(Bounds):
    """One claim: a number with bounds, or a truth."""

    holds: bool = False
    """It is a truth."""
    guard: bool = False
    """As long as it holds, a reader is not shown it."""
    when: str = ""

    def problem(self) -> str:
        if self.holds:
            return "a truth (`holds`) has no bounds" if _given(self, *BOUNDS) else ""
        return problem_of_bounds(self)


@dataclass(frozen=True)
class ExpectedAnswer(Bounds):
    """One prediction: the answer, and what people say who do not know it yet."""

    answer: float | str = ""
    usual: str = ""
    why: str = ""
    when: str = ""

    def problem(self) -> str:
        if not (self.answer != "" and self.usual and self.why):
            return "answer, usual and why are all needed"
        if isinstance(self.answer, str):
            return "an answer in words has no bounds" if _given(self, *BOUNDS) else ""
        return (
            "" if _given(self, "tolerance", "at_least", "at_most") else "a number needs tolerance, at_least or at_most"
        )


BOUNDS = tuple(each.name for each in fields(Bounds))


def problem_of_bounds(bounds: Bounds) -> str:
    """What is wrong with what a number is held against, or nothing."""
    if (bounds.expected is None) != (bounds.tolerance is None):
        return "expected and tolerance only go together"
    return "" if _given(bounds, *BOUNDS) else "it is held against nothing"


@dataclass(frozen=True)
class Expectations:
    """All that one file says."""

    path: Path
    claims: Mapping[str, ExpectedClaim] = field(default_factory=dict)
    predictions: Mapping[str, ExpectedAnswer] = field(default_factory=dict)

    def claim(self, name: str) -> ExpectedClaim:
        """
        Raises:
            ExpectationError: there is no such entry.
        """
        if name not in self.claims:
            raise self._missing("claim", name, "expected and tolerance, at_least, at_most, or holds = true")
        return self.claims[name]

    def prediction(self, name: str) -> ExpectedAnswer:
        """
        Raises:
            ExpectationError: there is no such entry.
        """
        if name not in self.predictions:
            raise self._missing("prediction", name, "answer, usual and why")
        return self.predictions[name]

    def _missing(self, kind: str, name: str, fields_of_it: str) -> ExpectationError:
        return ExpectationError(
            f"{self.path.name} has no entry [{kind}.{_quoted(name)}]; write one, with {fields_of_it}."
        )

    def unclaimed(self, made: Collection[str], circumstances: Collection[str]) -> list[str]:
        """The entries that hold in these circumstances and that no cell has claimed or revealed."""
        entries: Iterable[tuple[str, ExpectedClaim | ExpectedAnswer]] = [
            *self.claims.items(),
            *self.predictions.items(),
        ]
        return [name for name, entry in entries if entry.when in ("", *circumstances) and name not in made]


def expectations_path(number: str, folder: Path) -> Path:
    return folder / FOLDER / f"{number}.toml"


def find_expectations(number: str) -> Expectations:
    """Those of a lesson by its number: beside the notebook, where its kernel starts, or else the course's own.

    Raises:
        ExpectationError: there are none.
    """
    try:
        folders = [Path.cwd(), course_notebooks()]
    except LessonError:
        folders = [Path.cwd()]
    for folder in folders:
        if (path := expectations_path(number, folder)).is_file():
            return read_expectations(path)
    raise ExpectationError(
        f"Lesson {number} has no {FOLDER}/{number}.toml, neither in {Path.cwd()} nor in the course; it says what the "
        "lesson's claims are held against."
    )


def read_expectations(path: Path) -> Expectations:
    """What a file says.

    Raises:
        ExpectationError: it cannot be read, or an entry is not one; the message names it.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExpectationError(f"{path} cannot be read as TOML: {error}.") from None
    if unknown := content.keys() - {"claim", "prediction"}:
        raise ExpectationError(f"{path} has {sorted(unknown)}; it holds [claim.…] and [prediction.…] alone.")
    claims = _entries(path, content, "claim", ExpectedClaim)
    return Expectations(path, claims, _entries(path, content, "prediction", ExpectedAnswer))


Entry = TypeVar("Entry", ExpectedClaim, ExpectedAnswer)


def _entries(path: Path, content: Mapping[str, Any], kind: str, entry: type[Entry]) -> dict[str, Entry]:
    tables = content.get(kind, {})
    if not isinstance(tables, dict):
        raise ExpectationError(f"{path}: {kind} is {tables!r}, and no table of entries.")
    return {name: _entry(f"{path}: [{kind}.{_quoted(name)}]", table, entry) for name, table in tables.items()}


def _entry(where: str, table: Any, entry: type[Entry]) -> Entry:
    known = {each.name: str(each.type) for each in fields(entry)}
    if not isinstance(table, dict) or table.keys() - known.keys():
        raise ExpectationError(f"{where} is {table!r}; an entry has {', '.join(known)}.")
    for name, value in table.items():
        if not _is_of(known[name], value):
            raise ExpectationError(f"{where}: {name} is {value!r}, which is not {known[name]}.")
    read = entry(**table)
    problem = read.problem()
    if not problem and read.when not in ("", *CIRCUMSTANCES):
        problem = f"when is {read.when!r}, and can be {', '.join(CIRCUMSTANCES)}"
    if problem:
        raise ExpectationError(f"{where}: {problem}.")
    return read


def _is_of(kind: str, value: Any) -> bool:
    """Whether a value of a file is of the kind that a field has."""
    if "PerDevice" in kind and isinstance(value, dict):
        return value.keys() == {"cpu", "cuda"} and all(map(_is_number, value.values()))
    if "str" in kind and isinstance(value, str):
        return True
    return isinstance(value, bool) if kind == "bool" else _is_number(value) and kind != "str"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _given(bounds: Bounds, *names: str) -> bool:
    return any(getattr(bounds, name) is not None for name in names)


def _quoted(name: str) -> str:
    return f'"{name}"'
