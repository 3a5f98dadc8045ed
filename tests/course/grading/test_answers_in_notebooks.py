"""A learner's functions are found, with what they need; nothing else of a notebook is taken."""

import json

import pytest
from handed_in import FAULTS, answered, function, lesson, one, solved

from kdcourse.course.grading.alike import fingerprint, notes
from kdcourse.course.grading.answers import NotebookError, answers_in
from kdcourse.course.grading.checking import Terms, grade
from kdcourse.course.grading.peer import NAME
from kdcourse.course.lessons import course_lessons


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


HALF = "def soft_label(votes):\n    return len(votes) / 2\n"


@pytest.mark.parametrize(
    "answer",
    ['def soft_label(votes):\n    """What is half of it?\n\n    Well.\n    """\n    return len(votes) / 2',
     "def soft_label(votes):\n    half = len(votes) / 2  # is that right?\n    return half",
     "def soft_label(votes):\n    n = (len(votes)\n      % 100)\n    return n / 2"],
    ids=["a docstring that asks", "a comment that asks", "a line that begins with %"],
)  # fmt: skip
def test_questions_are_python(answer):
    """A line that is taken out of a right answer, for a question mark at its end."""
    assert run(found_in(answered("00", {"00.soft_label": answer}))["00.soft_label"])([1, 1, 1]) == 1.5


@pytest.mark.parametrize(
    "lines",
    ["%%time\n", "\n%%capture caught\n", "%matplotlib inline\n%config Completer.use_jedi = False\n", "!pip list\n",
     "try:\n    import nothing_of_this_name\nexcept ImportError:\n    !pip install nothing_of_this_name\n",
     "files = !ls\nspent = %timeit -o 1 + 1\n", "len?\n?len\nlen??\n"],
)  # fmt: skip
def test_what_ipython_alone_understands_is_left_out(lines):
    """A right answer that is no Python, for a line above it."""
    assert run(found_in(answered("00", {"00.soft_label": lines + HALF}))["00.soft_label"])([1, 1, 1]) == 1.5


def test_signs_of_arithmetic_are_no_magic():
    """A right answer in a long cell, refused for its percent signs: each counted as a line that IPython has to read."""
    long = "%matplotlib inline\n" + "".join(f"rest_{n} = {n} % 7 != 3, f'{{{n}:.0%}}'\n" for n in range(120))
    assert run(found_in(answered("00", {"00.soft_label": long + HALF}))["00.soft_label"])([1, 1, 1]) == 1.5


@pytest.mark.parametrize(
    "later", ["%%script false --no-raise-error\n{draft}", "%%writefile old.py\n{draft}", "{draft}\nthis is no Python"]
)
def test_what_never_ran_is_no_answer(later):
    """A draft in a cell that was switched off, graded in the place of what its learner has checked."""
    content = answered("00", {"00.soft_label": HALF})
    draft = "def soft_label(votes):\n    return 0\n\nexercises.check('00.soft_label', soft_label)"
    content["cells"].append(code(later.format(draft=draft)))
    found = found_in(content)["00.soft_label"]
    assert found.problem == "" and run(found)([1, 1, 1]) == 1.5


@pytest.mark.parametrize(
    "cell",
    ["with open(__import__('os').devnull):\n    two = 2", "for two in range(3):\n    pass",
     "while True:\n    two = 2\n    break", "try:\n    from nothing import two\nexcept ImportError:\n    two = 2",
     "match 2:\n    case 2:\n        two = 2", "print(two := 2)", "two = 2\ntwo: int"],
)  # fmt: skip
def test_a_block_gives_names_too(cell):
    """A NameError for what the notebook has made in a `with` or a loop."""
    content = one("00.soft_label", "return len(votes) / two")
    content["cells"].insert(0, code(cell))
    assert run(found_in(content)["00.soft_label"])([1, 1, 1]) == 1.5


