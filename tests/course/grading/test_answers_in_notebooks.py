"""A learner's functions are found, with what they need; nothing else of a notebook is taken."""

import json

import pytest
from handed_in import FAULTS, answered, function, lesson, one, solved

from kdcourse.course.grading.alike import fingerprint, notes
from kdcourse.course.grading.answers import NotebookError, answers_in
from kdcourse.course.grading.peer import NAME


def found_in(content):
    return {each.exercise: each for each in answers_in(json.dumps(content).encode())}


def run(answer):
    names = {}
    exec(answer.code, names)  # noqa: S102  (written here)
    return names[NAME]


def test_a_blank_lesson_has_no_answers():
    """A stub that starts a process, or a learner who is told of an error of ours. Also 09.loop's, which has code."""
    for number in ("00", "05", "09"):
        assert [each.code or each.problem for each in found_in(lesson(number)).values()].count("") >= 2, number
        assert all(not each.code and not each.problem for each in found_in(lesson(number)).values())


def test_solutions_are_answers():
    """An exercise of which the answer cannot be found."""
    for number, count in (("00", 2), ("03", 3), ("06", 3), ("09", 2), ("13", 3)):
        found = found_in(solved(number))
        assert {name[:2] for name in found} == {number}
        assert len(found) == count
        assert all(each.code for each in found.values())


def test_an_answer_brings_what_it_needs_and_no_more():
    """A NameError for a helper of another cell; a training that runs while answers are read."""
    content = one("00.soft_label", "return HALF * helper(votes)")
    content["cells"][:0] = [
        code("%matplotlib inline\nimport math as m\nHALF = 0.5\nraise SystemExit('not needed')\nprint('nor this')"),
        code("def helper(votes):\n    return m.floor(votes) + other()"),
        code("def other():\n    return 0\nHALF = 0.25"),
    ]
    content["cells"].append(code("def other():\n    return 100\nHALF = 9"))
    answer = found_in(content)["00.soft_label"]
    assert "SystemExit" not in answer.code
    assert "print" not in answer.code
    assert run(answer)(8.5) == 0.25 * 8


def test_a_name_means_what_it_meant_when_it_was_checked():
    """A second `witness` in a notebook, or a constant that is made of itself."""
    content = one("00.soft_label", "return n")
    content["cells"][:0] = [code("n = 1"), code("n = n + 1"), code("n += 1")]
    content["cells"].append(code("n = 50\ndef soft_label(votes):\n    return 0"))
    assert run(found_in(content)["00.soft_label"])([]) == 3


def test_an_answer_without_its_check_is_found_by_its_cell():
    """A learner who has deleted a line."""
    content = lesson("00")
    for cell in content["cells"]:
        if cell["id"] == "soft-label-stub":
            cell["source"] = "def soft_label(votes):\n    return 7"
    assert run(found_in(content)["00.soft_label"])([]) == 7


def test_imports_that_are_lost_are_the_lessons():
    """A cell that was copied into a new notebook, without the set-up."""
    alone = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [
        code('def kl(s, t):\n    return torch.zeros(1)\n\nexercises.check("02.kl_per_row", kl)')]}  # fmt: skip
    assert run(found_in(alone)["02.kl_per_row"])(0, 0).tolist() == [0.0]


def test_what_is_not_python_is_said():
    """One answer with a typo that takes the others with it."""
    found = found_in(answered("00", {"00.soft_label": "def soft_label(votes:\n  return", "00.one_sentence": "x = 1"}))
    assert "not Python" in found["00.soft_label"].problem
    assert not found["00.one_sentence"].problem


@pytest.mark.parametrize(
    "data",
    [b"%PDF-1.4", b"\xff\xfe", b"[" * 100_000, b'{"nbformat": 3, "worksheets": []}', b'{"nbformat": 4}', b"[]", b"null",
     b'{"nbformat": 4, "cells": 3}'],
)  # fmt: skip
def test_what_is_no_notebook_is_said(data):
    """A traceback, or a grading that ends, for a PDF under another name."""
    with pytest.raises(NotebookError):
        answers_in(data)


@pytest.mark.parametrize(
    "cell", [3, None, {}, {"cell_type": "code"}, {"cell_type": "code", "source": 5, "metadata": 1}]
)
def test_odd_cells_have_no_answers(cell):
    """A notebook that another program has written."""
    assert answers_in(json.dumps({"nbformat": 4, "cells": [cell]}).encode()) == []


def test_answers_that_read_alike_are_noted():
    """A copy with other names that nobody sees; two short answers that are called copies."""
    long = (
        "a = votes[5:]\nb = votes[4] / 2\nif not votes:\n    return 0.0\ntotal = sum(a) + b\nreturn total / sum(votes)"
    )
    anna, short = function("00.soft_label", long), function("00.soft_label", "return 1")
    ben = anna.replace("total", "t").replace("a ", "z ").replace("(a)", "(z)")
    codes = {"anna": anna, "ben": ben, "cleo": short, "dan": short}
    answers = {name: {"00.soft_label": fingerprint(code)} for name, code in codes.items()}
    said = notes({name: name for name in codes}, answers)
    assert set(said) == {"anna", "ben"}
    assert "good reason" in said["anna"][0]
    assert "byte for byte" in notes({"x": "1", "y": "1"}, {"x": answers["cleo"], "y": answers["cleo"]})["x"][0]


def test_the_faults_of_these_tests_are_many():
    """A list that was emptied."""
    assert len(FAULTS) >= 20
    assert len({exercise for exercise, *_ in FAULTS}) >= 8


def code(source):
    return {"cell_type": "code", "source": source, "metadata": {}, "outputs": []}
