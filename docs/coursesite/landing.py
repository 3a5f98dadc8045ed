"""The front page: what distillation gives, for whom this is, how to start, and the lessons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from make_picture import describe, points

from kdcourse.labs.lab07 import Results

if TYPE_CHECKING:
    from coursesite.lesson_pages import LessonPage

TEMPLATES = Path(__file__).parents[1] / "_templates"
DESCRIPTION = "A course of executable notebooks on knowledge distillation, and the package that they build."
"""What a search engine shows of it."""
LAB = "07"
"""The lesson that measured the picture."""
LOW, HIGH, STEP = 74, 90, 4
"""The ends of its axis, in percent."""


def landing_page(pages: Sequence[LessonPage]) -> str:
    """The text of `index.md`, less its table of contents."""
    models = points(Results.load())
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("landing.html.j2")
    shown = template.render(
        pages=pages,
        models=models,
        alt=describe(models),
        ticks=range(LOW, HIGH + 1, STEP),
        x=lambda percent: round(24 + 432 * (percent - LOW) / (HIGH - LOW), 1),
        lab=next(page.lesson for page in pages if page.lesson.number == LAB),
    )
    head = f"---\nhide-toc: true\nmyst:\n  html_meta:\n    description: {DESCRIPTION}\n---\n\n# Knowledge distillation"
    return f"{head}\n\n```{{raw}} html\n{shown}\n```\n"
