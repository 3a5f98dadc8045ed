"""The figures of lesson 03."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def picture_of_a_digit(image: Sequence[Sequence[float]], title: str) -> Picture:
    """A small grey picture, and nothing that anybody answers."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(2.6, 2.8))
        _draw_digit(axes, image, title)
    return Picture(figure, f"A handwritten digit of {len(image)} × {len(image[0])} grey pixels, {title}.")


def image_and_answer(image: Sequence[Sequence[float]], answer: Sequence[float], title: str) -> Picture:
    """A small grey picture, and beside it the probability (0 to 1) of each class."""
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 2.8), width_ratios=[1, 2.6])  # the title must fit
        _draw_digit(left, image, title)
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
        figure, grid = plt.subplots(1, len(tables), figsize=(4.6 * len(tables), 4.3), squeeze=False)
        for axes, (temperature, table) in zip(grid.flat, tables.items(), strict=True):
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


def softened_distributions(tables: Mapping[float, Sequence[float]]) -> Picture:
    """The same logits at several temperatures: a column for each, in percent above, and in powers of ten below."""
    smallest = min(min(shares) for shares in tables.values())
    with plt.rc_context(STYLE):
        figure, (above, below) = plt.subplots(
            2, len(tables), figsize=(max(4, 2.4 * len(tables)), 4.6), sharey="row", squeeze=False
        )
        for upper, lower, (temperature, shares) in zip(above, below, tables.items(), strict=True):
            classes = range(len(shares))
            top, last = _largest(shares), min(classes, key=lambda index: shares[index])
            bars = upper.bar(classes, [100 * share for share in shares], color=BLUE)
            upper.bar_label(bars, [_percent(share) if index == top else "" for index, share in enumerate(shares)])
            upper.set(title=f"T = {temperature:g}", xticks=classes, ylim=(0, 119), yticks=range(0, 101, 25))
            lower.vlines(classes, smallest / 100, shares, color=ORANGE, linewidth=1)
            lower.plot(classes, shares, color=ORANGE, marker="o", linestyle="")
            lower.annotate(_tail(shares[last]), (last, shares[last]), xytext=(0, 7), textcoords="offset points",
                           ha="center", fontsize=9)  # fmt: skip
            lower.set(yscale="log", ylim=(smallest / 100, 30), xticks=classes, xlabel="class")
        above[0].set_ylabel("probability (%)")
        below[0].set_ylabel("probability,\nin powers of ten")
    return Picture(figure, _describe_softened_distributions(tables))


def _describe_softened_distributions(tables: Mapping[float, Sequence[float]]) -> str:
    steps = "; ".join(
        f"T = {temperature:g}, from {_tail(min(shares))} to {_percent(max(shares))}"
        for temperature, shares in tables.items()
    )
    return (
        f"The probabilities of {len(next(iter(tables.values())))} classes from the same logits, in percent above and "
        f"on a logarithmic axis below: {steps}."
    )


