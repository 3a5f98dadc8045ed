"""The figures of lesson 10: what a step holds at once, and what a distillation costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE


@dataclass(frozen=True)
class Bill:
    """One way to get a teacher's answers, and what it costs."""

    way: str
    teacher_hours: float
    student_hours: float
    kept_gigabytes: float
    """On disk; 0 for nothing."""


def bills(by_pair: Mapping[str, Sequence[Bill]]) -> Picture:
    """Hours of teacher and student, and gigabytes kept, for each way; a row of two panels for each pair of models."""
    with plt.rc_context(STYLE):
        figure, rows = plt.subplots(len(by_pair), 2, figsize=(9.6, 0.7 + 1.5 * len(by_pair)), squeeze=False)
        for (pair, each), (hours, disk) in zip(by_pair.items(), rows, strict=True):
            places = range(len(each))
            teacher, student = ([getattr(bill, f"{who}_hours") for bill in each] for who in ("teacher", "student"))
            hours.barh(places, teacher, color=ORANGE, hatch="//", edgecolor="white", label="teacher")
            hours.barh(places, student, left=teacher, color=BLUE, label="student")
            for place, bill in enumerate(each):
                total = bill.teacher_hours + bill.student_hours
                hours.text(total, place, f" {total:,.3g}", va="center", fontsize=9)
            hours.set_title(pair, loc="left", fontsize=11)
            hours.set(yticks=list(places), yticklabels=[bill.way for bill in each])
            hours.set_xlim(0, 1.15 * max(map(sum, zip(teacher, student, strict=True))))
            hours.invert_yaxis()
            kept = [bill.kept_gigabytes for bill in each]
            disk.barh(places, [max(size, 1) for size in kept], color=[GREEN if size else "none" for size in kept])
            for place, size in enumerate(kept):
                disk.text(max(size, 1), place, f" {size:,.0f}" if size else " nothing", va="center", fontsize=9)
            disk.set(xscale="log", yticks=[], xlim=(1, 1e7))
            disk.invert_yaxis()
        handles, names = rows[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=2, frameon=False, fontsize=9)
        rows[-1][0].set_xlabel("hours")
        rows[-1][1].set_xlabel("GB kept (logarithmic)")
    return Picture(figure, _describe_bills(by_pair))


def _describe_bills(by_pair: Mapping[str, Sequence[Bill]]) -> str:
    pairs = "; ".join(f"{pair}: " + ", ".join(map(_describe_bill, each)) for pair, each in by_pair.items())
    return f"Hours of computing and gigabytes kept, by where the teacher's answers come from. {pairs}."


def _describe_bill(bill: Bill) -> str:
    kept = f"{bill.kept_gigabytes:,.0f} GB kept" if bill.kept_gigabytes else "nothing kept"
    teacher, student = f"{bill.teacher_hours:,.3g}", f"{bill.student_hours:,.3g}"
    return f"{bill.way} {teacher} hours of the teacher and {student} of the student, {kept}"


@dataclass(frozen=True)
class Holding:
    """What a step holds at once, in bytes, by what it is for."""

    name: str
    parts: Mapping[str, float]


PARTS = ((BLUE, ""), (GREEN, ".."), (GREY, "xx"), (ORANGE, "//"))
"""Colour and hatching of the parts, in their order."""


def held_at_once(holdings: Sequence[Holding]) -> Picture:
    """A bar for each step, in gigabytes, cut into its parts."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9.2, 0.9 + 0.5 * len(holdings)))
        for place, holding in enumerate(holdings):
            left = 0.0
            for (part, size), (colour, hatch) in zip(holding.parts.items(), PARTS, strict=False):
                label = part if place == 0 else None
                axes.barh(place, size / 1e9, left=left, color=colour, hatch=hatch, edgecolor="white", label=label)
                left += size / 1e9
            axes.text(left, place, f" {left:,.1f}", va="center", fontsize=9)
        axes.set(yticks=range(len(holdings)), yticklabels=[each.name for each in holdings], xlabel="GB at once")
        axes.set_xlim(0, 1.1 * max(sum(each.parts.values()) for each in holdings) / 1e9)
        axes.invert_yaxis()
        axes.legend(frameon=False, fontsize=9)
    return Picture(figure, _describe_holdings(holdings))


def _describe_holdings(holdings: Sequence[Holding]) -> str:
    each = "; ".join(
        f"{holding.name}: " + ", ".join(f"{part} {size / 1e9:,.1f}" for part, size in holding.parts.items())
        for holding in holdings
    )
    return f"Gigabytes that a training step holds at once. {each}."
