"""What a lesson is held against stands in a file beside it, and nothing in that file or in the lesson goes unused."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcourse.course import claims
from kdcourse.course.claims import ClaimError, claim, claims_made, open_lesson
from kdcourse.course.expectations import ExpectationError, find_expectations, read_expectations

FILE = """
[claim."KL, nats"]
expected = 1.0021
tolerance = {cpu = 1e-4, cuda = 1e-2}
[claim."gain, points"]
at_least = 1
[claim."rows"]
expected = 8
tolerance = 0
guard = true
[claim."it is so"]
holds = true
[claim."of all seeds"]
at_least = 1
when = "full"
[prediction."01.kl"]
answer = 1.0021
tolerance = 1e-4
usual = "0"
why = "They are not the same model."
"""


@pytest.fixture
def lesson(tmp_path, monkeypatch):
    """A kernel in a folder that holds a lesson's file, and the function that opens it."""
    (tmp_path / "claims").mkdir()
    path = tmp_path / "claims" / "01.toml"
    path.write_text(FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claims, "_opened", None)
    open_lesson("01")
    return path


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("KL, nats", 1.00214, "✓ KL, nats: 1.0021\n"),
        ("gain, points", 2.5, "✓ gain, points: ≈ 2.5\n"),
        ("it is so", True, "✓ it is so\n"),
        ("rows", 8, ""),
        ("of all seeds", 0.123, "– of all seeds: ≈ 0.123\n"),
    ],
)
def test_a_claim_shows_its_value_in_a_line_and_a_guard_nothing(lesson, capsys, name, value, line):
    """An expected number in every line, which spoils the next prediction; a page full of row counts."""
    claim(name, value)
    assert capsys.readouterr().out == line


@pytest.mark.parametrize(
    ("name", "value"), [("KL, nats", 1.1), ("gain, points", 0.9), ("rows", 7), ("it is so", False)]
)
def test_what_the_file_does_not_hold_is_an_error(lesson, capsys, name, value):
    """A file that nobody reads; a guard that is silent when it should shout."""
    with pytest.raises(ClaimError, match=name):
        claim(name, value)
    assert capsys.readouterr().out.startswith(f"✗ {name} does not hold")


def test_a_claim_without_an_entry_says_which_to_write(lesson):
    """A number that is shown as if it had been checked."""
    with pytest.raises(ExpectationError, match=r'01\.toml has no entry \[claim\."gane"\]; write one'):
        claim("gane", 1.0)


@pytest.mark.parametrize(("name", "value"), [("it is so", 1.0), ("rows", True)])
def test_a_number_is_no_truth(lesson, name, value):
    """`claim("rows", len(rows) == 8)` against an entry of a number: True is 1."""
    with pytest.raises(ValueError, match="its entry is of"):
        claim(name, value)


def test_bounds_stand_in_one_place(lesson):
    """An expected number in the code, which nobody compares with the one in the file."""
    with pytest.raises(ValueError, match="leave the bounds out of the call"):
        claim("gain, points", 2.0, at_least=1)


def test_what_is_left_over_is_named(lesson):
    """An entry that outlives its cell, and looks as if it were checked."""
    found = find_expectations("01")
    assert found.unclaimed({"rows", "01.kl"}, ("quick", "embedded")) == ["KL, nats", "gain, points", "it is so"]
    assert "of all seeds" in found.unclaimed(set(), ("full", "embedded"))


def test_a_claim_of_another_profile_is_not_recorded(lesson):
    """A number of two seeds in a report, held to what five seeds gave."""
    claim("of all seeds", 0.1)
    assert "of all seeds" not in [made.name for made in claims_made()]


def test_a_lesson_elsewhere_is_held_to_the_course_s_own_file(tmp_path, monkeypatch):
    """A learner's copy, which has notebooks alone."""
    monkeypatch.chdir(tmp_path)
    assert find_expectations("01").path.name == "01.toml"
    with pytest.raises(ExpectationError, match=r"Lesson 77 has no claims/77\.toml"):
        find_expectations("77")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = ", "cannot be read as TOML"),
        ("[other.a]\nholds = true", "has .'other'."),
        ("claim = 3", "no table of entries"),
        ("[claim]\na = 3", "an entry has expected"),
        ('[claim."a"]\nexpects = 1', "an entry has expected"),
        ('[claim."a"]\nexpected = 1', "expected and tolerance only go together"),
        ('[claim."a"]\nguard = true', "held against nothing"),
        ('[claim."a"]\nholds = true\nat_least = 1', "has no bounds"),
        ('[claim."a"]\nat_least = "1"', "which is not"),
        ('[claim."a"]\nat_least = true', "which is not"),
        ('[claim."a"]\nat_least = nan', "which is not"),
        ('[claim."a"]\nholds = 1', "which is not"),
        ('[claim."a"]\nat_least = {cpu = 1}', "which is not"),
        ('[claim."a"]\nat_least = 1\nwhen = "often"', "can be quick, full, embedded, hub"),
        ('[prediction."01.a"]\nanswer = 1', "answer, usual and why are all needed"),
        ('[prediction."01.a"]\nanswer = 1\nusual = "2"\nwhy = "w"', "a number needs tolerance"),
        ('[prediction."01.a"]\nanswer = "x"\nusual = "2"\nwhy = "w"\nat_least = 1', "in words has no bounds"),
    ],
)
def test_a_bad_entry_is_named(tmp_path, text, words):
    """A misspelt bound, which holds every number."""
    path = tmp_path / "01.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ExpectationError, match=words):
        read_expectations(path)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=1)


@given(
    st.dictionaries(st.sampled_from(["claim", "prediction", "else"]), st.dictionaries(st.text(), VALUES, max_size=2))
)
def test_any_content_is_read_or_refused(content):
    """A traceback of a file that somebody has damaged."""
    from kdcourse.course import expectations

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tomllib, "loads", lambda _: content)
        patch.setattr(expectations.Path, "read_text", lambda *_, **__: "")
        try:
            read_expectations(expectations.Path("01.toml"))
        except ExpectationError as error:
            assert "01.toml" in str(error)
