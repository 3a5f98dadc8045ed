"""The figures of lab 08."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.scores import spread
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE, panels_width

LOOKS: Sequence[dict[str, Any]] = [
    {"color": ORANGE, "marker": "o", "linestyle": "-"},
    {"color": ORANGE, "marker": "s", "linestyle": ":"},
    {"color": BLUE, "marker": "D", "linestyle": "-"},
    {"color": GREEN, "marker": "^", "linestyle": "-"},
    {"color": GREEN, "marker": "v", "linestyle": ":"},
    {"color": BLUE, "marker": "P", "linestyle": ":"},
]
"""Of six arms: no two have one marker."""

GB = 1e9
EMPTY = 200
"""Tokens in a bin below which it is not drawn."""


def change_by_layer(changes: Sequence[float], kept: Sequence[int]) -> Picture:
    """How much each layer turns the residual stream, as bars; those of the kept layers are filled."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.5, 3))
        for layer, change in enumerate(changes):
            is_kept = layer in kept
            axes.bar(layer, change, color=BLUE if is_kept else "white", edgecolor=BLUE if is_kept else GREY)
        axes.set(xlabel="layer (filled: kept)", ylabel="1 − cosine(before, after)")
        axes.set_xticks(range(0, len(changes), 5))
        axes.grid(axis="x", visible=False)
    said = ", ".join(f"{layer}: {change:.2f}" for layer, change in enumerate(changes))
    alt = f"How much each layer turns the residual stream, 1 − cosine. {said}. Kept: {', '.join(map(str, kept))}."
    return Picture(figure, alt)


def loss_by_steps(arms: Mapping[str, Sequence[Mapping[str, float]]]) -> Picture:
    """Validation loss of each arm (at most six) against its steps: the mean over seeds, and each seed as a thin line.

    Args:
        arms: by name, for each seed the loss after each number of steps, as `Results.by_steps` has it.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.5, 4.2))
        for (name, seeds), look in zip(arms.items(), LOOKS, strict=False):
            steps = [int(step) for step in seeds[0]]
            for seed in seeds:
                axes.plot(steps, list(seed.values()), color=look["color"], linewidth=0.6, alpha=0.5)
            axes.plot(steps, _means(seeds), label=name, markersize=7, **look)
            axes.set_xticks(steps)
        axes.set(xlabel="training steps", ylabel="validation loss (nats per token)")
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    said = "; ".join(
        f"{name}: " + ", ".join(f"{loss:.2f} after {step}" for step, loss in zip(seeds[0], _means(seeds), strict=True))
        for name, seeds in arms.items()
    )
    return Picture(figure, f"Validation loss in nats per token, mean over seeds, against training steps. {said}.")


def _means(seeds: Sequence[Mapping[str, float]]) -> list[float]:
    return [mean(seed[step] for seed in seeds) for step in seeds[0]]


def reliability(models: Mapping[str, Sequence[Sequence[float]]]) -> Picture:
    """How often a model is right against how sure it is, a panel for each (at most four); the diagonal is calibrated.

    Args:
        models: by name, rows of (tokens, sum of their confidences, how many were right), by confidence; bins of less
            than 200 tokens are left out.
    """
    said = []
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, len(models), figsize=(panels_width(len(models), 2.8), 3.2), sharey=True, sharex=True, squeeze=False
        )
        for axes, (name, bins), colour in zip(panels[0], models.items(), (GREY, ORANGE, BLUE, GREEN), strict=False):
            counts, confidences, right = np.asarray([row for row in bins if row[0] >= EMPTY], dtype=float).T
            axes.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1)
            axes.plot(confidences / counts, right / counts, color=colour, marker="o", markersize=5)
            axes.set_title(name, fontsize=11)
            said.append(
                f"{name}: "
                + ", ".join(
                    f"{r / n:.0%} right at {c / n:.0%}" for n, c, r in zip(counts, confidences, right, strict=True)
                )
            )
        panels[0][0].set(ylabel="share that is right")
        figure.supxlabel("probability of the likeliest token", fontsize=11)
    return Picture(figure, f"How often models are right, by how sure they are. {'; '.join(said)}.")


def perplexity_by_domain(models: Mapping[str, Mapping[str, Sequence[float]]]) -> Picture:
    """Perplexity of each model (at most five) in each domain, on a logarithmic scale, with its spread over seeds."""
    looks = [{"color": GREY, "marker": "s"}, {"color": GREY, "marker": "x"}, *LOOKS[::2], LOOKS[5]]
    domains = list(next(iter(models.values())))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 3.8))
        for number, ((name, by_domain), look) in enumerate(zip(models.items(), looks, strict=False)):
            places = [place + 0.13 * (number - (len(models) - 1) / 2) for place in range(len(domains))]
            values = [by_domain[domain] for domain in domains]
            axes.errorbar(
                places, list(map(mean, values)), yerr=list(map(spread, values)), label=name, capsize=4, markersize=8,
                **(look | {"linestyle": "none"}),
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_xticks(range(len(domains)), domains)
        axes.set(ylabel="perplexity (log scale)")
        axes.margins(x=0.1)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    said = "; ".join(
        f"{name}: " + ", ".join(f"{mean(values):.0f} on {domain}" for domain, values in by_domain.items())
        for name, by_domain in models.items()
    )
    return Picture(figure, f"Perplexity by domain, on a logarithmic scale. {said}.")


def memory_of_steps(steps: Mapping[str, Mapping[str, int]], limit: float) -> Picture:
    """What a process has before a step, and what the step adds, as stacked bars; `limit` (bytes) is a line."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 0.7 * len(steps) + 1.4))
        for row, measured in enumerate(steps.values()):
            before, added = measured["before"] / GB, (measured["peak"] - measured["before"]) / GB
            axes.barh(row, before, color="white", edgecolor=GREY, hatch="//", label="models" if row == 0 else None)
            axes.barh(row, added, left=before, color=BLUE, label="the step" if row == 0 else None)
        axes.axvline(limit / GB, color="black", linestyle="--", linewidth=1)
        axes.set_yticks(range(len(steps)), list(steps))
        axes.set(xlabel=f"memory (GB; dashed: {limit / GB:.0f} GB)", ylim=(len(steps) - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    said = "; ".join(
        f"{name}: {each['before'] / GB:.2f} GB before and {each['peak'] / GB:.2f} GB at most"
        for name, each in steps.items()
    )
    return Picture(
        figure, f"Memory of a process before and in a training step. {said}. The line is at {limit / GB:.0f} GB."
    )


def bytes_and_error(kinds: Mapping[str, Sequence[tuple[float, float]]]) -> Picture:
    """What stand-ins for a teacher's logits cost in bytes per token, and how far off they are; both scales logarithmic.

    Args:
        kinds: by name (at most five), (bytes per token, relative error of the gradient) of each size.
    """
    looks = [LOOKS[2], LOOKS[3], LOOKS[0], {"color": GREY, "marker": "*"}, {"color": GREY, "marker": "s"}]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.5, 4))
        for (name, points), look in zip(kinds.items(), looks, strict=False):
            axes.plot(*zip(*points, strict=True), label=name, markersize=9, **look)
        axes.set(
            xscale="log", yscale="log", xlabel="bytes per token (log scale)", ylabel="error of the gradient (log scale)"
        )
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    said = "; ".join(
        f"{name}: " + ", ".join(f"{error:.2g} for {size:,.0f} bytes" for size, error in points)
        for name, points in kinds.items()
    )
    return Picture(figure, f"Relative error of the gradient against bytes per token. {said}.")
