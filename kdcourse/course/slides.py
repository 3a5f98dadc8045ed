"""Cut a notebook into slides: each fits onto one canvas, and no result stands beneath its prediction.

A lesson becomes pieces that nothing tears, and `cut` chooses where slides begin: the cheapest way there is, where a
slide costs 1, and more if it holds few words, or begins where a reader would not pause.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nbformat import NotebookNode

from kdcourse.course.canvas import (
    CODE_COLUMNS,
    CODE_LINE,
    FRAME,
    GAP,
    HEADING,
    HEIGHT,
    LEAST_ZOOM,
    MOST_ZOOM,
    ONWARD,
    WIDTH,
    picture_size,
    prose_height,
    question_height,
    size_of,
    wrapped,
)
from kdcourse.course.slide_pieces import (
    BEGINS,
    Block,
    Piece,
    is_prose,
    lines_of,
    merged,
    part_of,
    picture_of,
    pieces_of,
    text_of,
)
from kdcourse.course.statements import MOST_LINES, lines_said

FEW_WORDS = 25
TITLE, SECTION = 1, 2
"""The level of a lesson's heading, and of one that begins a section, and so a slide."""


@dataclass(frozen=True)
class Row:
    """A block over the whole width, or two side by side: code and its result, a picture and what was said."""

    left: Block
    right: Block | None = None
    columns: int = 0
    """Characters that the left one gets, of `CODE_COLUMNS`."""

    @property
    def share(self) -> float:
        """Of the width, what the right one gets."""
        return 1 - (self.columns + 3) / CODE_COLUMNS


@dataclass(frozen=True)
class Slide:
    """Pieces that are shown at a time."""

    section: str
    pieces: tuple[Piece, ...]
    continued: bool = False
    """It begins in the midst of a cell's code."""
    continues: bool = False

    @functools.cached_property
    def blocks(self) -> list[Block]:
        """Pieces that stand next to each other and are of one cell and one kind."""
        of_one_cell = itertools.groupby(self.pieces, key=lambda piece: (piece.cell, piece.kind))
        return [Block(tuple(pieces)) for _, pieces in of_one_cell]

    @functools.cached_property
    def rows(self) -> list[Row]:
        return list(_rows(self.blocks))

    @property
    def words(self) -> int:
        return sum(piece.words for piece in self.pieces)

    @property
    def code_lines(self) -> int:
        return sum(lines_said(block.source) for block in self.blocks if block.kind == "code")

    @property
    def has_room(self) -> bool:
        """Whether all of it can be shown, and nothing in it begins a slide of its own."""
        begins = any(piece.joint == BEGINS for piece in self.pieces[1:])
        return not begins and self.code_lines <= MOST_LINES and self.height(smallest=True) <= HEIGHT

    def height(self, *, smallest: bool) -> float:
        """Units that it needs, with its pictures at their smallest or as wide as there is room."""
        marks = CODE_LINE * self.continued + ONWARD * self.continues
        return marks + sum(_row_height(row, smallest) for row in self.rows) + GAP * (len(self.rows) - 1)


def cut(cells: Iterable[NotebookNode]) -> list[Slide]:
    """The slides of these cells, in order; nothing is lost or shown twice."""
    return [slide for section, pieces in _sections(list(pieces_of(cells))) for slide in _cheapest(section, pieces)]


def _slide(section: str, pieces: Sequence[Piece], start: int, end: int) -> Slide:
    return Slide(section, tuple(pieces[start:end]), _same_code(pieces, start), _same_code(pieces, end))


def _same_code(pieces: Sequence[Piece], place: int) -> bool:
    """Whether the code of one cell stands on both sides."""
    if not 0 < place < len(pieces):
        return False
    before, after = pieces[place - 1 : place + 1]
    return before.kind == after.kind == "code" and before.cell == after.cell


def _sections(pieces: list[Piece]) -> Iterator[tuple[str, list[Piece]]]:
    """Each `##` with what follows it; what stands before the first has no section."""
    starts = [place for place, piece in enumerate(pieces) if piece.level == SECTION]
    for start, end in itertools.pairwise([0, *starts, len(pieces)]):
        if start < end:
            heading = HEADING.match(pieces[start].source)
            yield (heading[2] if heading and pieces[start].level == SECTION else ""), pieces[start:end]


