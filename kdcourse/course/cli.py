"""The command line, `kdcourse …`, for everybody: words in, one call, tables and sentences out.

What a command knows lives in the module that it calls, which it imports itself: `kdcourse list` does not wait for
what `kdcourse run` needs.
"""

from __future__ import annotations

import errno
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import kdcourse
from kdcourse.course.lessons import COPY
from kdcourse.course.misuse import FAILED, INTERRUPTED, MISUSED, MisuseError
from kdcourse.course.settings import CELL_SECONDS, LARGEST_SEED, Device, Profile, Settings
from kdcourse.course.text import command_for, in_one_line, silence_output

SET_UP, LEARN, RUN, TEACH = "Set up", "Learn", "Run and compare", "Teach"
"""The groups of commands in `kdcourse --help`."""


class Commands(TyperGroup):
    """All commands; whichever it is, what its user can mend is a sentence and not a traceback."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _said_in_a_sentence():  # --help and --version print while the words are read
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _said_in_a_sentence():
            answer = super().invoke(ctx)
            sys.stdout.flush()  # here, and not after all else, a full disk is a sentence
            return answer


@contextmanager
def _said_in_a_sentence() -> Iterator[None]:
    try:
        yield
    except MisuseError as error:
        _end(MISUSED, str(error))
    except OSError as error:
        if error.errno in (None, errno.EPIPE):  # a mistake of ours; `| head` has seen enough
            raise
        if not error.filename:
            silence_output()
        _end(MISUSED, f"{error.filename or 'The output'} cannot be read or written here: {error.strerror}.")
    except RuntimeError as error:
        from kdcourse.labs.assets import AssetError

        if not isinstance(error, AssetError):
            raise
        _end(FAILED, str(error))
    except KeyboardInterrupt as interrupt:
        _end(INTERRUPTED, str(interrupt) or "Stopped.")


def _end(code: int, sentence: str) -> NoReturn:
    from kdcourse.course.terminal import say

    say(sentence, "problem", stderr=True)
    raise typer.Exit(code) from None


app = typer.Typer(
    name="kdcourse",
    cls=Commands,
    help="Knowledge distillation: a course of executable notebooks.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _examples(*lines: str) -> str:
    """The end of a help text; in Markdown a line breaks behind a backslash."""
    return "Examples:\n\n" + "\\\n".join(f"`{line}`" for line in lines)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kdcourse {kdcourse.__version__}")
        raise typer.Exit


def _lesson_names(incomplete: str) -> list[str]:
    """For shell completion."""
    from kdcourse.course.lessons import LessonError, all_lessons

    try:
        return [lesson.name for lesson in all_lessons() if lesson.name.startswith(incomplete)]
    except LessonError:
        return []


Lessons = Annotated[
    list[str] | None,
    typer.Argument(help="Numbers or names, such as 03; all if none is given.", autocompletion=_lesson_names),
]


@app.callback(epilog=_examples("kdcourse doctor", "kdcourse list", "kdcourse run 00"))
def options(
    _: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Knowledge distillation: a course of executable notebooks."""


@app.command(rich_help_panel=SET_UP, epilog=_examples("kdcourse doctor"))
def doctor() -> None:
    """Check this machine: versions, cores, memory, disk, assets, device, hub.

    Exits with 1 if something would stop the course.
    """
    from kdcourse.course.doctor import examine
    from kdcourse.course.terminal import MARKS, busy, table

    with busy("Looking around …"):
        findings = list(examine())
    table((MARKS[finding.level], finding.subject, "\n→ ".join(finding.words)) for finding in findings)
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(FAILED)


@app.command("assets", rich_help_panel=SET_UP, epilog=_examples("kdcourse assets", "kdcourse assets minilm --repair"))
def fetch_assets(
    names: Annotated[list[str] | None, typer.Argument(help="Which ones; all if none is named.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Replace copies that are damaged.")] = False,
) -> None:
    """Get the models and data of the course into the cache folder; what is there already costs nothing."""
    from kdcourse.course.terminal import say
    from kdcourse.labs import assets

    known = assets.catalogue()
    for name in names or ():
        if name not in known:
            raise typer.BadParameter(f"There is no asset {name!r}; there are {', '.join(known)}.")
    for name in names or assets.catalogue():
        folder = assets.fetch(name, repair=repair, announce=say)
        say(f"{name}  {folder}", "ok")


