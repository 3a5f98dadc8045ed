"""Lay out what Sphinx reads: pages and lessons in the folders that they have here, so that links stay as they are."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from coursesite.glossary import with_anchors
from coursesite.landing import landing_page
from coursesite.lesson_pages import LessonPage, executed_or_stored
from coursesite.reference import command_page, module_pages, summaries, symptoms_page
from coursesite.turns import all_turns, turns_page
from kdcourse.course.editions import write_editions
from kdcourse.course.html_pages import TEMPLATES
from kdcourse.course.lessons import Lesson, lessons_in

ROOT = Path(__file__).parents[2]
HOST = "https://github.com/kdcourse/kdcourse/blob/main/"
"""Where a link to a file leads that is no page."""

LINK = re.compile(r"(?<=\]\()(?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?(?=\))")
ROW = re.compile(r"^\|.*\]\((?P<lesson>[^)]*\.ipynb)\).*$", re.MULTILINE)
COPIED = re.compile(r"docs/(\w+\.json|instructor/\w+\.html)")
"""Files beside the pages that the site has, too."""
CODE = re.compile(r"`([\w-]+)`")


@dataclass(frozen=True)
class Chapter:
    """A part of the site's table of contents."""

    caption: str
    pages: Sequence[str]
    """Paths from the root, without suffix."""


def stage(folder: Path, executed: Path) -> None:
    """Write all that Sphinx reads into `folder`.

    Args:
        executed: where a run may have left executed notebooks.
    """
    lessons = lessons_in(ROOT / "notebooks")
    pages = [_lesson_page(lesson, lessons, executed) for lesson in lessons]
    for page in pages:
        _write_lesson(page, folder)
    documents = mapped_pages()
    for name in documents:
        _write(folder / name, _page(name, {*documents}, {lesson.path.name: lesson for lesson in lessons}))
    for asset in (*ROOT.glob("docs/*.svg"), *ROOT.glob("docs/*.json")):
        shutil.copy(asset, folder / "docs" / asset.name)
    for sheet in ROOT.glob("docs/instructor/*.html"):
        shutil.copy(sheet, folder / "docs" / "instructor" / sheet.name)
    (folder / "extra" / "_static").mkdir(parents=True)
    shutil.copy(TEMPLATES / "predict.js", folder / "extra" / "_static" / "predict.js")
    written = written_pages({lesson.number: lesson for lesson in lessons})
    for name, text in written.items():
        _write(folder / name, text)
    chapters = [
        Chapter("Lessons", [f"notebooks/{lesson.name}" for lesson in lessons]),
        Chapter("Reference", [name.removesuffix(".md") for name in written if "kdcourse." not in name]),
        Chapter("Documentation", [name.removesuffix(".md") for name in documents]),
    ]
    _write(folder / "index.md", landing_page(pages) + "\n".join(map(_contents, chapters)))


def write_all_editions(folder: Path) -> None:
    """Those that lesson pages link to: nothing that Sphinx reads."""
    write_editions(lessons_in(ROOT / "notebooks"), folder)


def written_pages(lessons: Mapping[str, Lesson]) -> dict[str, str]:
    """Pages that no file holds, by their paths from the root."""
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    modules = module_pages(contributing, ROOT / "kdcourse", lessons)
    said = summaries(contributing)
    listed = "\n".join(f"- [kdcourse.{name}](kdcourse.{name}.md): {said[name]}" for name in modules)
    tree = "\n".join(["```{toctree}", ":hidden:", "", *(f"kdcourse.{name}" for name in modules), "```"])
    return {
        "reference/turns.md": turns_page({number: lesson.path.name for number, lesson in lessons.items()}),
        "reference/symptoms.md": symptoms_page(lessons),
        "reference/command-line.md": command_page(),
        "reference/modules.md": f"# Modules\n\nWhat `pip install kdcourse` brings.\n\n{listed}\n\n{tree}\n",
        **{f"reference/kdcourse.{name}.md": text for name, text in modules.items()},
    }


def mapped_pages() -> list[str]:
    """The Markdown pages in the order of `docs/index.md`, which names them all, as paths from the root."""
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    found = [
        (ROOT / "docs" / link["target"]).resolve() for link in LINK.finditer(text) if link["target"].endswith(".md")
    ]
    names = [path.relative_to(ROOT).as_posix() for path in found if path.name != "README.md" or path.parent != ROOT]
    return list(dict.fromkeys(["docs/index.md", *names]))


def _lesson_page(lesson: Lesson, lessons: Sequence[Lesson], executed: Path) -> LessonPage:
    """
    Raises:
        ValueError: something to turn is to stand after a cell that the lesson does not have.
    """
    turns = [turn for turn in all_turns() if turn.lesson == lesson.number]
    for turn in turns:
        if turn.cell not in {cell["id"] for cell in lesson.cells}:
            raise ValueError(f"turns.toml puts {turn.name} after {turn.cell}, which is no cell of {lesson.path.name}.")
    pages = {each.number: each.path.name for each in lessons}
    return LessonPage(lesson, executed_or_stored(lesson, executed), pages, turns)


def _write_lesson(page: LessonPage, folder: Path) -> None:
    _write(folder / "notebooks" / page.lesson.path.name, nbformat.writes(page.notebook()))
    pictures = folder / "extra" / "notebooks" / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for name, png in page.pictures.items():
        (pictures / name).write_bytes(png)


def _page(name: str, documents: set[str], lessons: Mapping[str, Lesson]) -> str:
    text = (ROOT / name).read_text(encoding="utf-8")
    if name == "docs/glossary.md":
        text = with_anchors(text, {lesson.number: lesson.title for lesson in lessons.values()})
    text = ROW.sub(lambda row: _with_cells(row, lessons), text)
    return LINK.sub(lambda link: _target(link, name, documents), text)


def _with_cells(row: re.Match[str], lessons: Mapping[str, Lesson]) -> str:
    """In a row that names a lesson, each id of one of its cells leads to that cell."""
    lesson = lessons[Path(row["lesson"]).name]
    ids = {cell["id"] for cell in lesson.cells}
    page = row["lesson"].removesuffix(".ipynb") + ".html"
    return CODE.sub(
        lambda code: (
            f'<a href="{page}#cell-{code[1]}"><code>{html.escape(code[1])}</code></a>' if code[1] in ids else code[0]
        ),
        row[0],
    )


def _target(link: re.Match[str], name: str, documents: set[str]) -> str:
    """A link to a page or a lesson is left; what is no page is on the code host; the README is the front page."""
    path = (ROOT / name).parent / link["target"]
    if not path.exists():
        return link[0]
    there = path.resolve().relative_to(ROOT).as_posix()
    if there == "README.md":
        return "../" * name.count("/") + "index.md"
    if there in documents or there.endswith((".ipynb", ".svg")) or COPIED.fullmatch(there):
        return link[0]
    return HOST + there


def _contents(chapter: Chapter) -> str:
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {chapter.caption}", "", *chapter.pages, "```", ""])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
