"""A lesson as its page needs it: folded where it is plumbing or an answer, with anchors, badges and pictures apart."""

from __future__ import annotations

import ast
import base64
import copy
import html
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_output

from coursesite.turns import Turn
from kdcourse.course.claims import METADATA_KEY
from kdcourse.course.lessons import Lesson, for_readers

FORM = "kdcourse-predict"
REVEAL = "kdcourse-reveal"
LESSON = re.compile(r"(?<![\[\w])([Ll](?:essons?|ab)\s)(\d\d)(?!\d)")
LESSONS = re.compile(r"(?<![\[\w])[Ll]essons\s\d\d(?:(?:,|,?\s(?:and|or|to))\s\d\d)+(?!\d)")
"""Several of them: "lessons 01, 05 and 06"."""
NUMBER = re.compile(r"(\s)(\d\d)")
BOLD_LESSON = re.compile(r"(?<![\[\w])([Ll]esson )\*\*(\d\d [^*]+)\*\*")
NEXT_LESSON = re.compile(r"(?<=\))(,? (?:and )?)(\d\d)(?= \()")
REVEALED = re.compile(rf'class="{REVEAL}" data-prediction="([^"]+)"')
PAGE = re.compile(r"`(docs/[\w-]+\.md)`")
APART = re.compile(r"(```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\[[^\]]*\]\([^)]*\))", re.DOTALL)
"""Code, formulas and links: what is no prose."""
EDITIONS = {
    "learner": "for learners",
    "solutions": "solutions",
    "instructor": "for instructors",
    "slides": "slides",
}


