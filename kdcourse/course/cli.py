"""The command line, `kdcourse …`: words in, calls of the package, tables out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdcourse.labs import assets

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
    from kdcourse.course.doctor import examine

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
def list_lessons(
    not_compared: Annotated[
        bool, typer.Option("--not-compared", help="List instead the cells whose output no test compares, and why.")
    ] = False,
) -> None:
    """List the lessons, each with the question that it answers.

    Examples: `kdcourse list`, `kdcourse list --not-compared`
    """
    from kdcourse.course.lessons import all_lessons
    from kdcourse.course.not_compared import REASONS, cells_not_compared

    table = Table(box=None, padding=(0, 1), show_header=False)
    with _one_sentence_errors():
        lessons = all_lessons()
        if not_compared:
            for cell in cells_not_compared(lessons):
                table.add_row(cell.lesson, cell.cell, REASONS.get(cell.reason, "no reason given"))
        else:
            for lesson in lessons:
                table.add_row(lesson.title, lesson.question)
    console.print(table)


@app.command()
def run(
    lessons: Annotated[list[str] | None, typer.Argument(help="Numbers or names; all if none is given.")] = None,
    profile: Annotated[str, typer.Option(help="quick (two CPU cores) or full (more seeds and data).")] = "quick",
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if there is one.")] = "auto",
    seed: Annotated[int, typer.Option(help="The first seed of every training.")] = 0,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE for the lessons' parameters cell.")
    ] = None,
    cell_seconds: Annotated[int, typer.Option(min=1, help="The most that one cell may take.")] = 900,
    out: Annotated[Path, typer.Option(help="Folder for the executed notebooks and the reports.")] = Path(
        "build/course"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Keep what an earlier run into OUT has finished.")] = False,
    store: Annotated[bool, typer.Option("--store", help="Also put the outputs into the notebooks themselves.")] = False,
) -> None:
    """Run lessons from top to bottom; write them, report.html, claims.json and junit.xml into a folder.

    Assets that are missing are fetched first. Exits with 1 if something went wrong in a lesson. After a crash or
    Ctrl-C, `--resume` goes on with the lesson that was interrupted, and runs again what failed or has changed since.
    Examples: `kdcourse run`, `kdcourse run 00 --profile full --device cuda`, `kdcourse run --resume`
    """
    from kdcourse.course.environment import device_name
    from kdcourse.course.html_pages import write_lesson, write_reports
    from kdcourse.course.lessons import find_lessons
    from kdcourse.course.run import PROFILES, Outcome, Settings, run_lessons
    from kdcourse.course.store import store_outputs

    if profile not in PROFILES:
        raise typer.BadParameter(f"profile is {profile!r}; it can be {' or '.join(PROFILES)}.")
    settings = Settings(profile, device, seed, _parameters(parameter or []), cell_seconds)
    outcomes: list[Outcome] = []
    with _one_sentence_errors():
        wanted = find_lessons(lessons or [])
        name_of_device = device_name(device)
        for name in assets.catalogue():
            if not assets.is_present(name):
                fetch_assets([name])
        try:
            for outcome in run_lessons(wanted, out, settings, resume=resume):
                # Reports after each lesson: whatever stops the run, they tell of all that finished.
                outcomes.append(outcome)
                write_lesson(outcome, out)
                write_reports(outcomes, out, name_of_device)
                if store and outcome.passed:
                    store_outputs(outcome.lesson.path, outcome.executed)
        except KeyboardInterrupt:
            console.print(f"Stopped after {len(outcomes)} of {len(wanted)} lessons; go on with --resume.")
            raise typer.Exit(130) from None
    for outcome in outcomes:
        mark = MARKS["ok" if outcome.passed else "problem"]
        time = "earlier" if outcome.reused else f"{outcome.seconds:.0f} s"
        cell = f" \\[cell {outcome.record.cell}]" if outcome.record.cell else ""
        console.print(f"{mark} {outcome.lesson.name}  {time}  {escape(outcome.problem)}{cell}", soft_wrap=True)
    console.print(f"Open {out.resolve() / 'index.html'}, or report.html beside it for how it went.", soft_wrap=True)
    if not all(outcome.passed for outcome in outcomes):
        raise typer.Exit(1)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="A claims.json of `kdcourse run`.")],
    after: Annotated[Path, typer.Argument(help="Another one: newer versions, another device, other seeds.")],
    threshold: Annotated[
        float, typer.Option(min=0, help="Leave out moves below this share of what a claim allows.")
    ] = 0.01,
) -> None:
    """Say which claims moved between two runs, by how much for their tolerance and for the spread over seeds.

    Exits with 1 if a claim that held is broken or gone, or a new one does not hold.
    Example: `kdcourse compare old/claims.json new/claims.json`
    """
    from kdcourse.course.compare import BREAKS, changed_circumstances, read_report
    from kdcourse.course.compare import compare as compare_reports

    with _one_sentence_errors():
        old, new = read_report(before), read_report(after)
    for name, (was, now) in changed_circumstances(old, new).items():
        console.print(f"{name}: {was} → {now}", soft_wrap=True)
    for lesson in old.lessons.keys() ^ new.lessons.keys():
        console.print(f"{lesson} is in {'the first' if lesson in old.lessons else 'the second'} run only.")
    moves = compare_reports(old, new)
    shown = [move for move in moves if move.share_of_room >= threshold or move.verdict != "held"]
    table = Table("", "claim", "before", "after", "of what is allowed", "of the spread", box=None, padding=(0, 1))
    for move in shown:
        table.add_row(
            MARKS["problem"] if move.verdict in BREAKS else MARKS["note"] if move.verdict != "held" else "",
            f"{move.lesson[:2]} {escape(move.name)}" + (f" ({move.verdict})" if move.verdict != "held" else ""),
            f"{move.before.value:.6g}" if move.before else "–",
            f"{move.after.value:.6g}" if move.after else "–",
            f"{move.share_of_room:.0%}",
            "–" if move.share_of_spread is None else f"{move.share_of_spread:.1f}",
        )
    if shown:
        console.print(table)
    broken = sum(move.verdict in BREAKS for move in moves)
    console.print(f"{len(moves)} claims compared, {len(shown)} moved, {broken} broke.")
    if broken or not moves:
        raise typer.Exit(1)


@app.command()
def editions(
    lessons: Annotated[list[str] | None, typer.Argument(help="Numbers or names; all if none is given.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the editions.")] = Path("dist"),
) -> None:
    """Make the editions of the lessons: learner (no solutions), solutions, instructor (with notes), slides.

    What an earlier run wrote is replaced; what you have changed since is kept under another name, and other files stay.
    Examples: `kdcourse editions`, `kdcourse editions 01 02 --out workshop`
    """
    from kdcourse.course.editions import FOLDERS, write_editions
    from kdcourse.course.lessons import find_lessons

    with _one_sentence_errors():
        wanted = find_lessons(lessons or [])
        with console.status("Writing …"):
            set_aside = write_editions(wanted, out)
    for folder in FOLDERS:
        console.print(f"{MARKS['ok']} {out / folder}", soft_wrap=True)
    for changed, kept in set_aside.items():
        console.print(f"{MARKS['note']} {changed} had been changed; that version is now {kept.name}", soft_wrap=True)


@app.command()
def progress() -> None:
    """List the exercises, and which you have solved. The record stays on this machine.

    Example: `kdcourse progress`
    """
    from kdcourse.course.exercises import all_exercises
    from kdcourse.course.exercises.progress import load

    with console.status("Looking up …"):
        record, exercises = load(), all_exercises()
    table = Table("", "exercise", "title", "tries", box=None, padding=(0, 1))
    for name, exercise in exercises.items():
        tries = record.get(name, {})
        solved = MARKS["ok"] if "passed" in tries else ""
        table.add_row(solved, name, exercise.title, str(sum(tries.values())) if tries else "–")
    console.print(table)
    console.print(f"{sum('passed' in record.get(name, {}) for name in exercises)} of {len(exercises)} solved.")


def _parameters(pairs: list[str]) -> dict[str, Any]:
    """NAME=VALUE, a value that is a Python literal as what it is, and any other as a string."""
    parameters: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"--parameter is {pair!r}; it is NAME=VALUE, such as STEPS=100.")
        try:
            parameters[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parameters[name] = value
    return parameters


@contextmanager
def _one_sentence_errors() -> Iterator[None]:
    """What the user can mend is said in a sentence, without a traceback."""
    from kdcourse.course.compare import ReportError
    from kdcourse.course.lessons import LessonError

    try:
        yield
    except (assets.AssetError, LessonError, ReportError) as error:
        Console(stderr=True).print(f"[red]✗[/] {error}", soft_wrap=True)
        raise typer.Exit(1) from None