def _cheapest(section: str, pieces: Sequence[Piece]) -> list[Slide]:
    """The cheapest way to cut a section, found from the front to the back."""
    ways: list[tuple[float, list[Slide]]] = [(0.0, [])]
    for end in range(1, len(pieces) + 1):
        found = []
        for start in range(end - 1, -1, -1):
            slide = _slide(section, pieces, start, end)
            if end - start > 1 and not slide.has_room:
                break
            cost, before = ways[start]
            found.append((cost + _cost(slide), [*before, slide]))
        ways.append(min(found, key=lambda way: way[0]))
    return ways[-1][1]


def _cost(slide: Slide) -> float:
    first, least, most = slide.pieces[0], slide.height(smallest=True), slide.height(smallest=False)
    few = 1.2 if slide.words < FEW_WORDS else 0.3 if slide.words < 2 * FEW_WORDS and first.level != TITLE else 0.0
    empty = max(0.0, 1 - most / HEIGHT) ** 2
    small_picture = max(0.0, most - HEIGHT) / max(most - least, 1.0)
    too_high = 10 * max(0.0, least / HEIGHT - 1)
    leads_nowhere = 3.0 * slide.pieces[-1].leads
    return 1 + first.joint + leads_nowhere + few + 0.4 * empty + 0.5 * small_picture + too_high


def _rows(blocks: list[Block]) -> Iterator[Row]:
    place = 0
    while place < len(blocks):
        left, right = blocks[place], blocks[place + 1] if place + 1 < len(blocks) else None
        if columns := _columns(left, right):
            yield Row(left, right, columns)
            place += 1
        else:
            yield _picture_with_words(left)
        place += 1


def _picture_with_words(block: Block) -> Row:
    """A picture that is not wide has what was said beside it."""
    pictures = [piece for piece in block.pieces if piece.output and picture_of(piece.output)]
    words = tuple(piece for piece in block.pieces if piece not in pictures)
    if block.kind != "result" or len(pictures) != 1 or not words:
        return Row(block)
    (picture,) = pictures
    short = all(piece.output and (is_prose(piece.output) or len(lines_of(piece.output)) == 1) for piece in words)
    return Row(Block((picture,)), Block(words), CODE_COLUMNS // 2) if _is_narrow(picture) and short else Row(block)


def _is_narrow(piece: Piece) -> bool:
    """Whether a picture can be read over half of the width."""
    return piece.output is not None and size_of(picture_of(piece.output))[0] * LEAST_ZOOM < WIDTH / 2


BESIDE_PROSE = 34
"""Characters that prose needs beside code."""


def _columns(left: Block, right: Block | None) -> int:
    """The characters of code that has its result beside it, or 0."""
    if right is None or (left.kind, right.kind, left.cell) != ("code", "result", right.cell):
        return 0
    width = max(map(len, left.source.splitlines() or [""]))
    need = 0
    for output in right.outputs:
        if png := picture_of(output):
            need = max(need, math.ceil(size_of(png)[0] * LEAST_ZOOM / WIDTH * CODE_COLUMNS))
        else:
            need = max(need, BESIDE_PROSE if is_prose(output) else max(map(len, lines_of(output))))
    return width + 1 if width + 1 + need + 5 <= CODE_COLUMNS else 0


def _row_height(row: Row, smallest: bool) -> float:
    if row.right is None:
        return _block_height(row.left, 1.0, smallest)
    return max(_block_height(row.left, 1 - row.share, smallest), _block_height(row.right, row.share, smallest))


def _block_height(block: Block, share: float, smallest: bool) -> float:
    """A block over this share of the width."""
    if block.kind == "code":
        return FRAME + wrapped(block.source.splitlines(), share)
    if block.kind == "question":
        return question_height(block.source)
    if block.kind == "prose":
        return prose_height(block.source, share)
    heights = [_output_height(output, share, smallest) for output in merged(block.outputs)]
    return sum(heights) + GAP * (len(heights) - 1)


def _output_height(output: NotebookNode, share: float, smallest: bool) -> float:
    if png := picture_of(output):
        return picture_size(png, share, LEAST_ZOOM if smallest else MOST_ZOOM, part_of(output)[1])[1]
    if is_prose(output):
        return prose_height(text_of(output), share) + 8
    return wrapped(lines_of(output), share) + 4
