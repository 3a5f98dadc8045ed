"""The figures of lesson 01."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE


def divergence_terms(classes: Sequence[str], student: Sequence[float], teacher: Sequence[float]) -> Picture:
    """Two distributions, and beside them the terms q log(q / p) of forward KL with their sum; none may be 0."""
    terms = _forward_terms(student, teacher)
    places = range(len(classes))
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
        left.bar([place - 0.2 for place in places], teacher, 0.38, color=GREY, label="teacher q")
        left.bar([place + 0.2 for place in places], student, 0.38, color=BLUE, hatch="//", label="student p", alpha=0.9)
        left.set(xticks=places, xticklabels=classes, ylabel="probability")
        left.legend(frameon=False, loc="upper center")
        heights = [*terms, sum(terms)]
        bars = right.bar(
            range(len(heights)), heights, 0.6, color=[GREEN if height >= 0 else ORANGE for height in heights]
        )
        bars[-1].set_hatch("..")
        right.bar_label(bars, [_signed(height, ".2f") for height in heights], padding=2)
        right.axhline(0, color="black", linewidth=0.8)
        for axes in (left, right):
            axes.set_axisbelow(True)
        right.margins(y=0.15)
        right.set(xticks=range(len(heights)), xticklabels=[*classes, "sum"], ylabel="q · log(q / p), nats")
    return Picture(figure, _describe_divergence_terms(classes, student, teacher))


def _describe_divergence_terms(classes: Sequence[str], student: Sequence[float], teacher: Sequence[float]) -> str:
    terms = _forward_terms(student, teacher)
    parts = "; ".join(
        f"{name}, teacher {q:g}, student {p:g}, term {_signed(term, '.2f')}"
        for name, q, p, term in zip(classes, teacher, student, terms, strict=True)
    )
    return f"Probabilities of teacher and student, and the terms of KL: {parts}. The terms add up to {sum(terms):.2f}."


def _forward_terms(student: Sequence[float], teacher: Sequence[float]) -> list[float]:
    return [q * math.log(q / p) for p, q in zip(student, teacher, strict=True)]


def logarithm_and_tangent(ratios: Sequence[float], weights: Sequence[float]) -> Picture:
    """log x below its tangent x - 1, with the gap between them at each ratio p / q; q weights it."""
    right = 1.08 * max(ratios)
    curve = [0.03 + (right - 0.03) * step / 400 for step in range(401)]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 4.2))
        axes.plot(curve, [x - 1 for x in curve], color=ORANGE, linestyle="--", label="x − 1, the tangent at 1")
        axes.plot(curve, [math.log(x) for x in curve], color=BLUE, linewidth=2.5, label="log x")
        for x, weight in zip(ratios, weights, strict=True):
            axes.plot([x, x], [math.log(x), x - 1], color=GREEN, linewidth=2.5, marker="o", markersize=7)
            is_left = x < right / 2
            axes.annotate(
                f"q = {weight:g}, gap {_gap(x):.2f}",
                (x, math.log(x)),
                xytext=(12 if is_left else -2, -9),
                textcoords="offset points",
                ha="left" if is_left else "right",
                va="top",
            )
        axes.set(xlabel="x = p / q", ylabel="log x, and the line above it", xlim=(-0.2, right))
        axes.margins(y=0.12)
        axes.legend(frameon=False, loc="upper center")
    return Picture(figure, _describe_logarithm_and_tangent(ratios, weights))


def _describe_logarithm_and_tangent(ratios: Sequence[float], weights: Sequence[float]) -> str:
    pairs = list(zip(ratios, weights, strict=True))
    gaps = "; ".join(f"at p / q = {x:.2f}, weight {weight:g}, it is {_gap(x):.2f}" for x, weight in pairs)
    return (
        "The logarithm lies below its tangent x − 1 and touches it at 1. The gap between them is never negative: "
        f"{gaps}. Weighted and added, {sum(weight * _gap(x) for x, weight in pairs):.2f}."
    )


def _gap(x: float) -> float:
    return x - 1 - math.log(x)


def covering_and_seeking(
    ratings: Sequence[int], teacher: Sequence[float], covering: Sequence[float], seeking: Sequence[float]
) -> Picture:
    """A teacher with two peaks, and the one-peaked students that are nearest to it in either direction of KL."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 3.6))
        axes.bar(ratings, teacher, 0.7, color=GREY, alpha=0.45, label="teacher: the raters")
        axes.plot(ratings, covering, color=BLUE, marker="o", markersize=8, label="smallest forward KL: covers")
        axes.plot(
            ratings, seeking, color=ORANGE, marker="s", markersize=8, linestyle="--", label="smallest reverse KL: seeks"
        )
        axes.set(xticks=ratings, xticklabels=[_signed(rating) for rating in ratings])
        axes.set(xlabel="rating", ylabel="probability")
        axes.legend(frameon=False, loc="upper left")
    return Picture(figure, _describe_covering_and_seeking(ratings, teacher, covering, seeking))


def _describe_covering_and_seeking(
    ratings: Sequence[int], teacher: Sequence[float], covering: Sequence[float], seeking: Sequence[float]
) -> str:
    halves = "; ".join(
        f"{name} gives {_share(ratings, values, -1):.0%} to the negative ratings, "
        f"{values[list(ratings).index(0)]:.0%} to 0 and {_share(ratings, values, 1):.0%} to the positive ones"
        for name, values in (
            ("the teacher, with two peaks,", teacher),
            ("the student of forward KL, one broad hill,", covering),
            ("the student of reverse KL, one narrow peak,", seeking),
        )
    )
    return f"Probabilities of the ratings {_signed(ratings[0])} to {_signed(ratings[-1])}: {halves}."


def _share(ratings: Sequence[int], probabilities: Sequence[float], sign: int) -> float:
    return sum(p for rating, p in zip(ratings, probabilities, strict=True) if rating * sign > 0)


def _signed(number: float, form: str = "d") -> str:
    return f"{number:+{form}}".replace("-", "−") if number else "0"
