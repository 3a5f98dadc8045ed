"""Cut a notebook into slides, so that each fits into a window and no result appears beneath its prediction."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Iterator

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

HEADING = re.compile(r"(#{2,}) (.*)")

# Heights are estimates in lines of prose, in the fonts of slides.html.j2 and a window of 16:9. What comes out too high
# after all is shrunk a little by the page itself, and then scrolls.
SLIDE = 17.0
CHARACTERS = 85
CODE_LINE = 0.62
PICTURE = 14.0
SPACE = 0.7


def cut(cells: Iterable[NotebookNode]) -> Iterator[NotebookNode]:
    """The cells in pieces; one that begins a slide has the section that it belongs to as `metadata.slide`.

    A heading begins a slide, and so does code that shows a result: a prediction comes before it, and code states what
    it expects. Anything else appears beside what came before, if there is room.
    """
    section, used, only_heading = "", math.inf, False
    for piece, tells in _pieces(cells):
        heading = HEADING.match(piece.source) if piece.cell_type == "markdown" else None
        if heading and heading[1] == "##":
            section = heading[2]
        height = _height(piece)
        if heading or (not only_heading and (tells or used + height > SLIDE)):
            piece.metadata["slide"] = section
            used = 0.0
        used += height
        only_heading = heading is not None
        yield piece


def _pieces(cells: Iterable[NotebookNode]) -> Iterator[tuple[NotebookNode, bool]]:
    """Prose by the paragraph; a code cell whole, or its source and then its outputs.

    With each piece comes whether it gives a result away: outputs, or the claims in the code that leads to them.
    """
    for cell in cells:
        if cell.cell_type == "markdown":
            for number, block in enumerate(_blocks(cell.source)):
                yield new_markdown_cell(block, id=f"{cell.id}-{number}"), False
        elif cell.get("outputs") and _height(cell) > SLIDE:
            yield _with_outputs(cell, []), True
            for number, outputs in enumerate(_packed(cell.outputs)):
                result = _with_outputs(cell, outputs)
                result.id = f"{cell.id}-result-{number}"
                result.metadata["transient"] = {"remove_source": True}  # nbconvert's way to leave the code out
                yield result, True
        else:
            yield copy.deepcopy(cell), bool(cell.get("outputs"))


def _with_outputs(cell: NotebookNode, outputs: list[NotebookNode]) -> NotebookNode:
    cell = copy.deepcopy(cell)
    cell.outputs = outputs
    return cell


def _packed(outputs: Iterable[NotebookNode]) -> Iterator[list[NotebookNode]]:
    """As many outputs together as a slide has room for."""
    pack: list[NotebookNode] = []
    for output in outputs:
        if pack and sum(map(_output_height, [*pack, output])) > SLIDE:
            yield pack
            pack = []
        pack.append(output)
    yield pack


def _blocks(source: str) -> Iterator[str]:
    """Headings, paragraphs, tables, lists and fenced code, each whole with its indented continuations."""
    block: list[str] = []
    fenced = blank = False
    for line in source.splitlines():
        heading = HEADING.match(line) and not fenced
        paragraph = blank and not fenced and not line.startswith(" ")
        if block and line.strip() and (heading or paragraph or HEADING.match(block[0])):
            yield "\n".join(block).rstrip()
            block = []
        fenced ^= line.startswith("```")
        blank = not line.strip()
        block.append(line)
    yield "\n".join(block).rstrip()


def _height(cell: NotebookNode) -> float:
    if cell.cell_type == "markdown":
        return _prose_height(cell.source)
    source = 0.0 if "transient" in cell.metadata else _code_height(cell.source)
    return source + sum(_output_height(output) for output in cell.get("outputs", []))


def _output_height(output: NotebookNode) -> float:
    data = output.get("data", {})
    if "image/png" in data:
        return PICTURE
    if "text/markdown" in data:
        return _prose_height(data["text/markdown"])
    return CODE_LINE * len(str(output.get("text") or data.get("text/plain", "")).splitlines())


def _code_height(source: str) -> float:
    return CODE_LINE * (source.count("\n") + 2)


def _prose_height(source: str) -> float:
    if HEADING.match(source):
        return 2.5
    lines = source.splitlines()
    if source.startswith("```"):
        return _code_height(source)
    if source.startswith(("|", "-", "1.", " ")):  # rows and items keep their lines, prose is filled
        return sum(math.ceil(len(line) / CHARACTERS) + SPACE / 2 for line in lines) + SPACE
    return math.ceil(len(source) / CHARACTERS) + SPACE
