"""Plans for a room, as `plans.toml` declares them: which lessons on which day, what is cut, when there is a break."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from kdcourse.course.misuse import MisuseError

FOLDER = Path(__file__).parent
PLANS, LESSONS = FOLDER / "plans.toml", FOLDER / "lessons.toml"
CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
LONG_BREAK = 45
"""Minutes from which on a break is a meal."""


class PlanError(MisuseError):
    """There is no such plan, or it cannot be laid out as asked; the message says why."""


@dataclass(frozen=True)
class Break:
    """A break after the first part that ends at this minute of the day or later."""

    at: int
    minutes: int

    @property
    def title(self) -> str:
        return "Lunch" if self.minutes >= LONG_BREAK else "Break"


@dataclass(frozen=True)
class Plan:
    """Lessons for a room, day by day."""

    name: str
    title: str
    days: Sequence[Sequence[str]]
    cut: Sequence[str]
    breaks: Sequence[Break]
    start: int = 9 * 60
    """Minute of the day, to which the breaks fit."""

    @property
    def lessons(self) -> list[str]:
        return [number for day in self.days for number in day]

    def moved(self, start: str, breaks: str | None = None) -> Plan:
        """The plan from another time on; its own breaks move with it, unless there are others.

        Raises:
            PlanError: that is no time, or no break.
        """
        begin = minute_of(start)
        own = [replace(each, at=each.at + begin - self.start) for each in self.breaks]
        return replace(self, start=begin, breaks=own if breaks is None else breaks_of(breaks))


@dataclass(frozen=True)
class Spoken:
    """What is said of a lesson in a room, and what may be cut, with reasons."""

    say: str
    cuts: Mapping[str, str]


@cache
def all_plans() -> dict[str, Plan]:
    """By name, in the order of the file."""
    told = tomllib.loads(PLANS.read_text(encoding="utf-8"))["plans"]
    return {
        name: Plan(name, plan["title"], plan["days"], plan["cut"], breaks_of(" ".join(plan["breaks"])))
        for name, plan in told.items()
    }


def find_plan(name: str) -> Plan:
    """
    Raises:
        PlanError: there is none of this name.
    """
    if name not in all_plans():
        raise PlanError(f"There is no plan {name!r}; there are {', '.join(all_plans())}.")
    return all_plans()[name]


@cache
def all_spoken() -> dict[str, Spoken]:
    """By the number of the lesson."""
    told = tomllib.loads(LESSONS.read_text(encoding="utf-8"))
    return {number: Spoken(each["say"], each.get("cuts", {})) for number, each in told.items()}


def reason_for(cut: str) -> str:
    """Why an exercise, or a section such as "03: 8 · Which T?", may be left out.

    Raises:
        PlanError: lessons.toml has no reason.
    """
    lesson, key = cut.partition(".")[0], cut
    if ": " in cut:
        lesson, _, key = cut.partition(": ")
    reason = all_spoken()[lesson].cuts.get(key) if lesson in all_spoken() else None
    if reason is None:
        raise PlanError(f"A plan cuts {cut!r}, and lessons.toml does not say why; add it to the cuts of {lesson}.")
    return reason


def minute_of(clock: str) -> int:
    """The minute of the day of "09:00".

    Raises:
        PlanError: it is no time.
    """
    found = CLOCK.fullmatch(clock.strip())
    if found is None:
        raise PlanError(f"{clock!r} is no time of a day; write it like 09:00.")
    return 60 * int(found[1]) + int(found[2])


def clock_of(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def breaks_of(text: str) -> list[Break]:
    """Breaks from "10:30/15 12:20/60", times and minutes; none from "".

    Raises:
        PlanError: it is written otherwise.
    """
    found = []
    for word in text.split():
        clock, _, minutes = word.partition("/")
        if not minutes.isdigit() or not int(minutes):
            raise PlanError(f"{word!r} is no break; write time and minutes, like 10:30/15.")
        found.append(Break(minute_of(clock), int(minutes)))
    return sorted(found, key=lambda each: each.at)
