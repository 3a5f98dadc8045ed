"""A disk that is full, at any moment: one sentence, and of each file either the old version or the new one, whole."""

import builtins
import errno
import io
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import toy_course
from killed_experiment import BUDGET, make_arms, make_experiment
from toy_course import run_course, tree, write_lesson

from kdcourse.course import editions, html_pages, lessons, working_copy
from kdcourse.course.exercises import progress
from kdcourse.course.lessons import Lesson, LessonError

pytestmark = pytest.mark.slow


def run_again(root, **options):
    return " ".join(outcome.problem for outcome in run_course(root / "out", **options))


def reset(root):
    working_copy.reset(Lesson(root / "notebooks" / "00_toy.ipynb"), root / "copy")
    return ""


WRITERS = {
    "run": run_again,
    "store": lambda root: run_again(root, store=True),
    "editions": lambda root: str(editions.write_editions(lessons.all_lessons(), root / "dist") or ""),
    "start": lambda root: str(working_copy.start(root / "copy").set_aside or ""),
    "reset": reset,
    "progress": lambda root: progress.record("01.forward_kl", "passed") or "",
}
"""Everything that writes; each gives back what it has said, which is nothing if all went well."""


@contextmanager
def scene(root):
    with toy_course.course(root / "notebooks"), pytest.MonkeyPatch.context() as patch:
        patch.setenv(progress.FILE_VARIABLE, str(root / "progress.json"))
        patch.setattr(html_pages, "notebook_to_html", lambda notebook, title: f"{title}: {notebook.read_text()}")
        yield


@pytest.fixture(params=list(WRITERS))
def writer(request):
    return request.param


@pytest.fixture
def before(tmp_path):
    """All that an earlier day has left, and lessons that have changed since."""
    root = tmp_path / "before"
    with scene(root):
        write_lesson(root / "notebooks", "00_toy")
        for name in ("run", "editions", "start", "progress"):
            assert WRITERS[name](root) == ""
        write_lesson(root / "notebooks", "00_toy", "New.")
        path = root / "copy" / "notebooks" / "00_toy.ipynb"
        path.write_text(path.read_text(encoding="utf-8").replace("1 + 1", "mine"), encoding="utf-8")
    return root


@contextmanager
def full_disk(root, moment):
    """The disk below `root` is full from its `moment`-th operation on, of which the half is done; tells how many were
    tried."""
    tried = []
    patch = pytest.MonkeyPatch()

    def is_full(path):
        if not str(path).startswith(str(root)):
            return False
        tried.append(path)
        return len(tried) >= moment

    def full(path):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def opened(usual):
        def replaced(file, mode="r", *arguments, **options):
            if not isinstance(file, int) and set(mode) & set("wax+") and is_full(file):
                with usual(file, mode, *arguments, **options) as opened_file:
                    opened_file.write(b"{" if "b" in mode else "{")
                raise full(file)
            return usual(file, mode, *arguments, **options)

        return replaced

    def made(path, *arguments, usual=os.mkdir, **options):
        if not Path(path).exists() and is_full(path):
            raise full(path)
        usual(path, *arguments, **options)

    patch.setattr(io, "open", opened(io.open))
    patch.setattr(builtins, "open", opened(builtins.open))
    patch.setattr(os, "mkdir", made)
    try:
        yield tried
    finally:
        patch.undo()


def said_by(writer, root):
    with scene(root):
        try:
            return WRITERS[writer](root)
        except LessonError as error:
            return str(error)


def require_old_or_new(found, old, new):
    """Of each file the old version or the new one; what is renamed for a new one may already be."""
    for name, content in found.items():
        if Path(name).parts[1:2] != (".kdcourse",):
            assert content in (old.get(name), new.get(name)), name
    for name, content in old.items():
        assert name in found, name
        assert content in found.values() or content not in new.values(), name


def test_whenever_the_disk_is_full_it_is_a_sentence_and_what_was_there_is_kept(writer, before, tmp_path):
    """The half of a report, a lesson that is gone, an empty record of all exercises; or a traceback through ten files
    for somebody who should delete some."""
    done = shutil.copytree(before, tmp_path / "done")
    assert said_by(writer, done) == ""
    old, new = tree(before), tree(done)
    for moment in range(1, 200):
        root = shutil.copytree(before, tmp_path / f"full-{moment}")
        with full_disk(root, moment) as tried:
            said = said_by(writer, root)
        if len(tried) < moment:
            break
        assert re_full(said), said
        require_old_or_new(tree(root), old, new)
        assert said_by(writer, root) == "", "the next time, with room"
        shutil.rmtree(root)
    assert moment > 1
    assert said == ""


def re_full(said):
    """One sentence that says it."""
    return ("disk is full" in said or os.strerror(errno.ENOSPC) in said) and "\n" not in said and said.endswith(".")


@pytest.fixture
def small_disk(tmp_path):
    """A disk with 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small disk needs Linux, and somebody who may")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def filled(disk, left):
    """Nothing but `left` bytes of the disk are free."""
    size = shutil.disk_usage(disk).free - left
    (disk / "filler").write_bytes(bytes(size))
    yield
    (disk / "filler").unlink()


def test_on_a_disk_that_is_really_full(writer, before, small_disk, tmp_path):
    """Libraries of which nobody knew how they write."""
    done = shutil.copytree(before, tmp_path / "done")
    assert said_by(writer, done) == ""
    old, new = tree(before), tree(done)
    full = 0
    for kilobytes in (0, 4, 8, 16, 32, 64):
        root = shutil.copytree(before, small_disk / "course")
        with filled(small_disk, kilobytes * 1024):
            said = said_by(writer, root)
            full += bool(said)
            assert re_full(said) or said == "", said
            require_old_or_new(tree(root), old, new)
        assert said_by(writer, root) == ""
        shutil.rmtree(root)
    assert full


def test_an_arm_for_which_there_is_no_room_is_a_sentence(small_disk, tmp_path):
    """PyTorch's "unexpected pos 64 vs 0", at the end of an hour; and arms of yesterday that are gone with it."""
    arm, experiment = make_arms()[0], make_experiment(small_disk / "runs", budget=replace(BUDGET, steps=4))
    first = tree(experiment.run(arm, 0).folder)
    for kilobytes in (8, 40, 80, 120):
        with filled(small_disk, kilobytes * 1024), pytest.raises(OSError, match="No space left on device") as refused:
            experiment.run(arm, 1)
        assert re.search(r"in \S+runs for both-voices-1-\w+; free some, and run it again", str(refused.value))
        assert [path.name[:13] for path in (small_disk / "runs").glob("[!.]*")] == ["both-voices-0"]
    assert tree(experiment.run(arm, 0).folder) == first
    assert experiment.run(arm, 1).logits["test"].shape == (8, 3)
