"""A lesson in pieces that no slide tears: a paragraph, an item of a list, a statement, an output."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from nbformat import NotebookNode

from kdcourse.course.canvas import (
    CODE_COLUMNS,
    HEADING,
    HEIGHT,
    ITEM,
    blocks_of_prose,
    items_of,
    parts_needed,
    prose_height,
)
from kdcourse.course.lessons import for_readers
from kdcourse.course.no_break import unbroken
from kdcourse.course.statements import LEFT_ALONE, MOST_LINES, Statement, lines_said, statements_of

PREDICTION, EXERCISE = "prediction", "exercise"
ASKS = {PREDICTION, EXERCISE}
"""Tags of cells that ask, for a guess or for code: beneath them stands nothing, least of all an answer."""
BEGINS = -1.0
"""The joint of a piece with which a slide begins in any case."""
MID_SENTENCE = 1.2
FEW_LINES = 3
"""Code that begins a cell and has fewer says too little alone."""

Kind = Literal["prose", "question", "code", "result"]


@dataclass(frozen=True)
class Piece:
    """What is never torn."""

    kind: Kind
    cell: str
    """The id of the cell that it comes from."""
    source: str = ""
    """Markdown or code; of an output, nothing."""
    output: NotebookNode | None = None
    joint: float = 0.0
    """What it costs to begin a slide with it: 1 is as bad as one more slide."""
    glue: str = "\n\n"
    """Between the piece before, of the same cell and kind, and this one."""
    opening: str = ""
    """What stands before it where a slide begins with it: the head of a table; of code, the line that it belongs to."""
    tells: bool = False
    """It shows a result, or is code that leads to one and may say what it expects."""

    @property
    def level(self) -> int:
        """Of a heading; 0 for all else."""
        found = HEADING.match(self.source) if self.kind == "prose" else None
        return len(found[1]) if found else 0

    @property
    def leads(self) -> bool:
        """It is a heading, or a line in bold that serves as one: what it leads to stands on the same slide."""
        return self.level > 1 or (self.kind == "prose" and re.fullmatch(r"\*\*[^*]+\*\*", self.source) is not None)

    @property
    def words(self) -> int:
        """A picture is looked at for as long as thirty words are read."""
        return 30 if self.output and picture_of(self.output) else len(self.text.split())

    @property
    def text(self) -> str:
        return text_of(self.output) if self.output else self.source


@dataclass(frozen=True)
class Block:
    """Pieces of one cell and one kind that stand together on a slide."""

    pieces: tuple[Piece, ...]

    @property
    def kind(self) -> Kind:
        return self.pieces[0].kind

    @property
    def cell(self) -> str:
        return self.pieces[0].cell

    @functools.cached_property
    def source(self) -> str:
        """The Markdown, with the head of a table that goes on; or the code, without empty lines around it, or two."""
        first, *rest = self.pieces
        text = first.source + "".join(piece.glue + piece.source for piece in rest)
        if self.kind == "code":
            return re.sub(r"\n\n\n+", "\n\n", text).strip("\n")
        return first.opening + text

    @property
    def outputs(self) -> list[NotebookNode]:
        return [piece.output for piece in self.pieces if piece.output]


def pieces_of(cells: Iterable[NotebookNode]) -> Iterator[Piece]:
    before: Piece | None = None
    begins = False
    for cell in cells:
        for piece in _pieces_of(cell, before):
            yield dataclasses.replace(piece, joint=BEGINS) if begins else piece
            before, begins = piece, False
        begins = not ASKS.isdisjoint(cell.metadata.get("tags", []))


def _pieces_of(cell: NotebookNode, before: Piece | None) -> Iterator[Piece]:
    if cell.cell_type == "markdown":
        yield from _prose(cell.id, cell.source, _after(before, 0.2))
    elif PREDICTION in cell.metadata.get("tags", []) and cell.get("outputs"):
        yield Piece("question", cell.id, unbroken(text_of(cell.outputs[0])), joint=_after(before, 0.3))
    elif cell.cell_type == "code":
        tells = bool(cell.get("outputs"))
        joint = _after(before, 0.3)
        code = for_readers(cell.source)
        tear = 0.4 if lines_said(code) <= MOST_LINES else 0.0
        statements = statements_of(code)
        for number, statement in enumerate(statements):
            alone = LEFT_ALONE if number == 1 and lines_said(statements[0].source) < FEW_LINES else 0.0
            yield _code(cell, statement, statement.joint + tear + alone if number else joint, tells)
        outputs = cell.get("outputs", [])
        for number, output in enumerate(outputs):
            joint = _between(outputs[number - 1], output) if number else 0.6
            if "text/markdown" in output.get("data", {}):
                yield from _prose(f"{cell.id}-{number}", text_of(output), joint, tells=True)
            else:
                for part in _parts_of_picture(output):
                    yield Piece("result", cell.id, output=part, joint=joint, tells=True)


def _between(before: NotebookNode, output: NotebookNode) -> float:
    """What it costs to tear an output from the one before, of the same cell."""
    if text_of(before).rstrip().endswith(":"):
        return MID_SENTENCE
    return 0.7 if _is_printed(before) and _is_printed(output) else 0.3


def _code(cell: NotebookNode, statement: Statement, joint: float, tells: bool) -> Piece:
    return Piece("code", cell.id, statement.source, joint=joint, glue="\n", opening=statement.within, tells=tells)


def _after(before: Piece | None, joint: float) -> float:
    """What it costs to tear something from the prose that leads to it."""
    if before is None or before.kind != "prose":
        return 0.0
    return MID_SENTENCE if is_unfinished(before.source) else joint


def is_unfinished(block: str) -> bool:
    """Whether prose ends before its sentence does, such as one that leads to a formula."""
    if block.startswith(("|", "$$", "```", "#")) or ITEM.match(block):
        return block.endswith(":")
    return re.search(r"[.!?]\W*$", block) is None


FOLD = re.compile(r"</?details>|<summary>(.*?)</summary>")


def _prose(cell: str, source: str, joint: float, *, tells: bool = False) -> Iterator[Piece]:
    """Paragraphs, items, rows and steps; what a reader would unfold is open, under its title.

    Args:
        joint: what it costs to begin a slide with the first.
    """
    text = FOLD.sub(lambda found: f"\n\n**{found[1]}**\n\n" if found[1] else "\n\n", source)
    before = ""
    for block in map(unbroken, blocks_of_prose(text)):
        if before:
            goes_on = is_unfinished(before) or (before.endswith("$$") and block[:1].islower())
            joint = MID_SENTENCE if goes_on else 0.5 if block.startswith("$$") else 0.15
        for piece in _parts(cell, block, joint):
            yield dataclasses.replace(piece, tells=tells)
        before = block


def _parts(cell: str, block: str, joint: float) -> list[Piece]:
    lines = block.splitlines()
    if block.startswith("|"):
        return _parts_of(cell, ["\n".join(lines[:3]), *lines[3:]], joint, 2.0, "\n".join(lines[:2]) + "\n")
    if ITEM.match(block):
        return _parts_of(cell, list(items_of(lines)), joint, 0.7)
    if block.startswith(ALIGNED) and prose_height(block) > HEIGHT / 2:
        return _parts_of(cell, list(_short_derivations(block)), joint, -0.2)
    if HEADING.match(block):
        joint = BEGINS if EXERCISE_HEADING.match(block) else -0.2
    return [Piece("prose", cell, block, joint=joint)]


EXERCISE_HEADING = re.compile(r"### Exercise ")

ALIGNED, END_ALIGNED = "$$\\begin{aligned}\n", "\n\\end{aligned}$$"
FEW_STEPS = 6


def _short_derivations(formula: str) -> Iterator[str]:
    """A derivation of many lines as several of about equal length."""
    steps = formula.removeprefix(ALIGNED).removesuffix(END_ALIGNED).split("\\\\\n")
    parts = -(-len(steps) // FEW_STEPS)
    for part in range(parts):
        some = steps[part * len(steps) // parts : (part + 1) * len(steps) // parts]
        yield ALIGNED + "\\\\\n".join(some) + END_ALIGNED


def _parts_of(cell: str, parts: list[str], first: float, between: float, opening: str = "") -> list[Piece]:
    """Items or rows; a first or a last one that stands alone costs more."""
    pieces = []
    for number, part in enumerate(parts):
        widow = 0.5 if number in (1, len(parts) - 1) else 0.0
        joint = between + widow if number else first
        pieces.append(
            Piece("prose", cell, part, joint=joint, glue="\n" if number else "\n\n", opening=opening if number else "")
        )
    return pieces


def text_of(output: NotebookNode) -> str:
    """What an output says; a picture says its description."""
    data = output.get("data", {})
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"
    return str(output.get("text") or data.get("text/markdown") or data.get("text/plain", ""))


def picture_of(output: NotebookNode) -> str:
    """A PNG in base64, or nothing."""
    return str(output.get("data", {}).get("image/png", ""))


def _parts_of_picture(output: NotebookNode) -> list[NotebookNode]:
    """A picture so high that its words would be too small on one slide, as `metadata.part`s of it, from the top."""
    parts = parts_needed(picture_of(output)) if picture_of(output) else 1
    if parts == 1:
        return [output]
    png, rest = {"image/png": picture_of(output)}, dict(output.metadata)
    first = NotebookNode(output | {"metadata": NotebookNode(rest | {"part": [0, parts]})})
    return [first] + [
        NotebookNode(output | {"data": NotebookNode(png), "metadata": NotebookNode(rest | {"part": [part, parts]})})
        for part in range(1, parts)
    ]


def part_of(output: NotebookNode) -> tuple[int, int]:
    """Which part of how many a picture is."""
    part, parts = output.get("metadata", {}).get("part", (0, 1))
    return part, parts


def is_prose(output: NotebookNode) -> bool:
    """Whether it is filled like prose: the sentence that reveals an answer."""
    return "kdcourse-reveal" in output.get("data", {}).get("text/html", "")


def lines_of(output: NotebookNode) -> list[str]:
    """What is printed, with the gaps of a table that is too wide closed to two spaces, or to one."""
    lines = text_of(output).strip("\n").splitlines() or [""]
    for gap in (2, 1):
        if max(map(len, lines)) > CODE_COLUMNS:
            lines = _with_gaps(lines, gap)
    return lines


def _with_gaps(lines: list[str], most: int) -> list[str]:
    """Lines without the columns that are empty in all of them, where more than these stand next to each other."""
    width = max(map(len, lines))
    padded = [line.ljust(width) for line in lines]
    empty = "".join(" " if all(line[at] == " " for line in padded) else "x" for at in range(width))
    kept = [at for at in range(width) if empty[max(0, at - most) : at + 1] != " " * (most + 1)]
    return ["".join(line[at] for at in kept).rstrip() for line in padded]


def merged(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """Prints that follow each other as one."""
    together: list[NotebookNode] = []
    for output in outputs:
        if together and _is_printed(output) and _is_printed(together[-1]):
            text = "\n".join(text_of(each).strip("\n") for each in (together.pop(), output))
            together.append(NotebookNode(output_type="stream", name="stdout", text=text))
        else:
            together.append(output)
    return together


def _is_printed(output: NotebookNode) -> bool:
    return not picture_of(output) and not is_prose(output)
