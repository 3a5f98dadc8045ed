"""The command line, `kdcourse …`: words in, calls of the package, tables out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from kdcourse import assets

app = typer.Typer(
    name="kdcourse",
    help="Knowledge distillation: a course of executable notebooks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
console = Console()

MARKS = {"ok": "[green]✓[/]", "note": "[yellow]![/]", "problem": "[red]✗[/]"}


def main() -> None:
    """Entry point of the command."""
    app()


@app.command()
def doctor() -> None:
    """Check this machine: versions, cores, memory, disk, assets, device, hub.

    Exits with 1 if something would stop the course. Example: `kdcourse doctor`
    """
    from kdcourse.doctor import examine

    with console.status("Looking around …"):
        findings = list(examine())
    table = Table(box=None, padding=(0, 1), show_header=False)
    for finding in findings:
        table.add_row(MARKS[finding.level], finding.subject, finding.seen)
        if finding.advice:
            table.add_row("", "", f"→ {finding.advice}")
    console.print(table)
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


@app.command("assets")
def fetch_assets(
    names: Annotated[list[str] | None, typer.Argument(help="Which ones; all if none is named.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Replace copies that are damaged.")] = False,
) -> None:
    """Get the models and data of the course into the cache folder; what is there already costs nothing.

    Examples: `kdcourse assets`, `kdcourse assets minilm --repair`
    """
    known = assets.catalogue()
    for name in names or known:
        if name not in known:
            raise typer.BadParameter(f"There is no asset {name!r}; there are {', '.join(known)}.")
    with _one_sentence_errors():
        for name in names or known:
            folder = assets.fetch(name, repair=repair, announce=console.print)
            console.print(f"{MARKS['ok']} {name}  [dim]{folder}[/]", soft_wrap=True)


@app.command("list")
def list_lessons() -> None:
    """List the lessons, each with the question that it answers.

    Example: `kdcourse list`
    """
    from kdcourse.course.lessons import all_lessons

    table = Table(box=None, padding=(0, 1), show_header=False)
    with _one_sentence_errors():
        for lesson in all_lessons():
            table.add_row(lesson.title, lesson.question)
    console.print(table)


@app.command()
def run(
    lessons: Annotated[list[str] | None, typer.Argument(help="Numbers or names; all if none is given.")] = None,
    profile: Annotated[str, typer.Option(help="quick (two CPU cores) or full (more seeds and data).")] = "quick",
    out: Annotated[Path, typer.Option(help="Folder for the executed notebooks and index.html.")] = Path("build/course"),
    store: Annotated[bool, typer.Option("--store", help="Also put the outputs into the notebooks themselves.")] = False,
) -> None:
    """Run lessons from top to bottom, and write them with an index page and their claims (claims.json) into a folder.

    Assets that are missing are fetched first. Exits with 1 if a lesson failed.
    Examples: `kdcourse run`, `kdcourse run 00 --profile full`
    """
    from kdcourse.course.claims_report import write_claims
    from kdcourse.course.lessons import find_lessons
    from kdcourse.course.page import write_index
    from kdcourse.course.run import PROFILES, run_lessons
    from kdcourse.course.store import store_outputs

    if profile not in PROFILES:
        raise typer.BadParameter(f"profile is {profile!r}; it can be {' or '.join(PROFILES)}.")
    with _one_sentence_errors():
        wanted = find_lessons(lessons or [])
        for name in assets.catalogue():
            if not assets.is_present(name):
                fetch_assets([name])
        outcomes = list(run_lessons(wanted, out, profile=profile))
        index = write_index(outcomes, out)
        write_claims(outcomes, out)
    if store:
        for outcome in outcomes:
            if outcome.passed:
                store_outputs(outcome.lesson.path, outcome.executed)
    for outcome in outcomes:
        mark = MARKS["ok" if outcome.passed else "problem"]
        console.print(f"{mark} {outcome.lesson.name}  {outcome.seconds:.0f} s  {outcome.problem}", soft_wrap=True)
    console.print(f"Open {index.resolve()}", soft_wrap=True)
    if not all(outcome.passed for outcome in outcomes):
        raise typer.Exit(1)


@app.command()
def progress() -> None:
    """List the exercises, and which you have solved. The record stays on this machine.

    Example: `kdcourse progress`
    """
    from kdcourse.exercises import all_exercises
    from kdcourse.exercises.progress import load

    with console.status("Looking up …"):
        record, exercises = load(), all_exercises()
    table = Table("", "exercise", "title", "tries", box=None, padding=(0, 1))
    for name, exercise in exercises.items():
        tries = record.get(name, {})
        solved = MARKS["ok"] if "passed" in tries else ""
        table.add_row(solved, name, exercise.title, str(sum(tries.values())) if tries else "–")
    console.print(table)
    console.print(f"{sum('passed' in record.get(name, {}) for name in exercises)} of {len(exercises)} solved.")


@contextmanager
def _one_sentence_errors() -> Iterator[None]:
    """What the user can mend is said in a sentence, without a traceback."""
    from kdcourse.course.lessons import LessonError

    try:
        yield
    except (assets.AssetError, LessonError) as error:
        Console(stderr=True).print(f"[red]✗[/] {error}", soft_wrap=True)
        raise typer.Exit(1) from None
