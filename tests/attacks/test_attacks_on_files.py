"""What is somebody's own is still there, byte for byte, whatever was run, written or started beside it."""

import json
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
import toy_course
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_course import NAMES, REPORTS, run_course, tree, write_lesson

from kdcourse import files
from kdcourse.course import editions, lessons, run, working_copy
from kdcourse.course.lessons import LessonError

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    with toy_course.course(tmp_path / "notebooks") as folder:
        for name in NAMES:
            write_lesson(folder, name)
        yield folder


def a_link_to(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    return tmp_path / "link"


def relative(folder, _):
    return Path(os.path.relpath(folder))


def with_a_link_to_a_lesson(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "00_toy.ipynb").symlink_to(folder / "00_toy.ipynb")
    return tmp_path / "out"


def with_the_same_file(folder, tmp_path):
    (tmp_path / "out").mkdir()
    os.link(folder / "00_toy.ipynb", tmp_path / "out" / "00_toy.ipynb")
    return tmp_path / "out"


def with_lessons_of_another_course(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def with_an_empty_file_of_that_name(_, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "07_mine.ipynb").touch()
    return tmp_path / "out"


HOLDS_LESSONS = {
    "the folder itself": lambda folder, _: folder,
    "another spelling": lambda folder, _: folder / ".." / "notebooks" / ".",
    "relative": relative,
    "a link to it": a_link_to,
    "a link to a lesson": with_a_link_to_a_lesson,
    "a second name of a lesson": with_the_same_file,
    "other lessons": with_lessons_of_another_course,
    "an empty file with a lesson's name": with_an_empty_file_of_that_name,
}


@pytest.mark.parametrize("make", HOLDS_LESSONS.values(), ids=list(HOLDS_LESSONS))
def test_a_run_is_not_written_over_lessons(make, folder, tmp_path):
    """`kdcourse run --out notebooks`, and the course is gone."""
    out = make(folder, tmp_path)
    before = tree(tmp_path)
    with pytest.raises(LessonError, match=r"^[^\n]*lessons[^\n]*choose another --out\.$"):
        run_course(out)
    assert tree(tmp_path) == before


def test_a_case_insensitive_disk_shows_the_same_lessons(folder, tmp_path, monkeypatch):
    """`--out Notebooks` on a Mac."""
    (tmp_path / "Notebooks").mkdir(exist_ok=True)
    monkeypatch.setattr(Path, "samefile", lambda self, other: str(self).lower() == str(other).lower())
    with pytest.raises(LessonError, match="folder of the lessons themselves"):
        run_course(tmp_path / "Notebooks")


def test_within_the_folder_of_the_lessons_a_run_leaves_them_alone(folder, monkeypatch):
    """`kdcourse run` beside the lessons, whose default folder is then below them."""
    before = tree(folder)
    monkeypatch.chdir(folder)
    assert all(outcome.passed for outcome in run_course(Path("build/course")))
    assert {name: tree(folder)[name] for name in before} == before


def test_editions_and_copies_are_not_written_over_their_source(folder, tmp_path):
    """A second round, made of the learner's edition, in which there is nothing for instructors any more."""
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "learner").symlink_to(folder)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "notebooks").symlink_to(folder)
    (tmp_path / "copy" / working_copy.RECORD).write_text("{}", encoding="utf-8")
    before = tree(tmp_path)
    with pytest.raises(LessonError, match="folder of the lessons themselves"):
        editions.write_editions(lessons.all_lessons(), tmp_path / "dist")
    with pytest.raises(LessonError, match="folder of the lessons themselves"):
        working_copy.start(tmp_path / "copy")
    assert tree(tmp_path) == before


EDITIONS = [f"{part}/{name}.ipynb" for part in editions.NOTEBOOKS for name in NAMES]
OURS = [*REPORTS, *(f"{name}.html" for name in NAMES), *EDITIONS, "slides/00_toy.html", "slides/index.html"]
OURS += ["notebooks/notes.ipynb"]
LIKE_OURS = [
    ".env.1", ".bashrc.2024-01-01", ".lock", ".00_toy.ipynb", ".claims.json.1234", "learner/.00_toy.ipynb.77",
    "00_toy.yours-1.html", "index.yours-1.html", "claims.yours-1.json", ".kdcourse-editions.json",
]  # fmt: skip
FILES = st.dictionaries(st.sampled_from(OURS + LIKE_OURS), st.sampled_from(["file", "link", "dangling"]), max_size=12)


def scatter(folder, theirs):
    """Somebody's files, each with words of its own; a link leads to a file elsewhere."""
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    for number, (name, kind) in enumerate(theirs.items()):
        path, target = folder / name, elsewhere / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "file":
            path.write_text(f"mine: {number}", encoding="utf-8")
        else:
            path.symlink_to(target)
        if kind == "link":
            target.write_text(f"elsewhere: {number}", encoding="utf-8")


