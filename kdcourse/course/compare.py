"""Two runs held against each other: which claims moved, how far for what they are allowed, and which broke."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdcourse.course.claims import Claim, claim_from

Verdict = Literal["held", "broke", "mended", "still broken", "gone", "new"]
BREAKS: tuple[Verdict, ...] = ("broke", "gone")


class ReportError(ValueError):
    """A file that should be a report of claims is none."""


@dataclass(frozen=True)
class Move:
    """One claim before and after; one of the two is missing if only one run made it."""

    lesson: str
    name: str
    before: Claim | None
    after: Claim | None

    @property
    def verdict(self) -> Verdict:
        if self.after is None:
            return "gone"
        if self.before is None:
            return "new" if self.after.holds else "broke"
        if self.after.holds:
            return "held" if self.before.holds else "mended"
        return "broke" if self.before.holds else "still broken"

    @property
    def difference(self) -> float:
        """After minus before, in the claim's unit; 0 if one is missing, NaN if one of them is."""
        return self.after.value - self.before.value if self.before and self.after else 0.0

    @property
    def share_of_room(self) -> float:
        """The difference against what the claim allowed before: its tolerance, or the distance from its bound."""
        if self.difference == 0 or self.before is None:
            return 0.0
        return abs(self.difference) / self.before.room if self.before.room else float("inf")

    @property
    def share_of_spread(self) -> float | None:
        """The difference against the standard deviation over seeds; nothing where no spread was measured."""
        spread = self.before.spread if self.before else None
        return abs(self.difference) / spread if spread else None


@dataclass(frozen=True)
class Report:
    """A `claims.json`: what it was measured with, and the claims by lesson and name."""

    circumstances: Mapping[str, str]
    lessons: Mapping[str, Mapping[str, Claim]]


def read_report(path: Path) -> Report:
    """Read a `claims.json` of `kdcourse run`.

    Raises:
        ReportError: it is not there, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        circumstances = {"python": content["python"], "device": content["device"], **content["versions"]}
        lessons = {
            name: {entry["name"]: claim_from(entry) for entry in claims} for name, claims in content["lessons"].items()
        }
    except FileNotFoundError:
        raise ReportError(f"{path} is not there; `kdcourse run` writes a claims.json.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{path} is not a claims.json of `kdcourse run` ({type(error).__name__}: {error}).") from None
    return Report(circumstances, lessons)


def compare(before: Report, after: Report) -> list[Move]:
    """Every claim of the lessons that both runs hold: those that broke first, then by how far they moved."""
    return sorted(_moves(before, after), key=lambda move: (move.verdict in BREAKS, move.share_of_room), reverse=True)


def changed_circumstances(before: Report, after: Report) -> dict[str, tuple[str, str]]:
    """Versions and device that differ between the two runs."""
    names = [*before.circumstances, *(after.circumstances.keys() - before.circumstances.keys())]
    pairs = {name: (before.circumstances.get(name, "–"), after.circumstances.get(name, "–")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _moves(before: Report, after: Report) -> Iterator[Move]:
    for lesson in before.lessons:
        if lesson not in after.lessons:
            continue
        old, new = before.lessons[lesson], after.lessons[lesson]
        for name in [*old, *(name for name in new if name not in old)]:
            yield Move(lesson, name, old.get(name), new.get(name))
