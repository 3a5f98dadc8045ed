"""The figures of lesson 03."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE


def image_and_answer(image: Sequence[Sequence[float]], answer: Sequence[float], title: str) -> Picture:
    """A small grey picture, and beside it the probability (0 to 1) of each class."""
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 2.8), width_ratios=[1, 2.6])  # the title must fit
        left.imshow(image, cmap="gray_r")
        left.grid(False)
        left.set(title=title, xticks=[], yticks=[])
        bars = right.bar(range(len(answer)), [100 * share for share in answer], color=BLUE)
        right.bar_label(bars, [f"{100 * share:.0f}" if share >= 0.005 else "" for share in answer], fontsize=10)  # noqa: PLR2004
        right.set(xticks=range(len(answer)), xlabel="class", ylabel="probability (%)", ylim=(0, 105))
    return Picture(figure, _describe_image_and_answer(answer, title))


def _describe_image_and_answer(answer: Sequence[float], title: str) -> str:
    likeliest = sorted(range(len(answer)), key=lambda index: -answer[index])[:3]
    shares = ", ".join(f"{index} with {100 * answer[index]:.0f}%" for index in likeliest)
    return f"A handwritten digit, {title}, and the probabilities that the teacher gives it: {shares}."


def answers_by_class(tables: dict[float, Sequence[Sequence[float]]]) -> Picture:
    """A heat map for each temperature: the mean softened probability of each class (column) for each true class."""
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(tables), figsize=(4.6 * len(tables), 4.3))
        for axes, (temperature, table) in zip(row, tables.items(), strict=True):
            percent = [[100 * share for share in line] for line in table]
            axes.imshow(percent, cmap="Blues", vmin=0, vmax=max(max(line) for line in percent) * 1.2)
            for true, line in enumerate(percent):
                for predicted, share in enumerate(line):
                    colour = "white" if share > 50 else "black"  # noqa: PLR2004
                    axes.text(predicted, true, f"{share:.0f}", ha="center", va="center", fontsize=9, color=colour)
            axes.grid(False)
            axes.set(xticks=range(len(table)), yticks=range(len(table)), title=f"T = {temperature:g}")
            axes.set(xlabel="class", ylabel="true digit")
    return Picture(figure, _describe_answers_by_class(tables))


def _describe_answers_by_class(tables: dict[float, Sequence[Sequence[float]]]) -> str:
    return (
        "Heat maps of the teacher's mean probabilities in percent, a row for each true digit and a column for each "
        + "class. "
        + " ".join(f"T = {temperature:g}: {_describe_table(table)}." for temperature, table in tables.items())
    )


def softened_distributions(tables: dict[float, Sequence[float]]) -> Picture:
    """The same logits at several temperatures: a bar chart for each, three in a row, on one scale."""
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(rows, columns, figsize=(2.7 * columns, 2.3 * rows), sharey=True, squeeze=False)
        for left_over in grid.flat[len(tables) :]:
            left_over.set_axis_off()
        for axes, (temperature, shares) in zip(grid.flat, tables.items(), strict=False):
            top = max(range(len(shares)), key=lambda index: shares[index])
            bars = axes.bar(range(len(shares)), [100 * share for share in shares], color=BLUE)
            axes.bar_label(bars, [_percent(share) if index == top else "" for index, share in enumerate(shares)])
            axes.set(title=f"T = {temperature:g}", xticks=range(len(shares)), ylim=(0, 119), yticks=range(0, 101, 25))
        for axes in grid[:, 0]:
            axes.set_ylabel("probability (%)")
        for axes in grid[-1]:
            axes.set_xlabel("class")
    return Picture(figure, _describe_softened_distributions(tables))


def _describe_softened_distributions(tables: dict[float, Sequence[float]]) -> str:
    steps = "; ".join(
        f"T = {temperature:g}, from {_percent(min(shares))} to {_percent(max(shares))}"
        for temperature, shares in tables.items()
    )
    return f"The probabilities of {len(next(iter(tables.values())))} classes from the same logits: {steps}."


def gradient_against_temperature(
    temperatures: Sequence[float], norms: Sequence[float], guess: float | None = None
) -> Picture:
    """Gradient norm of the softened KL against T, both logarithmic, with a line of slope -2; and the same times T².

    Args:
        temperatures, norms: increasing, and the norm at each.
        guess: by what factor the reader thought that the norm shrinks from T = 1 to T = 4; marked if there is one.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.5, 3.9))
        line = [norms[-1] * (temperatures[-1] / temperature) ** 2 for temperature in temperatures]
        axes.plot(temperatures, line, color=GREY, linestyle="--", label="slope −2")
        axes.plot(temperatures, norms, color=ORANGE, marker="o", label="gradient norm")
        rescaled = [norm * temperature**2 for norm, temperature in zip(norms, temperatures, strict=True)]
        axes.plot(temperatures, rescaled, color=BLUE, marker="s", label="gradient norm × T²")
        if guess is not None:
            axes.plot(4, norms[temperatures.index(1)] / guess, color=GREEN, marker="*", markersize=15, linestyle="",
                      label=f"your guess: {guess:g} times smaller at T = 4")  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="temperature T", ylabel="norm")
        axes.set_xticks(temperatures, [f"{temperature:g}" for temperature in temperatures])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=10)
    return Picture(figure, _describe_gradient_against_temperature(temperatures, norms, guess))


def _describe_gradient_against_temperature(
    temperatures: Sequence[float], norms: Sequence[float], guess: float | None
) -> str:
    rescaled = [norm * temperature**2 for norm, temperature in zip(norms, temperatures, strict=True)]
    marked = "" if guess is None else f" Your guess, {guess:g} times smaller at T = 4, is marked with a star."
    return (
        f"Gradient norm of the softened KL against temperature, both axes logarithmic. It falls from {norms[0]:.3f} at "
        f"T = {temperatures[0]:g} to {norms[-1]:.1e} at T = {temperatures[-1]:g}, where it follows a line of slope −2. "
        f"Times T² it begins at {rescaled[0]:.3f} and ends at {rescaled[-1]:.3f}.{marked}"
    )


def _percent(share: float) -> str:
    """In whole percent, except near the ends, where that would say none or all."""
    if 0.005 <= share < 0.995:  # noqa: PLR2004
        return f"{100 * share:.0f}%"
    if 0.001 <= share <= 0.999:  # noqa: PLR2004
        return f"{100 * share:.1f}%"
    return "< 0.1%" if share < 1 / 2 else "> 99.9%"


def _describe_table(table: Sequence[Sequence[float]]) -> str:
    diagonal = [100 * line[true] for true, line in enumerate(table)]
    true, other = max(
        ((true, other) for true in range(len(table)) for other in range(len(table)) if true != other),
        key=lambda pair: table[pair[0]][pair[1]],
    )
    return (
        f"{min(diagonal):.0f} to {max(diagonal):.0f} on the diagonal, and the largest elsewhere is "
        f"{100 * table[true][other]:.0f}, for class {other} where the digit is a {true}"
    )