def test_both_parts_of_a_package_are_imported():
    """An answer that needs `xml.dom`, and gets the other half of `xml`."""
    content = one("00.soft_label", "return xml.dom.__name__")
    content["cells"][:0] = [code("import xml.dom"), code("import xml.sax")]
    assert "import xml.dom" in found_in(content)["00.soft_label"].code


def test_a_type_that_nobody_imported_stops_nothing():
    """A NameError where Python 3.14 has none."""
    typed = "from __future__ import annotations\n" + HALF.replace("votes):", "votes: Votes) -> Share:")
    answer = found_in(answered("00", {"00.soft_label": typed}))["00.soft_label"]
    assert answer.code.count("__future__") == 1
    assert run(answer)([1, 1, 1]) == 1.5


@pytest.mark.parametrize(
    "check",
    ["exercises.check('00.soft_label', soft_label);", "exercises.check(function=soft_label, name='00.soft_label')",
     "found = [exercises.check('00.soft_label', soft_label)]"],
)  # fmt: skip
def test_a_check_may_be_written_otherwise(check):
    """An answer that was checked in the notebook, and is not found."""
    alone = {"nbformat": 4, "nbformat_minor": 2, "metadata": {}, "cells": [code(HALF + check)]}
    assert run(found_in(alone)["00.soft_label"])([1, 1, 1]) == 1.5


def test_a_stub_below_the_answer_changes_nothing():
    """A learner who has solved a copy of the cell, and left the cell as it was."""
    content = lesson("00")
    place = next(i for i, cell in enumerate(content["cells"]) if "00.soft_label" in cell["source"] and cell.get("id"))
    content["cells"].insert(place, code(HALF + 'exercises.check("00.soft_label", soft_label)'))
    assert run(found_in(content)["00.soft_label"])([1, 1, 1]) == 1.5


@pytest.mark.parametrize("kept", ["cell", "metadata", "name"])
def test_an_answer_without_check_and_id_is_found(kept):
    """A learner who has deleted a line, in Colab, or in Jupyter of the time when cells had no ids."""
    content = lesson("00")
    for cell in content["cells"]:
        if cell["id"] == "soft-label-stub":
            cell["source"] = HALF
        if kept != "cell":
            name = cell.pop("id")
            cell["metadata"] |= {"id": name} if kept == "metadata" else {}
    assert run(found_in(content)["00.soft_label"])([1, 1, 1]) == 1.5


def test_no_lesson_uses_a_name_that_it_asks_for():
    """A function of the lesson that is taken for an answer; an error for a cell that was emptied."""
    for each in course_lessons():
        handed_out = lesson(each.number)
        for cell in handed_out["cells"]:
            if "exercise" in cell["metadata"].get("tags", []):
                cell["source"] = ""
        assert not [answer for answer in answers_in(json.dumps(handed_out).encode()) if answer.code or answer.problem]


def test_a_notebook_in_utf_16_is_one():
    """A file that an editor has saved in its own way."""
    data = json.dumps(one("00.soft_label", "return 'ä'"), ensure_ascii=False).encode("utf-16")
    assert run(answers_in(data)[0])([]) == "ä"


@pytest.mark.parametrize(
    "body", ["return " + "-" * 900 + "1", "return " + "+".join("1" * 3000), "return 1\n" + "#" * 200_000]
)
def test_what_nobody_can_read_takes_no_other_answer_with_it(body):
    """A notebook that is refused for one line."""
    content = answered("00", {"00.soft_label": function("00.soft_label", body), "00.one_sentence": "one_sentence = 7"})
    found = found_in(content)
    assert found["00.soft_label"].problem
    assert run(found["00.one_sentence"]) == 7


def test_an_answer_that_is_nested_deeply_is_graded():
    """A notebook that is refused, since nobody can say whom a chain of 600 cases is alike."""
    body = "x = 0\nif x: pass\n" + "elif x: pass\n" * 600 + "return 1"
    found = grade(json.dumps(one("00.soft_label", body)).encode(), Terms(seconds=0.0))
    assert found.status == "graded"
    assert found.exercises["00.soft_label"]["verdict"] == "timed out"


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