@settings(max_examples=200 if os.environ.get("KDCOURSE_DEEP") else 12, deadline=None)
@given(theirs=FILES, commands=st.lists(st.sampled_from(["run", "editions", "start"]), min_size=1, max_size=3))
def test_whatever_is_written_what_is_somebody_elses_stays(theirs, commands):
    """A page with the name of ours, notes in the folder of the editions, a dotfile that looks like a leftover: each is
    there after every command, byte for byte, under its name or beside it under another."""
    with tempfile.TemporaryDirectory() as made, toy_course.course(Path(made, "notebooks")) as source:
        for name in NAMES:
            write_lesson(source, name)
        out = Path(made, "out")
        out.mkdir()
        scatter(out, theirs)
        before, elsewhere = tree(out), tree(out.parent / "elsewhere")
        for command in commands:
            if command == "run":
                assert all(outcome.passed for outcome in run_course(out))
            elif command == "editions":
                editions.write_editions(lessons.all_lessons(), out)
            else:
                working_copy.start(out)
        after = tree(out)
        for name, content in before.items():
            beside = {path: after[path] for path in after if Path(path).parent == Path(name).parent}
            assert content in beside.values(), name
        assert tree(out.parent / "elsewhere") == elsewhere


def test_a_result_that_somebody_has_changed_is_set_aside_and_said(folder, tmp_path):
    """Notes in a page of results; or notes of yesterday in the page of today. Ours alone leaves no second copy."""

    class Told(run.Watcher):
        said = ()

        def says(self, text):
            self.said += (text,)

    out = tmp_path / "out"
    run_course(out)
    run_course(out)
    assert not list(out.glob("*yours*"))
    for name in ("00_toy.ipynb", "index.html"):
        (out / name).write_text("my notes", encoding="utf-8")
    told = Told()
    run_course(out, told)
    for name in ("00_toy.yours-1.ipynb", "index.yours-1.html"):
        assert (out / name).read_text(encoding="utf-8") == "my notes"
        assert any(str(out / name) in text for text in told.said)


def test_what_a_killed_run_has_left_is_removed_and_nothing_else(folder, tmp_path):
    """Halves of notebooks that stay for ever."""
    out = tmp_path / "out"
    (out / ".kdcourse" / "unfinished" / "learner").mkdir(parents=True)
    (out / ".kdcourse" / "unfinished" / "00_toy.ipynb").write_text("half", encoding="utf-8")
    run_course(out)
    assert sorted(path.name for path in (out / ".kdcourse").iterdir()) == ["lock", "written.json"]
    assert not list(out.glob("*yours*"))


def test_a_link_in_the_place_of_our_own_folder_is_not_followed(folder, tmp_path):
    """Somebody's `unfinished/`, emptied."""
    (tmp_path / "theirs" / "unfinished").mkdir(parents=True)
    (tmp_path / "theirs" / "unfinished" / "novel.txt").write_text("chapter 1", encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".kdcourse").symlink_to(tmp_path / "theirs")
    with pytest.raises(LessonError, match=r"\.kdcourse cannot be written"):
        run_course(tmp_path / "out")
    assert (tmp_path / "theirs" / "unfinished" / "novel.txt").exists()


@pytest.mark.parametrize("options", [{"profile": "full"}, {"seed": 7}, {"parameters": {"PROFILE2": 1}}])
def test_outputs_that_a_parameter_has_made_are_not_stored(options, folder, tmp_path):
    """`--store -p STEPS=1`, and a lesson that shows what nobody gets who runs it."""
    before = tree(tmp_path)
    with pytest.raises(LessonError, match=r"^--store would store what \w+=\w+ makes of the lessons; leave out"):
        toy_course.run_and_report.run_and_report(
            lessons.all_lessons(), tmp_path / "out", run.Settings(**options), store=True
        )
    assert tree(tmp_path) == before


def test_a_lesson_that_is_a_link_is_not_stored_into(folder, tmp_path):
    """A file in another course, rewritten without a word; or a link that is one no more."""
    (tmp_path / "theirs.ipynb").write_bytes((folder / "00_toy.ipynb").read_bytes())
    (folder / "00_toy.ipynb").unlink()
    (folder / "00_toy.ipynb").symlink_to(tmp_path / "theirs.ipynb")
    before = tree(tmp_path)
    with pytest.raises(LessonError, match=r"00_toy.ipynb is a link to \S+, into which --store does not write"):
        run_course(tmp_path / "out", store=True)
    assert tree(tmp_path) == before


