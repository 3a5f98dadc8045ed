"""What is taken for a submission, and what is refused: nothing outside the folder is read, nothing is unpacked."""

import functools
import json
import os
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
from handed_in import archive, handed_in

from kdcourse.course.grading import submissions
from kdcourse.course.grading.submissions import Allowance, FolderError, collect

NOTEBOOK = json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []})


def collected(folder, apart=None):
    return {each.file: each for each in collect(folder, apart or folder / "grades")}


def test_notebooks_are_found_wherever_they_are(tmp_path):
    """A learner who is forgotten because of a folder, an archive, or a name that a mail program has made."""
    handed_in(
        tmp_path,
        {"anna/03.ipynb": NOTEBOOK, "b.IPYNB": NOTEBOOK, "c (1).ipynb.txt": NOTEBOOK, "notes.txt": "{hello}",
         "grades/old.ipynb": NOTEBOOK, "anna/.ipynb_checkpoints/03-checkpoint.ipynb": NOTEBOOK},
    )  # fmt: skip
    archive(tmp_path / "class.zip", {"dora/01.ipynb": NOTEBOOK, "__MACOSX/dora/01.ipynb": "x", "read.me": "hello"})
    inner = tmp_path / "grades" / "inner.zip"
    archive(inner, {"emil.ipynb": NOTEBOOK})
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as outer:
        outer.write(inner, "frida/inner.zip")
    found = {name: each for name, each in collected(tmp_path).items() if not each.is_something_else}
    assert {name: each.learner for name, each in found.items()} == {
        "anna/03.ipynb": "anna", "b.IPYNB": "b", "c (1).ipynb.txt": "c (1).ipynb.txt",
        "class.zip/dora/01.ipynb": "class", "outer.zip/frida/inner.zip/emil.ipynb": "outer",
    }  # fmt: skip
    assert all(each.data == NOTEBOOK.encode() and not each.refused for each in found.values())


def test_whoever_hands_in_something_else_is_not_forgotten(tmp_path):
    """A learner who sent a PDF, nothing, or another kind of archive, and of whom no table says a word."""
    archive(tmp_path / "ida.zip", {"sorry.txt": "next week"})
    handed_in(
        tmp_path,
        {"dave/answers.pdf": "%PDF", "emil.tar.gz": "x", "fritz.py": "x = 1", "jan.ipynb": " ", ".DS_Store": "x",
         "kim/work.7z": "x", "kim/03.ipynb": NOTEBOOK, "grades/grades.csv": "x", "Thumbs.db": "x",
         "lea/03.ipynb": NOTEBOOK, "lea/notes.txt": "mine"},
    )  # fmt: skip
    (tmp_path / "gina").mkdir()
    words = {name: each.refused for name, each in collected(tmp_path).items() if each.refused}
    assert {name: "There is no notebook" in said or "It is no notebook" in said for name, said in words.items()} == {
        "dave": True, "emil.tar.gz": False, "fritz.py": True, "gina": True, "ida.zip": True, "jan.ipynb": False,
        "kim/work.7z": False,
    }  # fmt: skip
    assert "answers.pdf" in words["dave"]
    assert "empty" in words["jan.ipynb"]
    assert "unpack it" in words["emil.tar.gz"]


def test_two_learners_of_one_name_stay_two(tmp_path):
    """Two people's grades added up, since one handed in a folder and the other an archive."""
    handed_in(tmp_path, {"Anna/03.ipynb": NOTEBOOK, "ben.ipynb": NOTEBOOK})
    archive(tmp_path / "Anna.ZIP", {"03.ipynb": NOTEBOOK})
    archive(tmp_path / "CAROL.ZIP", {"03.ipynb": NOTEBOOK})
    found = {name: each.learner for name, each in collected(tmp_path).items()}
    assert found == {
        "Anna/03.ipynb": "Anna", "Anna.ZIP/03.ipynb": "Anna.ZIP", "CAROL.ZIP/03.ipynb": "CAROL", "ben.ipynb": "ben",
    }  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_is_not_followed(tmp_path):
    """A submission that shows what the instructor alone may read."""
    secret = tmp_path / "secret"
    handed_in(secret, {"key.ipynb": NOTEBOOK})
    folder = tmp_path / "handed-in"
    folder.mkdir()
    (folder / "mine.ipynb").symlink_to(secret / "key.ipynb")
    (folder / "all").symlink_to(secret, target_is_directory=True)
    found = collected(folder)
    assert {name: (each.data, "link" in each.refused) for name, each in found.items()} == {
        "mine.ipynb": (b"", True), "all": (b"", True),
    }  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_nobody_waits_for_a_pipe(tmp_path):
    """A grading that hangs on a file that never says anything."""
    os.mkfifo(tmp_path / "pipe.ipynb")
    assert "no file" in collected(tmp_path)["pipe.ipynb"].refused


