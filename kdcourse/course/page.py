"""`index.html`: what ran, with the executed notebooks behind it; readable without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2
import nbconvert
import nbformat

from kdcourse.course.run import Outcome
from kdcourse.files import written_whole

TEMPLATES = Path(__file__).parent / "templates"


def write_index(outcomes: Sequence[Outcome], out: Path) -> Path:
    """Write `index.html` and a page for each executed notebook into `out`; returns the path of the index."""
    for outcome in outcomes:
        if outcome.executed.is_file():
            _write(out / _page_name(outcome), notebook_to_html(outcome.executed, outcome.lesson.title))
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("index.html.j2")
    index = out / "index.html"
    _write(index, template.render(outcomes=outcomes, page_name=_page_name))
    return index


def notebook_to_html(notebook: Path, title: str) -> str:
    """One self-contained page: pictures inside, and none of the scripts that nbconvert would load from elsewhere."""
    exporter = nbconvert.HTMLExporter(template_file=str(TEMPLATES / "lesson.html.j2"))
    cells = nbformat.read(notebook, as_version=4)
    html, _ = exporter.from_notebook_node(cells, resources={"metadata": {"name": title}})
    return html


def _write(path: Path, text: str) -> None:
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _page_name(outcome: Outcome) -> str:
    return f"{outcome.lesson.name}.html"
