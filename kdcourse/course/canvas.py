"""The canvas of a slide: 1200 × 800 units, which `slides.css` scales to any screen, and how much of it text needs.

The fonts are as small as a screen of 4:3 allows, where the canvas is as wide as the screen and three quarters as high:
code is 2.4% of that screen's height, prose 3.3%. Heights are estimates, in units, for fonts as wide as Arial; in
Chromium, a test compares them with what every slide takes.
"""

from __future__ import annotations

import base64
import functools
import itertools
import re
import struct
import textwrap
from collections.abc import Iterator, Sequence

HEADING = re.compile(r"(#{1,6}) (.*)")
ITEM = re.compile(r"([-*]|\d+\.) ")

WIDTH, HEIGHT = 1140.0, 728.0
"""What a slide has for its content."""
CODE_LINE, PROSE_LINE = 28.5, 41.0
CODE_COLUMNS, PROSE_COLUMNS = 84, 80
FRAME = 18.0
"""Above and beneath code, together."""
GAP = 14.0
ONWARD = 17.0
"""What says that code continues."""
LEAST_ZOOM, MOST_ZOOM = 0.95, 1.7
"""Units per pixel of a figure, whose words are 17 pixels high: below 0.95 a back row cannot read them."""
HIGHEST_PICTURE = 660.0


def blocks_of_prose(source: str) -> Iterator[str]:
    """Headings, paragraphs, tables, lists and fenced code, each whole with its indented continuations."""
    block: list[str] = []
    fenced = blank = False
    for line in source.splitlines():
        heading = HEADING.match(line) and not fenced
        continues_list = ITEM.match(line) and block and ITEM.match(block[0])
        paragraph = blank and not fenced and not line.startswith(" ") and not continues_list
        begins_list = block and not fenced and ITEM.match(line) and not ITEM.match(block[0]) and blank
        if block and line.strip() and (heading or paragraph or begins_list or HEADING.match(block[0])):
            yield "\n".join(block).rstrip()
            block = []
        fenced ^= line.startswith("```")
        blank = not line.strip()
        if block or line.strip():
            block.append(line)
    if block:
        yield "\n".join(block).rstrip()


def items_of(lines: Sequence[str]) -> Iterator[str]:
    item: list[str] = []
    for line in lines:
        if item and ITEM.match(line):
            yield "\n".join(item).rstrip()
            item = []
        item.append(line)
    yield "\n".join(item).rstrip()


@functools.cache
def prose_height(source: str, share: float = 1.0) -> float:
    blocks = list(blocks_of_prose(source))
    return sum(_prose_block_height(block, share) for block in blocks) + GAP * (len(blocks) - 1)


def _prose_block_height(block: str, share: float) -> float:
    lines = block.splitlines()
    if heading := HEADING.match(block):
        size = {1: 58, 2: 46}.get(len(heading[1]), 38)
        return 1.2 * size * len(_filled(heading[2], 27 / size * share))
    if block.startswith("```"):
        return FRAME + wrapped(lines[1:-1], share)
    if block.startswith("$$"):
        rows = block.split(r"\\")
        return 28 + sum(_formula_height(row) for row in rows)
    if block.startswith("|"):
        return _table_height([*lines[:1], *lines[2:]], share)
    if ITEM.match(block):
        return sum(PROSE_LINE * len(_filled(" ".join(item.split()), share * 0.965)) + 8 for item in items_of(lines))
    return PROSE_LINE * len(_filled(" ".join(lines), share))


def _formula_height(row: str) -> float:
    if "\\frac" in row:
        return 74.0
    return 54.0 if re.search(r"\\sum|\\prod|\\int", row) else 48.0


def _table_height(rows: Sequence[str], share: float) -> float:
    """As browsers do it: each column has its longest word, and the more it would like, the more of what is left."""
    cells = [[cell.strip() for cell in row.strip("| ").split("|")] for row in rows]
    columns = [list(map(_unmarked, column)) for column in itertools.zip_longest(*cells, fillvalue="")]
    most = [max(map(len, column)) for column in columns]
    least = [max(len(word) for cell in column for word in re.split(r" |(?<=-)", cell)) for column in columns]
    room = PROSE_COLUMNS * share - 2.1 * len(columns)
    given = min(1.0, max(0.0, room - sum(least)) / max(1, sum(most) - sum(least)))
    widths = [low + given * (high - low) for low, high in zip(least, most, strict=True)]
    lines = [max(len(_filled_to(cell, int(width))) for cell, width in zip(row, widths, strict=False)) for row in cells]
    return sum(PROSE_LINE * each + 11.5 for each in lines)


def indent_of(line: str) -> int:
    """How many spaces it begins with."""
    return len(line) - len(line.lstrip(" "))


@functools.cache
def _wrapped_line(line: str, columns: int) -> int:
    """How many lines it becomes; those that follow are indented by four more."""
    hanging = " " * min(indent_of(line) + 4, columns // 2)
    return max(1, len(textwrap.wrap(line, columns, subsequent_indent=hanging, break_on_hyphens=False)))


def wrapped(lines: Sequence[str], share: float) -> float:
    return CODE_LINE * sum(_wrapped_line(line, max(10, int(CODE_COLUMNS * share))) for line in lines)


def _filled(text: str, share: float) -> list[str]:
    return _filled_to(text, int(PROSE_COLUMNS * share))


@functools.cache
def _filled_to(text: str, columns: int) -> list[str]:
    return textwrap.wrap(_unmarked(text), max(5, columns)) or [""]


def _unmarked(text: str) -> str:
    """About as long as it will look: a command of TeX is one sign, and the address of a link is not seen."""
    return re.sub(r"\\[a-zA-Z]+|[{}$*`]|\]\([^)]*\)", "", text)


@functools.cache
def size_of(png: str) -> tuple[int, int]:
    """Width and height of a picture, in pixels."""
    width, height = struct.unpack(">II", base64.b64decode(png[:64])[16:24])
    return width, height


def picture_size(png: str, share: float, zoom: float = MOST_ZOOM, parts: int = 1) -> tuple[float, float]:
    """Width and height of a picture in units, where there is room for it over this share of the slide's width.

    Args:
        parts: of how many slides it is shown on, one beneath the other, with a little of each on the next.
    """
    width, height = size_of(png)
    shown = height if parts == 1 else height / parts * OVERLAP
    fits = min(zoom, (WIDTH * share - GAP) / width, HIGHEST_PICTURE / shown)
    return width * fits, shown * fits


OVERLAP = 1.06


def parts_needed(png: str) -> int:
    """On how many slides a picture is shown, so that its words can be read."""
    return max(1, round(size_of(png)[1] * LEAST_ZOOM / HEIGHT))


def question_height(text: str) -> float:
    """A question in the first line, and a choice in each of the others."""
    question, *choices = text.splitlines()
    lines = len(_filled(question, 0.72)) + sum(len(_filled(choice, 0.76)) for choice in choices)
    return 22.0 + 49 * lines + 10 * len(choices)
