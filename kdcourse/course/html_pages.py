"""What people read of a run, without a network: `index.html`, the lessons; `report.html`, how they went."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import nbformat

from kdcourse.course.claims import claim_from
from kdcourse.course.claims_json import claims_report, write_claims
from kdcourse.course.formulas import PageExporter
from kdcourse.course.junit_xml import write_junit
from kdcourse.course.not_compared import REASONS, cells_not_compared
from kdcourse.course.outcome import Outcome
from kdcourse.course.text import visible
from kdcourse.files import write_whole

TEMPLATES = Path(__file__).parent / "templates"

POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'"
)
"""Pictures and fonts are inside the page; an output may have styles of its own, which can do no harm."""


def write_lesson(outcome: Outcome, out: Path) -> None:
    """Write the page of an executed notebook, if there is one."""
    if outcome.executed.is_file():
        write_whole(out / page_name(outcome), notebook_to_html(outcome.executed, outcome.lesson.title))


def write_reports(outcomes: Sequence[Outcome], out: Path, device: str) -> None:
    """Write all that tells of a run as a whole: `claims.json`, `junit.xml`, `report.html` and `index.html`."""
    write_claims(outcomes, out, device)
    write_junit(outcomes, out)
    write_report(outcomes, out, device)
    write_index(outcomes, out)


def write_index(outcomes: Sequence[Outcome], out: Path) -> Path:
    """Write `index.html`, which leads to the lessons' pages; returns its path."""
    return render("index.html", out, outcomes=outcomes)


def write_report(outcomes: Sequence[Outcome], out: Path, device: str) -> Path:
    """Write `report.html`: what ran, how long, which claims held, what failed in which cell, what is not compared."""
    return render(
        "report.html",
        out,
        outcomes=outcomes,
        report=claims_report(outcomes, device),
        cells_not_compared=list(cells_not_compared(outcome.lesson for outcome in outcomes)),
        reasons=REASONS,
        measured=lambda entry: "" if entry["is_truth"] else f"{float(entry['value']):.6g}",
        condition=lambda entry: claim_from(entry).condition,
    )


def notebook_to_html(notebook: Path, title: str) -> str:
    """One self-contained page: pictures inside, formulas as MathML, and one script, which keeps guesses."""
    exporter = PageExporter(template_file=str(TEMPLATES / "lesson.html.j2"))
    cells = nbformat.read(notebook, as_version=4)
    script = (TEMPLATES / "predict.js").read_text(encoding="utf-8")
    resources = {"metadata": {"name": title}, "script": script, "policy": policy(script)}
    html, _ = exporter.from_notebook_node(cells, resources=resources)
    return html


def policy(script: str = "") -> str:
    """A page's content security policy: nothing comes from elsewhere, and no output of a cell runs a script.

    Args:
        script: the one that may run, as it stands between its tags.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return POLICY + "; script-src " + (f"'sha256-{digest}'" if script else "'none'")


def render(name: str, out: Path, **content: Any) -> Path:
    """Write a page from its template, whole; returns its path."""
    write_whole(out / name, page(name, page_name=page_name, link=link, **content))
    return out / name


def page(name: str, **content: Any) -> str:
    """A page from its template; whatever stands in the content is shown, and does nothing else."""
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if isinstance(value, str) else value,
    ).get_template(f"{name}.j2")
    return template.render(policy=policy(), **content)


def link(name: str) -> str:
    """What a browser needs to find a file of any name, `#`, `%` and bytes that are no UTF-8 included."""
    return quote(os.fsencode(name))


def page_name(outcome: Outcome) -> str:
    return f"{outcome.lesson.name}.html"