def test_a_lesson_that_was_changed_while_it_ran_is_not_stored_into(folder, tmp_path, monkeypatch):
    """Outputs of yesterday's code beneath today's."""

    def edit_meanwhile(source, executed, *arguments, **options):
        toy_course.play(source, executed, *arguments, **options)
        source.write_text(source.read_text(encoding="utf-8").replace("1 + 1", "1 + 2"), encoding="utf-8")
        return ""

    monkeypatch.setattr(run, "execute", edit_meanwhile)
    with pytest.raises(LessonError, match=r"00_toy.ipynb was changed while it ran"):
        run_course(tmp_path / "out", store=True)
    assert "it runs" not in (folder / "00_toy.ipynb").read_text(encoding="utf-8")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_what_is_private_stays_private(folder, tmp_path):
    """A notebook with 0600 that everybody can read after `--store`; so it is for every file that is replaced."""
    path = folder / "00_toy.ipynb"
    path.chmod(0o600)
    run_course(tmp_path / "out", store=True)
    assert "it runs" in path.read_text(encoding="utf-8")
    (tmp_path / "progress.json").touch(0o640)
    files.write_whole(tmp_path / "progress.json", "{}")
    (tmp_path / "out" / "index.html").chmod(0o600)
    write_lesson(folder, "02_toy")
    run_course(tmp_path / "out")
    modes = [(path, 0o600), (tmp_path / "progress.json", 0o640), (tmp_path / "out" / "index.html", 0o600)]
    for written, mode in modes:
        assert stat.S_IMODE(written.stat().st_mode) == mode


def test_a_name_is_free_only_where_there_is_nothing(tmp_path):
    """A link that leads nowhere, for now, and is renamed over."""
    (tmp_path / "a.yours-1.txt").symlink_to(tmp_path / "nowhere")
    assert files.free_name(tmp_path / "a.txt").name == "a.yours-2.txt"


class TestCopies:
    """`kdcourse start` and `reset`."""

    def test_somebodys_own_notebook_is_no_lesson_of_a_new_release(self, folder, tmp_path):
        """08_mine.ipynb, and a course that now has a lesson of this name: merged with it, cell by cell."""
        copy = tmp_path / "copy"
        working_copy.start(copy)
        write_lesson(copy / "notebooks", "02_toy", "Mine.")
        mine = (copy / "notebooks" / "02_toy.ipynb").read_bytes()
        write_lesson(folder, "02_toy")
        copied = working_copy.start(copy)
        (kept,) = copied.set_aside.values()
        assert kept.read_bytes() == mine

    def test_what_a_link_leads_to_is_not_changed(self, folder, tmp_path):
        """Answers that two copies share, and an update of one that writes into the other."""
        copy = tmp_path / "copy"
        working_copy.start(copy)
        path = copy / "notebooks" / "00_toy.ipynb"
        path.rename(tmp_path / "shared.ipynb")
        path.symlink_to(tmp_path / "shared.ipynb")
        shared = (tmp_path / "shared.ipynb").read_bytes()
        write_lesson(folder, "00_toy", "New.")
        working_copy.start(copy)
        assert "New." in path.read_text(encoding="utf-8")
        assert (tmp_path / "shared.ipynb").read_bytes() == shared
        assert path.with_name("00_toy.yours-1.ipynb").is_symlink()

    def test_a_notebook_whose_cells_have_no_ids_is_set_aside(self, folder, tmp_path):
        """Colab saves answers in format 4.0, and the next `start` ends in an AttributeError."""
        copy = tmp_path / "copy"
        working_copy.start(copy)
        path = copy / "notebooks" / "00_toy.ipynb"
        text = path.read_text(encoding="utf-8").replace('"nbformat_minor": 5', '"nbformat_minor": 0')
        path.write_text("\n".join(line for line in text.splitlines() if '"id":' not in line), encoding="utf-8")
        answers = path.read_bytes()
        (kept,) = working_copy.start(copy).set_aside.values()
        assert kept.read_bytes() == answers

    @settings(max_examples=40, deadline=None)
    @given(content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda part: st.lists(part, max_size=3)
        | st.dictionaries(st.sampled_from(["edition", "lessons", "version", "00_toy", "learner"]), part, max_size=3),
        max_leaves=8,
    ))  # fmt: skip
    def test_whatever_the_record_says_a_copy_is_brought_up_to_date(self, content):
        """A KeyError about an edition that this version does not know, where a learner wanted the new lessons."""
        with tempfile.TemporaryDirectory() as made, toy_course.course(Path(made, "notebooks")) as source:
            write_lesson(source, "00_toy")
            copy = Path(made, "copy")
            working_copy.start(copy)
            (copy / working_copy.RECORD).write_text(json.dumps(content), encoding="utf-8")
            path = copy / "notebooks" / "00_toy.ipynb"
            path.write_text(path.read_text(encoding="utf-8").replace("1 + 1", "mine"), encoding="utf-8")
            working_copy.start(copy)
            assert any("mine" in each.read_text(encoding="utf-8") for each in path.parent.iterdir())