@dataclass
class LessonPage:
    """A lesson, the notebook that holds its outputs, and what its page is made of."""

    lesson: Lesson
    executed: NotebookNode
    pages: Mapping[str, str]
    """The file name of each lesson, by its number."""
    turns: Sequence[Turn] = ()
    """What can be turned without a kernel, each after its cell."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """File name to PNG, filled by `notebook`."""
    covers: list[str] = field(default_factory=list)
    """The pictures that can stand for the lesson: wide, and the answer to no prediction."""

    @property
    def predictions(self) -> list[str]:
        """The names of its questions."""
        outputs = [str(cell.get("outputs", "")) for cell in self.executed.cells]
        return [name for text in outputs for name in re.findall(rf'{FORM}" data-prediction="([^"]+)"', text)]

    def notebook(self) -> NotebookNode:
        """What MyST-NB reads."""
        page = copy.deepcopy(self.executed)
        page.cells = [piece for cell in page.cells for piece in self._pieces(cell)]
        page.metadata["mystnb"] = {"code_prompt_hide": "{type}", "code_prompt_show": "{type}"}
        return page

    def _pieces(self, cell: NotebookNode) -> Iterator[NotebookNode]:
        anchor = f'<div class="cell-anchor" id="cell-{html.escape(cell.id, quote=True)}"></div>'
        if cell.cell_type == "markdown":
            is_header = cell.id == self.executed.cells[0].id
            source = self._with_links(cell.source)
            cell.source = f"{source}\n\n{self._bar()}" if is_header else f"{anchor}\n\n{source}"
            yield cell
            yield from self._turns_after(cell)
            return
        yield new_markdown_cell(anchor, id=f"{cell.id}-anchor"[:64])
        if fold := _fold_of(cell):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), fold[0]]
            cell.metadata["mystnb"] = {"code_prompt_show": fold[1], "code_prompt_hide": fold[1]}
        cell.source = for_readers(cell.source)
        cell.outputs = list(self._outputs(cell))
        yield cell
        yield from self._turns_after(cell)

    def _turns_after(self, cell: NotebookNode) -> Iterator[NotebookNode]:
        for turn in self.turns:
            if turn.cell == cell.id:
                yield new_markdown_cell(f"```{{raw}} html\n{turn.markup('../_static')}\n```", id=f"turn-{turn.name}")

    def _bar(self) -> str:
        parts = {"predictions": self.predictions, "exercises": self.lesson.exercises}
        counts = " · ".join(f"{len(each)} {word}" for word, each in parts.items() if each)
        links = " · ".join(_download(folder, words, self.lesson.name) for folder, words in EDITIONS.items())
        return (
            f'<div class="lesson-bar" data-lesson="{self.lesson.number}"><p>{counts}</p> <p>Notebook: {links}. '
            "In JupyterLab: <code>kdcourse start</code>, then <code>kdcourse lab</code>.</p></div>"
        )

    def _with_links(self, source: str) -> str:
        """Each "lesson 04" in the prose leads to that lesson, and each `docs/page.md` to that page."""

        def linked(found: re.Match[str]) -> str:
            before, words = found[1], found[2]
            number = words[:2]
            if number not in self.pages or number == self.lesson.number:
                return found[0]
            return f"{before}[{words}]({self.pages[number]})"

        parts = APART.split(source)
        parts[::2] = [LESSONS.sub(lambda several: NUMBER.sub(linked, several[0]), prose) for prose in parts[::2]]
        parts[1::2] = [PAGE.sub(r"[`\1`](../\1)", code) for code in parts[1::2]]
        for form in (BOLD_LESSON, LESSON, NEXT_LESSON):
            parts[::2] = [form.sub(linked, prose) for prose in parts[::2]]
        return "".join(parts)

    def _outputs(self, cell: NotebookNode) -> Iterator[NotebookNode]:
        """Claims that follow each other become one list; a picture becomes a file with its words."""
        for is_claims, outputs in groupby(cell.outputs, key=_is_claim):
            if is_claims:
                yield _as_html(f'<ul class="claims">{"".join(map(_badge, outputs))}</ul>')
                continue
            for output in outputs:
                data = output.get("data", {})
                if "image/png" in data:
                    yield self._picture(cell, output)
                elif REVEAL in data.get("text/html", ""):
                    yield _as_html(REVEALED.sub(r'\g<0> id="answer-\1"', data["text/html"]))
                else:
                    yield output

    def _picture(self, cell: NotebookNode, output: NotebookNode) -> NotebookNode:
        png = base64.b64decode(output.data["image/png"])
        name = f"{self.lesson.name}-{cell.id}-{len(self.pictures)}.png"
        self.pictures[name] = png
        width, height = struct.unpack(">II", png[16:24])
        if width > height and REVEAL not in str(cell.outputs):
            self.covers.append(name)
        alt = html.escape(output.get("metadata", {}).get("image/png", {}).get("alt", ""), quote=True)
        return _as_html(
            f'<a class="whole" href="pictures/{name}"><img class="picture" src="pictures/{name}" alt="{alt}" '
            f'width="{width}" height="{height}" loading="lazy"></a>'
        )


def executed_or_stored(lesson: Lesson, executed: Path) -> NotebookNode:
    """The copy that a run has left, if it is of the lesson as it is today; or else the notebook with what it holds."""
    stored = nbformat.read(lesson.path, as_version=4)
    copy_of_it = executed / lesson.path.name
    if not copy_of_it.is_file():
        return stored
    ran = nbformat.read(copy_of_it, as_version=4)
    return ran if _sources(ran) == _sources(stored) else stored


def _download(folder: str, words: str, name: str) -> str:
    """A link to an edition: slides are shown, notebooks are kept."""
    file, how = (f"{name}.html", "") if folder == "slides" else (f"{name}.ipynb", " download")
    return f'<a href="../editions/{folder}/{file}"{how}>{words}</a>'


def _sources(notebook: NotebookNode) -> list[tuple[str, str]]:
    return [(cell.id, cell.source) for cell in notebook.cells]


def _fold_of(cell: NotebookNode) -> tuple[str, str] | None:
    """The tag that folds a cell, and what its fold is called; nothing for code that is to be read."""
    tags = cell.metadata.get("tags", [])
    if "solution" in tags:
        return "hide-cell", "Solution"
    if "parameters" in tags:
        return "hide-input", "Parameters"
    if "skip-execution" in tags:
        return "hide-input", "For a kernel"
    if "prediction" in tags:
        return "hide-input", "The cell that asks"
    if _begins_with_imports(cell.source):
        return "hide-input", "Imports and settings"
    return None


def _begins_with_imports(source: str) -> bool:
    try:
        first = ast.parse(source).body[:1]
    except SyntaxError:  # a magic of IPython
        return False
    return bool(first) and isinstance(first[0], ast.Import | ast.ImportFrom)


def _is_claim(output: NotebookNode) -> bool:
    return METADATA_KEY in output.get("metadata", {}) and "text/html" not in output.get("data", {})


def _badge(output: NotebookNode) -> str:
    """What a claim says, and how far it may be off."""
    record = output.metadata[METADATA_KEY]
    shown = str(output.data["text/plain"]).removeprefix("✓ ").removeprefix("✗ ")
    value = shown.removeprefix(record["name"]).removeprefix(": ")
    parts = [
        '<span class="mark" aria-hidden="true">✓</span>' if record["holds"] else '<span class="mark">✗</span>',
        f'<span class="claimed">{html.escape(record["name"])}</span>',
        f"<b>{html.escape(value)}</b>" if value else "",
        f'<span class="bound">{html.escape(_bound(record))}</span>' if not record["is_truth"] else "",
    ]
    return f'<li class="{"holds" if record["holds"] else "fails"}">{" ".join(filter(None, parts))}</li>'


def _bound(record: Mapping[str, float]) -> str:
    words = {"tolerance": "±", "at_least": "at least", "at_most": "at most"}
    return ", ".join(f"{word} {record[name]:g}" for name, word in words.items() if record.get(name) is not None)


def _as_html(text: str) -> NotebookNode:
    return new_output("display_data", data={"text/html": text})