def test_an_archive_leads_nowhere_else(tmp_path):
    """Zip slip: a member that is written over the installation. Nothing is written at all, and each is named."""
    archive(
        tmp_path / "slip.zip",
        {"../../out.ipynb": NOTEBOOK, "/etc/out.ipynb": NOTEBOOK, "..\\out.ipynb": NOTEBOOK, "link.ipynb": None,
         "C:/out.ipynb": NOTEBOOK, "good.ipynb": NOTEBOOK},
    )  # fmt: skip
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and nothing else")
    found = collected(tmp_path)
    assert [name for name, each in found.items() if not each.refused] == ["slip.zip/good.ipynb"]
    assert len(found) == 7
    assert sum("leads out" in each.refused for each in found.values()) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"slip.zip", "broken.zip"}


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    """A memory that is full of blanks: 4,000 bytes of archives in an archive, none of them too large by itself."""
    monkeypatch.setattr(submissions, "Allowance", functools.partial(Allowance, size=500_000))
    inner = tmp_path / "inner" / "inner.zip"
    blanks = {f"{place}.ipynb": '{"nbformat": 4}' + " " * 60_000 for place in range(4)}
    archive(inner, blanks, zipfile.ZIP_DEFLATED)
    packed = inner.read_bytes()
    inner.unlink()
    archive(tmp_path / "bomb.zip", {f"{place}.zip": packed for place in range(3)}, zipfile.ZIP_DEFLATED)
    archive(tmp_path / "large.zip", dict.fromkeys(map(str, range(10_001)), ""), zipfile.ZIP_DEFLATED)
    found = collected(tmp_path)
    assert "more than anybody" in found["large.zip"].refused
    assert [name for name, each in found.items() if "more than anybody" in each.refused] == [
        "bomb.zip/2.zip", "large.zip",
    ]  # fmt: skip
    assert sum(len(each.data) for each in found.values()) < 500_000


def test_odd_names_in_an_archive_are_names(tmp_path):
    """A room that nobody grades, since one archive holds a file without a name; a lesson that is called `Lab 3: …`."""
    archive(tmp_path / "odd.zip", {"": NOTEBOOK, ".": NOTEBOOK, "Lab 3: mine.ipynb": NOTEBOOK, "c:x.ipynb": NOTEBOOK})
    found = collected(tmp_path)
    assert {name: bool(each.refused) for name, each in found.items()} == {
        "odd.zip/Lab 3: mine.ipynb": False, "odd.zip/c:x.ipynb": True,
    }  # fmt: skip


def test_two_files_of_one_name_are_said(tmp_path):
    """Two lines of one name, one of which has passed."""
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the second name, which is what this is about
        made.writestr("a.ipynb", NOTEBOOK)
        made.writestr("a.ipynb", NOTEBOOK + " ")
    first, second = collect(tmp_path, tmp_path / "grades")
    assert (first.data, second.data) == (NOTEBOOK.encode(), b"")
    assert "more than once" in second.refused


def test_nobody_is_forgotten_for_an_archive(tmp_path):
    """A learner without a line, who has handed in a tar archive, or a zip archive with pages in it."""
    archive(tmp_path / "pages.zip", {"03.html": "<html>"})
    archive(tmp_path / "report.docx", {"word/document.xml": "<xml>"})
    for name in ("a.tar.gz", "b.RAR", "c.7z"):
        (tmp_path / name).write_bytes(b"whatever it holds")
    found = collected(tmp_path)
    assert set(found) == {"pages.zip", "report.docx", "a.tar.gz", "b.RAR", "c.7z"}
    assert "something else" in found.pop("report.docx").refused
    assert all("archive" in each.refused for each in found.values())


def test_a_closed_folder_is_said(tmp_path, monkeypatch):
    """A learner without a line, whose folder nobody may open."""
    closed = tmp_path / "anna"
    closed.mkdir()
    scandir = os.scandir

    def refusing(place):
        if Path(place) == closed:
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)
    assert "cannot be read" in collected(tmp_path)["anna"].refused


def test_a_folder_that_is_none_is_said(tmp_path):
    """A traceback for a name that was mistyped."""
    with pytest.raises(FolderError, match="is no folder"):
        collected(tmp_path / "nothing")
    archive(tmp_path / "all.zip", {"anna/03.ipynb": NOTEBOOK})
    with pytest.raises(FolderError, match="unpack it into a folder"):
        collected(tmp_path / "all.zip")