@app.command("list", rich_help_panel=LEARN, epilog=_examples("kdcourse list", "kdcourse list --not-compared"))
def list_lessons(
    not_compared: Annotated[
        bool, typer.Option("--not-compared", help="List instead the cells whose output no test compares, and why.")
    ] = False,
) -> None:
    """List the lessons, each with its minutes and the question that it answers."""
    from kdcourse.course.lessons import find_lessons
    from kdcourse.course.not_compared import REASONS, cells_not_compared
    from kdcourse.course.terminal import table

    lessons = find_lessons([])
    if not_compared:
        cells = cells_not_compared(lessons)
        table((cell.lesson, cell.cell, REASONS.get(cell.reason, "no reason given")) for cell in cells)
    else:
        table((lesson.title, f"{lesson.minutes} min" if lesson.minutes else "", lesson.question) for lesson in lessons)


Folder = Annotated[Path, typer.Argument(help="The folder of your copy.")]


@app.command(
    rich_help_panel=LEARN,
    epilog=_examples("kdcourse start", "kdcourse start my-copy", "kdcourse start teaching --solutions"),
)
def start(
    folder: Folder = Path(COPY),
    solutions: Annotated[
        bool | None,
        typer.Option("--solutions/--no-solutions", help="With solutions, folded; if not said, as the copy was made."),
    ] = None,
    colab: Annotated[bool, typer.Option("--colab", help="With a cell that installs it on Google Colab.")] = False,
) -> None:
    """Make a copy of the lessons that is yours, without results and solutions; or bring one up to date.

    After an upgrade, call it again: it brings the new text, and keeps your answers and the cells that you have added.
    """
    if colab and solutions:
        raise typer.BadParameter("--colab makes a copy without solutions; leave out --colab or --solutions.")

    from kdcourse.course.terminal import busy, say

    with busy("Writing …"):
        from kdcourse.course.working_copy import notebooks_of
        from kdcourse.course.working_copy import start as start_copy

        copied = start_copy(folder, solutions=solutions, on_colab=colab)
    for name in copied.new:
        say(f"{name} is new", "ok")
    for name in copied.updated:
        say(f"{name} was updated; your answers are kept", "ok")
    for old, kept in copied.set_aside.items():
        say(f"{old} was no notebook any more; what it held is now {kept.name}", "note")
    if not (copied.new or copied.updated or copied.set_aside):
        say("Nothing has changed.")
    say(f"The lessons are in {notebooks_of(folder)}; `{_call('kdcourse lab', folder)}` opens them.")


