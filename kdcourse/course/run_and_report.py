"""All that `kdcourse run` does: fetch what is missing, run the lessons, and report after each on the whole folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from kdcourse.course.environment import device_name
from kdcourse.course.fingerprint import circumstances
from kdcourse.course.html_pages import page_name, write_lesson, write_reports
from kdcourse.course.lessons import Lesson, all_lessons
from kdcourse.course.outcome import Outcome, earlier_outcomes
from kdcourse.course.run import Watcher, cannot_write, run_lessons
from kdcourse.course.settings import Settings
from kdcourse.course.store import store_outputs
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
    try:
        running = run_lessons(lessons, out, settings, resume=resume, watcher=watcher)
        for name in assets.catalogue():
            assets.fetch(name, announce=watcher.says)
        for outcome in _reported(running, out, settings):
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


def _reported(running: Iterator[Outcome], out: Path, settings: Settings) -> Iterator[Outcome]:
    """Write the reports after each lesson: whatever stops the run, they tell of all that finished."""
    course, device = all_lessons(), device_name(settings.device)
    now = circumstances(device, settings.all_parameters)
    known = {outcome.lesson.name: outcome for outcome in earlier_outcomes(course, out, now)}
    for outcome in known.values():
        if not (out / page_name(outcome)).exists():  # the run was stopped between the notebook and its page
            write_lesson(outcome, out)
    for outcome in running:
        known[outcome.lesson.name] = outcome
        write_lesson(outcome, out)
        write_reports([known[lesson.name] for lesson in course if lesson.name in known], out, device)
        yield outcome