def gradient_against_temperature(
    temperatures: Sequence[float], norms: Sequence[float], guess: float | None = None
) -> Picture:
    """Gradient norm of the softened KL against T, both logarithmic, with a line of slope -2.

    Args:
        temperatures, norms: increasing, and the norm at each.
        guess: by what factor the reader thought that the norm shrinks from T = 1 to T = 4; marked if there is one.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.5, 3.9))
        line = [norms[-1] * (temperatures[-1] / temperature) ** 2 for temperature in temperatures]
        axes.plot(temperatures, line, color=GREY, linestyle="--", label="slope −2")
        axes.plot(temperatures, norms, color=ORANGE, marker="o", label="gradient norm")
        if guess is not None:
            axes.plot(4, norms[temperatures.index(1)] / guess, color=GREEN, marker="*", markersize=15, linestyle="",
                      label=f"your guess: {guess:g} times smaller at T = 4")  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="temperature T", ylabel="norm")
        _mark_temperatures(axes, temperatures)
        axes.legend(frameon=False, fontsize=10)
    return Picture(figure, _describe_gradient_against_temperature(temperatures, norms, guess))


def _describe_gradient_against_temperature(
    temperatures: Sequence[float], norms: Sequence[float], guess: float | None
) -> str:
    marked = "" if guess is None else f" Your guess, {guess:g} times smaller at T = 4, is marked with a star."
    return (
        f"Gradient norm of the softened KL against temperature, both axes logarithmic. It falls from {norms[0]:.3f} at "
        f"T = {temperatures[0]:g} to {norms[-1]:.1e} at T = {temperatures[-1]:g}, where it follows a line of slope −2."
        f"{marked}"
    )


def rescaled_gradient(temperatures: Sequence[float], norms: Sequence[float]) -> Picture:
    """Gradient norm times T², over the norm at the first temperature: each value is written at its point."""
    sizes = [norm * (temperature / temperatures[0]) ** 2 / norms[0]
             for norm, temperature in zip(norms, temperatures, strict=True)]  # fmt: skip
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.5, 3.2))
        axes.axhline(1, color=GREY, linestyle="--", label=f"as large as at T = {temperatures[0]:g}")
        axes.plot(temperatures, sizes, color=BLUE, marker="s", label="gradient norm × T²")
        for temperature, size in zip(temperatures, sizes, strict=True):
            axes.annotate(f"{size:.2f}", (temperature, size), xytext=(0, 8), textcoords="offset points", ha="center")
        axes.set(
            xscale="log", ylim=(0, 1.35 * max(sizes)), xlabel="temperature T", ylabel=f"times T = {temperatures[0]:g}"
        )
        _mark_temperatures(axes, temperatures)
        axes.legend(frameon=False, fontsize=10, loc="lower right")
    said = ", ".join(
        f"{size:.2f} at T = {temperature:g}" for size, temperature in zip(sizes, temperatures, strict=True)
    )
    return Picture(figure, f"Gradient norm of the softened KL times T², relative to the first temperature: {said}.")


def missing_digit(
    images: Sequence[Sequence[Sequence[float]]],
    answers: Mapping[str, Sequence[Sequence[float]]],
    shares: Mapping[str, Sequence[float]],
    digit: int,
) -> Picture:
    """Pictures of a digit that no student has seen, and under each what every student answers.

    Args:
        images: a few pictures of the digit.
        answers: for each student, the probabilities that it gives each picture.
        shares: for each student, how often (0 to 1) each class is its answer, over all test pictures of the digit.
        digit: which one it is; its bars are green and hatched.
    """
    columns = len(images) + 1
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            1 + len(answers), columns, figsize=(1.15 * columns + 1.2, 1.3 + 1.5 * len(answers)),
            width_ratios=[1] * len(images) + [2.2],
        )  # fmt: skip
        for axes, image in zip(grid[0], images, strict=False):
            _draw_digit(axes, image, "")
        grid[0][-1].set_axis_off()
        for row, (name, of_each) in zip(grid[1:], answers.items(), strict=True):
            for axes, answer in zip(row, of_each, strict=False):
                _draw_answer(axes, answer, digit)
            row[0].set_ylabel(name)
            _draw_answer(row[-1], shares[name], digit, with_share=True)
            row[-1].set_xticks(range(len(shares[name])))
        words = (
            f"Above the highest bar: the answer.\nGreen, hatched: {digit}.\n\nBelow: the answers\nto all the {digit}s"
        )
        grid[0][-1].text(0.5, 0, words, ha="center", va="bottom", fontsize=10, transform=grid[0][-1].transAxes)
    return Picture(figure, _describe_missing_digit(answers, shares, digit))


def _describe_missing_digit(
    answers: Mapping[str, Sequence[Sequence[float]]], shares: Mapping[str, Sequence[float]], digit: int
) -> str:
    count = len(next(iter(answers.values())))
    students = " ".join(
        f"{name}: {', '.join(str(_largest(answer)) for answer in of_each)}; of all {digit}s it calls "
        f"{100 * shares[name][digit]:.0f}% a {digit}, and {_runner_up(shares[name], digit)}."
        for name, of_each in answers.items()
    )
    return f"{count} handwritten {digit}s, and what students answer that never saw a {digit}. {students}"


def _runner_up(shares: Sequence[float], digit: int) -> str:
    other = max((index for index in range(len(shares)) if index != digit), key=lambda index: shares[index])
    return f"{100 * shares[other]:.0f}% a {other}"


def _draw_digit(axes: Axes, image: Sequence[Sequence[float]], title: str) -> None:
    axes.imshow(image, cmap="gray_r")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set(title=title, xticks=[], yticks=[])


def _draw_answer(axes: Axes, answer: Sequence[float], digit: int, with_share: bool = False) -> None:
    """A bar for each class, and over the highest its name."""
    bars = axes.bar(range(len(answer)), answer, color=BLUE)
    bars[digit].set(facecolor=GREEN, edgecolor="white", hatch="///")
    top = _largest(answer)
    name = f"{top}: {_percent(answer[top])}" if with_share else str(top)
    axes.bar_label(bars, [name if index == top else "" for index in range(len(answer))], fontweight="bold")
    axes.grid(False)
    axes.set(ylim=(0, 1.25), xticks=[], yticks=[])


def _mark_temperatures(axes: Axes, temperatures: Sequence[float]) -> None:
    axes.set_xticks(temperatures, [f"{temperature:g}" for temperature in temperatures])
    axes.minorticks_off()


def _largest(shares: Sequence[float]) -> int:
    return max(range(len(shares)), key=lambda index: shares[index])


def _tail(share: float) -> str:
    """In percent, or where that would be 0 as the nearest power of ten."""
    return _percent(share) if share >= 0.001 else "10" + str(round(log10(share))).translate(SUPERSCRIPTS)  # noqa: PLR2004


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
        f"{100 * table[true][other]:.0f}, for class {other} where the true digit is {true}"
    )