@app.command(
    rich_help_panel=LEARN,
    epilog=_examples("kdcourse lab", "kdcourse lab my-copy", "kdcourse lab -- --no-browser --port 8890"),
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def lab(context: typer.Context, folder: Folder = Path(COPY)) -> None:
    """Open your copy of the lessons in JupyterLab; if there is none yet, `kdcourse start` is called first.

    Assets that are missing are fetched, if there is a network. What follows `--` is for JupyterLab.
    """
    from kdcourse.course.jupyterlab import open_lab
    from kdcourse.course.lessons import is_copy
    from kdcourse.course.terminal import say
    from kdcourse.labs import assets

    options = list(context.args)
    if str(folder).startswith("-"):  # `kdcourse lab -- --no-browser` names no folder
        options, folder = [str(folder), *options], Path(COPY)
    if not is_copy(folder):
        start(folder)
    try:
        for name in assets.catalogue():
            assets.fetch(name, announce=say)
    except assets.AssetError as error:
        say(f"{error} Lessons that need none can be worked on.", "note")
    raise typer.Exit(open_lab(folder, options))


@app.command(rich_help_panel=LEARN, epilog=_examples("kdcourse reset 03", "kdcourse reset 03 my-copy"))
def reset(
    lesson: Annotated[str, typer.Argument(help="Number or name.", autocompletion=_lesson_names)],
    folder: Folder = Path(COPY),
) -> None:
    """Give one lesson of your copy back as new. The old file is kept beside it, under another name."""
    from kdcourse.course.lessons import course_lessons, find_lessons
    from kdcourse.course.terminal import say
    from kdcourse.course.working_copy import reset as reset_lesson

    (found,) = find_lessons([lesson], course_lessons())
    kept = reset_lesson(found, folder)
    say(f"{found.name} is as new" + (f"; what you had is now {kept.name}" if kept else ""), "ok")


@app.command(rich_help_panel=LEARN, epilog=_examples("kdcourse progress"))
def progress() -> None:
    """List the exercises, which you have solved, and how your predictions went. The record stays on this machine."""
    from kdcourse.course import guesses
    from kdcourse.course.exercises.progress import next_step, standings
    from kdcourse.course.lessons import find_lessons
    from kdcourse.course.terminal import MARKS, say, table

    found = standings(find_lessons([]))
    table(
        (
            (MARKS["ok" if each.solved else ""], each.exercise.id, each.exercise.title, str(each.tries or "–"))
            for each in found
        ),
        "", "exercise", "title", "tries",
    )  # fmt: skip
    say(next_step(found))
    if predicted := guesses.summary():
        say(predicted)


@app.command(
    rich_help_panel=RUN,
    epilog=_examples(
        "kdcourse run",
        "kdcourse run 00 03 --out try",
        "kdcourse run --profile full --device cuda",
        "kdcourse run 03 --seed 7",
        "kdcourse run --resume",
    ),
)
def run(
    lessons: Lessons = None,
    profile: Annotated[Profile, typer.Option(help="quick: two CPU cores; full: more seeds and data.")] = "quick",
    device: Annotated[Device, typer.Option(help="auto: a GPU if there is one.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="The first seed of every training.")] = 0,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="NAME=VALUE",
            help="For the lessons' parameters cell; goes to those of the chosen lessons that know it.",
        ),
    ] = None,
    cell_seconds: Annotated[int, typer.Option(min=1, help="The most that one cell may take.")] = CELL_SECONDS,
    out: Annotated[Path, typer.Option(help="Folder for the executed notebooks and the reports.")] = Path(
        "build/course"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Keep what an earlier run into OUT has finished.")] = False,
    store: Annotated[bool, typer.Option("--store", help="Also put the outputs into the notebooks themselves.")] = False,
) -> None:
    """Run lessons from top to bottom; write them, report.html, claims.json and junit.xml into a folder.

    Assets that are missing are fetched first. The reports cover every lesson that was run into the folder; the exit
    code is 1 if one of this run went wrong. After a crash or Ctrl-C, `--resume` continues with the lesson that was
    interrupted, and repeats what failed or has changed since.
    """
    from kdcourse.course.parameters import parameters_of

    settings = Settings(profile, device, seed, parameters_of(parameter or []), cell_seconds)

    from kdcourse.course.lessons import find_lessons
    from kdcourse.course.terminal import busy, make_console, say

    wanted = find_lessons(lessons or [])
    with busy("Getting ready …"):
        from kdcourse.course.run_and_report import run_and_report
        from kdcourse.course.watching import watching
    with watching(make_console()) as watcher:
        outcomes = run_and_report(wanted, out, settings, resume=resume, store=store, watcher=watcher)
    passed = sum(outcome.passed for outcome in outcomes)
    say(f"{passed} of {len(outcomes)} in order. Open {out.resolve() / 'index.html'}, or report.html beside it.")
    if passed < len(outcomes):
        raise typer.Exit(FAILED)


@app.command(
    rich_help_panel=RUN,
    epilog=_examples(
        "kdcourse compare before/claims.json after/claims.json",
        "kdcourse compare before/claims.json after/claims.json --threshold 0.5",
    ),
)
def compare(
    before: Annotated[Path, typer.Argument(help="A claims.json of `kdcourse run`.")],
    after: Annotated[Path, typer.Argument(help="Another one: newer versions, another device, other seeds.")],
    threshold: Annotated[
        float, typer.Option(min=0, help="Leave out moves below this share of what a claim allows.")
    ] = 0.01,
) -> None:
    """Say which claims moved between two runs, by how much for their tolerance and for the spread over seeds.

    Exits with 1 if a claim that held is broken or gone, if a new one does not hold, or if a lesson is missing.
    """
    if math.isnan(threshold):
        raise typer.BadParameter("--threshold is nan; it is a number, such as 0.01.")

    from kdcourse.course.compare import compare as compare_reports
    from kdcourse.course.compare import read_report
    from kdcourse.course.terminal import MARKS, say, table

    found = compare_reports(read_report(before), read_report(after))
    if found.notes:
        say("\n".join(map(in_one_line, found.notes)))
    if shown := found.worth_showing(threshold):
        headings = ("", "claim", "before", "after", "of what is allowed", "of the spread")
        table(((MARKS[move.level], *move.words) for move in shown), *headings)
    say(found.summary(threshold))
    if found.broken:
        raise typer.Exit(FAILED)


@app.command(
    rich_help_panel=RUN,
    epilog=_examples(
        "kdcourse diagnose kdcourse:distillation_loss",
        "kdcourse diagnose losses.py:my_loss --argument teacher=y_t",
        "kdcourse diagnose my_package.losses:KDLoss --promise t_squared=yes --promise divisor=rows",
    ),
)
def diagnose(
    loss: Annotated[str, typer.Argument(help="package.module:function or file.py:function; a class will do.")],
    argument: Annotated[
        list[str] | None,
        typer.Option("--argument", metavar="ROLE=NAME", help="Which argument is what, if its name does not say so."),
    ] = None,
    promise: Annotated[
        list[str] | None,
        typer.Option("--promise", metavar="QUESTION=ANSWER", help="An answer that has to be; else the exit code is 1."),
    ] = None,
    report: Annotated[Path | None, typer.Option("--json", help="A file for what was found.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long one call of the loss may take.")] = 20.0,
) -> None:
    """Say in words what a distillation loss computes, each with the number that shows it, and its lesson.

    The loss is called with random logits: which divergence is it, divided by what, is T² there, which end of the weight
    is the labels, how is it shifted and masked, is the gradient right? Roles of arguments are student, teacher, labels,
    mask, temperature, weight, hard_weight, soft_weight, beta, classes and vocabulary. Exits with 1 if a promise is
    broken.
    """
    from kdcourse.course.terminal import MARKS, busy, say, table

    with busy("Getting ready …"):
        from kdcourse.course.diagnose import diagnose_loss, load
        from kdcourse.course.diagnose.foreign import ROLES
        from kdcourse.course.diagnose.report import QUESTIONS, pairs_of, to_text

        roles = pairs_of(argument or [], "--argument", ROLES)
        promises = pairs_of(promise or [], "--promise", QUESTIONS)
        function = load(loss)
    found = diagnose_loss(function, roles, _ask_which if sys.stdin.isatty() else None, seconds)
    if report:
        report.write_text(to_text(found), encoding="utf-8")
    table(
        ((MARKS[each.level], each.question, each.answer, each.words, each.lesson) for each in found.findings),
        "", "question", "answer", "in words", "lesson",
    )  # fmt: skip
    broken = found.broken(promises)
    for sentence in broken:
        say(sentence, "problem")
    if broken:
        raise typer.Exit(FAILED)


def _ask_which(what: str, names: Sequence[str]) -> str:
    """A question on the terminal, until it has one of the answers."""
    while (answer := typer.prompt(f"What is {what}? ({', '.join(names)})").strip()) not in names:
        continue
    return str(answer)


@app.command(
    rich_help_panel=TEACH,
    epilog=_examples("kdcourse editions", "kdcourse editions 01 02 --out workshop", "kdcourse editions 03 --pdf"),
)
def editions(
    lessons: Lessons = None,
    out: Annotated[Path, typer.Option(help="Folder for the editions.")] = Path("dist"),
    pdf: Annotated[bool, typer.Option("--pdf", help="Also print each deck, by the machine's Chromium.")] = False,
) -> None:
    """Make the editions of the lessons: learner (no solutions), solutions, instructor (with notes), colab, slides.

    What an earlier call wrote is replaced; what you have changed since is kept under another name, and other files
    stay.
    """
    from kdcourse.course.lessons import find_lessons, source_lessons
    from kdcourse.course.terminal import busy, say

    wanted = find_lessons(lessons or [], source_lessons())
    with busy("Writing …"):
        from kdcourse.course.editions import FOLDERS, write_editions
        from kdcourse.course.printing import BY_HAND, find_browser

        browser = find_browser() if pdf else None
        set_aside = write_editions(wanted, out, browser=browser)
    for folder in FOLDERS:
        say(str(out / folder), "ok")
    if pdf and not browser:
        say(BY_HAND, "note")
    for changed, kept in set_aside.items():
        say(f"{changed} had been changed; that version is now {kept.name}", "note")


@app.command(
    rich_help_panel=TEACH,
    epilog=_examples(
        "kdcourse grade handed-in --out grades",
        "kdcourse grade handed-in --people people.csv",
        "kdcourse grade handed-in --out grades --workers 1",
    ),
)
def grade(
    folder: Annotated[Path, typer.Argument(help="What was handed in: notebooks, folders, zip archives.")],
    out: Annotated[
        Path, typer.Option(help="Folder for grades.html, gradebook.csv, grades.csv and grades.json.")
    ] = Path("grades"),
    people: Annotated[
        Path | None, typer.Option(help="A CSV file with a column student_id: who is to hand in something.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many notebooks at a time; as many as there are cores.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="The most that one notebook may take.")] = 600.0,
    call_seconds: Annotated[float, typer.Option(min=0.1, help="The most that one call of a function may take.")] = 5.0,
    memory: Annotated[float, typer.Option(min=0.1, help="GiB for a learner's process, beyond what torch takes.")] = 2.0,
) -> None:
    """Grade a room's notebooks with this installation's exercises: nobody's notebook is run, nor does it grade itself.

    Learners' functions are called in processes of their own. What these are held to on this system is said first. What
    is finished is kept in OUT, so the same command goes on after a crash.
    """
    for name, value in (("--seconds", seconds), ("--call-seconds", call_seconds), ("--memory", memory)):
        if not math.isfinite(value):
            raise typer.BadParameter(f"{name} is {value}; it is a number, such as 10.")

    from kdcourse.course.doctor import cores
    from kdcourse.course.terminal import busy, say

    with busy("Getting ready …"):
        from kdcourse.course.grading.confine import RULES, enforced, may_be_hidden
        from kdcourse.course.grading.gradebook import read_people
        from kdcourse.course.grading.room import Granted, grade_room

        listed = read_people(people) if people else None
        held = enforced()
    for name, words in RULES.items():
        say(words, "ok") if held[name] else say(f"Not held here: {words}.", "note")
    for place in (folder, out):
        if held["reading"] and not may_be_hidden(place):
            say(
                f"Answers can read {place}, since this Python or its packages lie in it; choose another folder.", "note"
            )

    def tell(file: str, found: dict[str, Any], place: int, count: int) -> None:
        verdicts = [each["verdict"] for each in found["exercises"].values()]
        said = f"{verdicts.count('passed')} of {len(verdicts)} passed" if verdicts else found["message"]
        say(in_one_line(f"{place} of {count}  {file}  {said}"))

    granted = Granted(seconds, call_seconds, int(memory * 2**30))
    kept: list[Path] = []
    rows = grade_room(folder, out, granted, workers or cores(), tell, people=listed, on_kept=kept.append)
    for path in kept:
        say(f"A table in {out} had been changed; that version is now {path.name}", "note")
    refused = sum(row.status == "refused" for row in rows)
    learners = len({row.learner for row in rows})
    counted = f"Learners: {learners}. Files: {len(rows)}, {refused} of them not graded."
    say(f"{counted} Open {out.resolve() / 'grades.html'}.", "ok")


@app.command(
    rich_help_panel=TEACH,
    epilog=_examples("kdcourse bundle --out bundle", "kdcourse bundle --serve bundle", "python bundle/room/install.py"),
)
def bundle(
    out: Annotated[Path, typer.Option(help="Folder for the bundle, room/, and the editions with solutions.")] = Path(
        "bundle"
    ),
    wheels: Annotated[
        Path | None, typer.Option(help="Folder of wheels; what it lacks is downloaded into it. If not said, in OUT.")
    ] = None,
    site: Annotated[Path | None, typer.Option(help="Folder of the built site; in a clone, it is found.")] = None,
    serve: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Make nothing; hand this bundle to the room, until Ctrl-C.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen, with --serve; if not said, on each address.")] = "0.0.0.0",  # noqa: S104  (the room is to reach it)
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --serve; 0 takes a free one.")] = 8000,
) -> None:
    """Put all of the course into one archive for machines like this one, or hand it to a room without a network.

    The archive holds this environment's packages as wheels, models and data, lessons, slides, and the site. Beside it
    lies install.py, which checks and installs all of it with a bare Python.
    """
    from kdcourse.course.terminal import busy, say

    with busy("Getting ready …"):
        from kdcourse.course.bundle.making import ROOM, make_bundle
        from kdcourse.course.bundle.packing import BundleError
        from kdcourse.course.bundle.serving import serve as serve_bundle
        from kdcourse.course.bundle.serving import shown
    try:
        if serve:
            serve_bundle(serve, host, port, say)
            return
        digest = make_bundle(out, wheels, site, say)
    except BundleError as error:
        _end(FAILED, str(error))
    say(f"{out / ROOM} is what the room gets. The SHA-256 of its install.py begins with {shown(digest)}.", "ok")
    say(f"`{command_for('kdcourse bundle --serve', out)}` hands it out; a stick will do, too.")


@app.command(
    rich_help_panel=TEACH,
    epilog=_examples(
        "kdcourse plan", "kdcourse plan half-day", 'kdcourse plan half-day --start 13:30 --breaks "14:35/10 15:45/10"'
    ),
)
def plan(
    name: Annotated[str | None, typer.Argument(help="Which plan; without a name, all are listed.")] = None,
    start: Annotated[str, typer.Option(help="When each day begins; the plan's own breaks move with it.")] = "09:00",
    breaks: Annotated[
        str | None, typer.Option(metavar="CLOCK/MINUTES …", help='Other breaks, as "10:30/15 12:30/60"; "" for none.')
    ] = None,
    record: Annotated[Path | None, typer.Option(help="The rehearsal.json of a rehearsal on your own machine.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="A file for the whole plan, with what is asked.")] = None,
) -> None:
    """Lay out a plan for a room by the minute: what to do when, what is left out, and how long the computer takes."""
    from kdcourse.course.terminal import busy, say, table
    from kdcourse.course.workshop.plans import all_plans, all_spoken, clock_of, find_plan

    if name is None:
        table((each.name, each.title, " | ".join(map(" ".join, each.days))) for each in all_plans().values())
        return
    wanted = find_plan(name).moved(start, breaks)

    with busy("Getting ready …"):
        from kdcourse.course.lessons import course_lessons
        from kdcourse.course.workshop.guide import record_of
        from kdcourse.course.workshop.pages import lessons_by_number, plan_page
        from kdcourse.course.workshop.timetable import LONGEST_SITTING, lay_out
        from kdcourse.files import write_whole

        measured = record_of(record)
        lessons = lessons_by_number(course_lessons())
        laid_out = lay_out(wanted, lessons, measured.lessons if measured else {})
    for begin, end in laid_out.sittings:
        if end - begin > LONGEST_SITTING:
            times = f"From {clock_of(begin)} to {clock_of(end)}"
            say(f"{times} there is no break, for {end - begin} minutes; --breaks can have one more.", "note")
    if markdown:
        write_whole(markdown, plan_page(laid_out, lessons, measured))
        say(str(markdown), "ok")
        return
    say(f"{wanted.title}: {laid_out.minutes()} minutes, until {' and '.join(laid_out.ends)}")
    table(
        ((row.clock, f"{row.minutes}", row.lesson, row.title, "?" * len(row.predictions)) for row in laid_out.rows),
        "clock", "min", "lesson", "what", "to ask",
    )  # fmt: skip
    for needed, by in laid_out.taken_for_granted.items():
        say(f"Taken for granted by lesson {', '.join(by)}: lesson {needed}. Say: {all_spoken()[needed].say}")
    for cut in laid_out.cuts:
        said = "1 minute" if cut.minutes == 1 else f"{cut.minutes} minutes"
        say(f"Left out: {cut.title} of lesson {cut.lesson} ({said}). {cut.reason}")


@app.command(rich_help_panel=TEACH, epilog=_examples("kdcourse guide", "kdcourse guide --record mine/rehearsal.json"))
def guide(
    out: Annotated[Path, typer.Option(help="Folder for the guide.")] = Path("guide"),
    record: Annotated[Path | None, typer.Option(help="The rehearsal.json of a rehearsal on your own machine.")] = None,
) -> None:
    """Write the instructor's guide: plans, what to say, where people get stuck, two quizzes, a handout to print.

    An earlier guide is replaced; a file of one of these names that is no guide's is renamed.
    """
    from kdcourse.course.terminal import busy, say

    with busy("Writing …"):
        from kdcourse.course.lessons import course_lessons
        from kdcourse.course.workshop.guide import record_of, write_guide

        renamed = write_guide(course_lessons(), record_of(record), out)
    say(str(out), "ok")
    for path, kept in renamed.items():
        say(f"{path} was no page of a guide; it is now {kept.name}", "note")


class Timed(StrEnum):
    """Which lessons a rehearsal runs."""

    PLAN = "plan"
    ALL = "all"
    NONE = "none"


@app.command(
    rich_help_panel=TEACH,
    epilog=_examples("kdcourse rehearse --out rehearsal", "kdcourse rehearse --people 6 --timed none --out rehearsal"),
)
def rehearse(
    out: Annotated[Path, typer.Option(help="Folder for what is handed out, handed in and measured.")] = Path(
        "rehearsal"
    ),
    people: Annotated[int, typer.Option(help="How many hand in a notebook.")] = 40,
    plan: Annotated[str, typer.Option(help="Whose lessons they hand in.")] = "half-day",
    timed: Annotated[Timed, typer.Option(help="Which lessons are also run, for their seconds.")] = Timed.PLAN,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Another class.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many notebooks are graded at a time; as many as there are cores.")
    ] = None,
) -> None:
    """Play a class, from handing out to grading: right answers, known and unknown mistakes, blank and hostile ones.

    Exits with 1 if a verdict is other than it should be, something outside was touched, or a lesson does not run. The
    same command goes on after a crash.
    """
    from kdcourse.course.doctor import cores
    from kdcourse.course.terminal import busy, make_console, say, table
    from kdcourse.course.watching import watching

    with busy("Getting ready …"):
        from kdcourse.course.grading.room import Granted
        from kdcourse.course.lessons import course_lessons, find_lessons
        from kdcourse.course.rehearsal import report
        from kdcourse.course.rehearsal.rehearse import rehearse as play
        from kdcourse.course.workshop.plans import find_plan

        lessons = find_lessons(find_plan(plan).lessons, course_lessons())
        to_time = {Timed.PLAN: lessons, Timed.ALL: course_lessons(), Timed.NONE: []}[timed]

    def tell(file: str, found: dict[str, Any], place: int, count: int) -> None:
        say(in_one_line(f"{place} of {count}  {found.get('seconds', 0):.0f} s  {file}"))

    with watching(make_console()) as watcher:
        found = play(
            people, seed, lessons, out, Granted(), workers or cores(), timed=to_time, on_graded=tell, watcher=watcher
        )
    table(([words, f"{found.seconds[stage]:.0f} s"] for stage, words in report.STAGES.items()))
    for problem in found.problems:
        say(problem, "problem")
    say(report.sentence(found), "ok" if not found.problems else "note")
    say(f"Open {out.resolve() / 'rehearsal.md'}.")
    if found.problems:
        raise typer.Exit(FAILED)


def _call(command: str, folder: Path) -> str:
    """The command for this folder, which goes without saying where it is the usual one."""
    return command if folder == Path(COPY) else command_for(command, folder)
