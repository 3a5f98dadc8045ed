"""All that `kdcourse run` does: fetch what is missing, run the lessons, and report after each on the whole folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kdcourse.course.environment import device_name
from kdcourse.course.fingerprint import circumstances
from kdcourse.course.html_pages import page_name, write_lesson, write_reports
from kdcourse.course.lessons import Lesson, all_lessons, in_a_line
from kdcourse.course.outcome import Outcome, earlier_outcomes
from kdcourse.course.own_files import OwnFiles
from kdcourse.course.run import Watcher, cannot_write, injected, run_lessons, say_aside
from kdcourse.course.settings import Settings
from kdcourse.course.store import require_storable, store_outputs
from kdcourse.labs import assets


def run_and_report(
    lessons: Sequence[Lesson],
    out: Path,
    settings: Settings,
    *,
    resume: bool = False,
    store: bool = False,
    watcher: Watcher | None = None,
) -> list[Outcome]:
    """Run these lessons into `out`; the reports there tell of all lessons of the course that were ever run into it.

    Args:
        store: also put the outputs of a lesson that went well into the notebook itself.

    Raises:
        LessonError, AssetError: something cannot be run, written or fetched as asked.
        KeyboardInterrupt: with a sentence for whoever pressed Ctrl-C.
    """
    watcher, done = watcher or Watcher(), []
    if store:
        require_storable(lessons, injected(settings.all_parameters))
    try:
        running = run_lessons(lessons, out, settings, resume=resume, watcher=watcher)
        for name in assets.begun_with():
            assets.fetch(name, announce=watcher.says)
        for outcome in _reported(running, out, settings, watcher):
            if store and outcome.passed:
                store_outputs(outcome.lesson.path, outcome.executed)
            done.append(outcome)
            watcher.lesson_ends(outcome)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Stopped after {len(done)} of {len(lessons)} lessons; the same command with --resume continues."
        ) from None
    except OSError as error:
        raise cannot_write(out, error) from None
    return done


def _reported(running: Iterator[Outcome], out: Path, settings: Settings, watcher: Watcher) -> Iterator[Outcome]:
    """Write the reports after each lesson: whatever stops the run, they tell of all that finished."""
    course, device, own = all_lessons(), device_name(settings.device), OwnFiles(out)
    now = circumstances(device, settings.all_parameters)
    known = {outcome.lesson.name: outcome for outcome in earlier_outcomes(course, out, now)}
    for outcome in running:
        known[outcome.lesson.name] = outcome
        for name, each in known.items():  # an earlier run may have been stopped between a notebook and its page
            if each is outcome or not (out / page_name(each)).exists():
                known[name] = _with_page(each, own.unfinished)
        write_reports([known[lesson.name] for lesson in course if lesson.name in known], own.unfinished, device)
        for kept in own.publish_all():
            say_aside(kept, watcher)
        yield known[outcome.lesson.name]


def _with_page(outcome: Outcome, folder: Path) -> Outcome:
    """Write the page of a lesson; one that cannot be shown has not gone well."""
    try:
        write_lesson(outcome, folder)
    except OSError:
        raise
    except Exception as error:  # an output of this lesson that nbconvert cannot show: the others have their pages
        problem = outcome.problem or f"Its page could not be made ({type(error).__name__}: {in_a_line(error)})."
        return replace(outcome, record=replace(outcome.record, problem=problem))
    return outcome
