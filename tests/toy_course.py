"""A course of toy lessons whose kernel is played: what surrounds a run is tried many times, and no kernel starts."""

import contextlib
import os
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kdcourse.course import lessons, run, run_and_report

CLAIM = {"name": "it runs", "value": 1.0, "at_least": 1.0, "is_truth": True, "holds": True}
NAMES = ("00_toy", "01_toy")
HEADING = "# {number} · A toy\n\n***Does it run?***\n\n**5 minutes**\n\n## 1 · One\n\n{text}"
REPORTS = ("claims.json", "index.html", "junit.xml", "report.html")


def lesson(name, text="Read."):
    """A lesson that has all that a run, an edition and a copy look for."""
    cells = [
        new_markdown_cell(HEADING.format(number=name[:2], text=text), id="head"),
        new_code_cell('PROFILE = "quick"', id="parameters", metadata={"tags": ["parameters"]}),
        new_code_cell("1 + 1", id="claims"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def write_lesson(folder, name, text="Read."):
    path = folder / f"{name}.ipynb"
    nbformat.write(lesson(name, text), path)
    return path


def play(source, executed, parameters, *, folder, cell_seconds, on_cell):
    """What `execute` does of a lesson that goes well, without a kernel."""
    notebook = nbformat.read(source, as_version=4)
    for place, cell in enumerate([cell for cell in notebook.cells if cell.cell_type == "code"], 1):
        cell.execution_count = place
    shown = new_output("display_data", {"text/plain": "✓ it runs: holds"}, metadata={"kdcourse_claim": dict(CLAIM)})
    notebook.cells[-1].outputs = [shown]
    nbformat.write(notebook, executed)
    return ""


@contextlib.contextmanager
def course(folder):
    """The lessons are those in `folder`, kernels are played, nothing is fetched, and no time passes."""
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(lessons.FOLDER_VARIABLE, str(folder))
        patch.setattr(lessons, "course_notebooks", lambda: folder)
        patch.setattr(run.os, "environ", os.environ | {})  # what a run sets is gone afterwards
        patch.setattr(run, "execute", play)
        patch.setattr(run.time, "monotonic", lambda: 0.0)
        patch.setattr(run_and_report.assets, "fetch", lambda *_, **__: Path())
        yield folder


def run_course(out, watcher=None, **options):
    return run_and_report.run_and_report(lessons.all_lessons(), out, run.Settings(), watcher=watcher, **options)


def tree(folder):
    """Every file below a folder with its bytes, and every link with where it leads."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }
