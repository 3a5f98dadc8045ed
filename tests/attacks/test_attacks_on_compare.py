"""`kdcourse compare`: whatever stands in a file, the answer is a comparison or a sentence that names file and field."""

import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kdcourse.course import cli
from kdcourse.course.compare import Comparison, compare, read_report
from kdcourse.course.misuse import MisuseError


def entry(name="kl", value=1.0, **held_against):
    return {
        "cell": "c",
        "name": name,
        "value": value,
        "at_least": 0.5,
        "is_truth": False,
        "holds": True,
        **held_against,
    }


def report(*claims, **top):
    return {
        "python": "3.11.7",
        "versions": {"torch": "2.13.0"},
        "device": "cpu",
        "lessons": {"00_toy": list(claims)},
        **top,
    }


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def call(*arguments):
    return CliRunner().invoke(cli.app, ["compare", *map(str, arguments)])


@pytest.fixture
def call_on(tmp_path):
    """`kdcourse compare` on two contents."""
    return lambda before, after: call(written(tmp_path / "old.json", before), written(tmp_path / "new.json", after))


FIELDS = {
    "text for a number": (report(entry(value="high")), "claim 1 of lesson 00_toy: value is 'high', which is no number"),
    "digits in a text": (report(entry(tolerance="0.1", expected=1)), "tolerance is '0.1', which is no number"),
    "a truth for a number": (report(entry(at_least=True)), "at_least is True, which is no number"),
    "a list for a number": (report(entry(spread=[1])), "spread is [1], which is no number"),
    "larger than a float": (report(entry(value=10**400)), "value is larger than any float"),
    "no value": (report({"name": "kl", "at_least": 1}), "value is missing"),
    "null for a value": (report(entry(value=None)), "value is missing"),
    "no name": (report({"value": 1.0, "at_least": 1}), "name is None, which is no text"),
    "a number for a name": (report(entry(name=3)), "name is 3, which is no text"),
    "a text for a truth": (report(entry(is_truth="no")), "is_truth is 'no', which is neither true nor false"),
    "half of a condition": (report(entry(expected=1.0)), "expected and tolerance only go together"),
    "no condition": (report(entry(at_least=None)), "it is held against nothing"),
    "the second claim": (report(entry(), 3), "claim 2 of lesson 00_toy: it is 3"),
    "an object for a list": (report(lessons={"00_toy": {}}), "lesson 00_toy is {}, which is no list"),
    "null for a lesson": (report(lessons={"00_toy": None}), "lesson 00_toy is None"),
    "a list for lessons": (report(lessons=[]), "lessons is [], which is no object"),
    "no lessons": ({"python": "3", "device": "cpu", "versions": {}}, "lessons is None"),
    "no device": ({"python": "3", "versions": {}, "lessons": {}}, "device is None, which is no text"),
    "a number for a version": (report(versions={"torch": 2}), "torch is 2, which is no text"),
    "a text for versions": (report(versions="2"), "versions is '2', which is no object"),
    "a list of earlier runs": (report(entry(), earlier_runs=[1]), "earlier_runs is [1]"),
    "an earlier run of numbers": (report(earlier_runs={"00_toy": {"SEED": 1}}), "SEED of earlier run 00_toy is 1"),
    "another format": (report(entry(), format=2), "its format is 2, and this kdcourse reads 1"),
    "a list": ([], "the whole is [], which is no object"),
    "a number": (3, "the whole is 3"),
    "nothing": ("", "Expecting value"),
    "half a file": (json.dumps(report(entry()))[:-9], "Expecting"),
    "two files in one": (json.dumps(report(entry())) * 2, "Extra data"),
    "a merge conflict": ("<<<<<<< HEAD\n{}", "Expecting value"),
    "brackets without end": ("[" * 100_000, "recursion"),
    "a number of a million digits": ('{"python": ' + "1" * 1_000_000 + "}", "digits"),
    "a field twice": ('{"lessons": {}, "lessons": {}}', "'lessons' stands twice in one object"),
    "a broken lesson behind its namesake": (
        json.dumps(report()).replace('"00_toy": []', '"00_toy": [' + json.dumps(entry(value=0)) + '], "00_toy": []'),
        "'00_toy' stands twice in one object",
    ),
    "a broken value behind another": (
        json.dumps(report(entry())).replace('"value": 1.0', '"value": 0.0, "value": 1.0'),
        "'value' stands twice in one object",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "said"), FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_malformed_file_is_a_sentence(call_on, content, said, place):
    """A TypeError in the middle of a subtraction; "not a claims.json", and no word of which of 200 fields is wrong."""
    contents = (content, report(entry())) if place == "before" else (report(entry()), content)
    result = call_on(*contents)
    assert result.exit_code == 2
    assert said in result.output
    assert f"{'old' if place == 'before' else 'new'}.json" in result.output
    assert len(result.output) < 600
    assert isinstance(result.exception, SystemExit)


NO_TEXT = {
    "not UTF-8": b"\xff\xfe\x00",
    "UTF-16, as a shell on Windows writes": json.dumps(report(entry())).encode("utf-16"),
    "binary": bytes(range(256)),
    "Latin-1": json.dumps(report(entry("größer")), ensure_ascii=False).encode("latin-1"),
}


@pytest.mark.parametrize("content", NO_TEXT.values(), ids=NO_TEXT)
def test_what_is_no_text_is_a_sentence(tmp_path, content):
    """A UnicodeDecodeError, for a report that went through a shell's redirection."""
    path = tmp_path / "claims.json"
    path.write_bytes(content)
    result = call(path, path)
    assert result.exit_code == 2
    assert f"{path} is not a claims.json" in result.output


def test_a_byte_order_mark_is_no_obstacle(tmp_path):
    """A report that was opened and saved in an editor on Windows, and is refused for a character that nobody sees."""
    path = tmp_path / "claims.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(report(entry())).encode())
    assert call(path, path).exit_code == 0


@pytest.mark.parametrize(
    "name", [".", "none.json", "claims.json/claims.json", "x" * 5000, "a\x1b[2Jb"], ids=lambda n: n[:20]
)
def test_what_cannot_be_opened_is_a_sentence(tmp_path, name):
    """A traceback for a folder, or for a name that no file can have."""
    whole = written(tmp_path / "claims.json", report(entry()))
    result = call(whole, tmp_path / name)
    assert result.exit_code == 2
    assert result.output.startswith("✗ ")
    assert "claims.json" in result.output
    assert "\x1b" not in result.output
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("spread", [math.nan, "nan", math.inf, "inf", 0.0, -1.0])
def test_a_spread_that_says_nothing_leaves_its_column_empty(call_on, spread):
    """A report of `kdcourse run` itself, over one seed, that cannot be compared."""
    result = call_on(report(entry(value=2.0, spread=spread)), report(entry(value=1.5)))
    assert result.exit_code == 0
    assert result.output.splitlines()[1].split()[-2:] == ["33%", "0.0" if spread in (math.inf, "inf") else "–"]


@pytest.mark.parametrize(
    ("before", "after", "broken"),
    [
        ([1, 1], [0, 1], 1), ([1, 1], [1, 0], 1), ([1], [1, 0], 1), ([1], [0, 1], 1), ([1, 1], [1], 1),
        ([0, 1], [1, 0], 1), ([1, 1], [1, 1], 0), ([1, 1, 1], [0, 0, 0], 3),
    ],
)  # fmt: skip
def test_a_claim_does_not_hide_behind_its_namesake(call_on, before, after, broken):
    """A claim in a loop, of which the comparison knows the last round only."""
    old, new = (report(*(entry(value=value) for value in values)) for values in (before, after))
    result = call_on(old, new)
    assert result.exit_code == (1 if broken else 0)
    assert f"{broken} broke" in result.output


@pytest.mark.parametrize(
    ("before", "after", "code", "said"),
    [
        ({"00_a": [entry()], "01_b": [entry()]}, {"00_a": [entry()]}, 1, "1 lesson is missing"),
        ({"00_a": [entry()], "01_b": [entry()]}, {"00_a": [entry()], "01_b": []}, 1, "1 broke"),
        ({"00_a": [entry()], "01_b": []}, {"00_a": [entry()]}, 1, "1 lesson is missing"),
        ({"00_a": [entry()]}, {}, 2, "the second of no lesson"),
        ({"00_a": [entry()]}, {"00_a": [entry()], "01_b": [entry()]}, 0, "01_b is in the second run only"),
        ({"00_a": [entry()]}, {"00_a": [entry()], "01_b": [entry(value=0)]}, 1, "01 kl (broke)"),
        ({"00_a": [entry()]}, {"01_b": [entry(value=0)]}, 2, "nothing to compare"),
        ({"00_a": [entry(value=0)]}, {"00_a": [entry(value=0)]}, 0, "still broken"),
        ({"00_a": [entry(value="nan")]}, {"00_a": [entry(value="nan")]}, 0, "0 broke"),
        ({"00_a": [entry()]}, {"00_a": [entry(value="nan")]}, 1, "1 broke"),
        ({"00_a": [entry(value="inf")]}, {"00_a": [entry(value="inf")]}, 0, "0 moved"),
        ({"00_a": [entry(holds=True)]}, {"00_a": [entry(value=0, holds=True)]}, 1, "1 broke"),
    ],
)
def test_what_is_gone_or_broken_is_no_success(call_on, before, after, code, said):
    """An exit code of 0 for a lesson that is gone, or for a new one in which nothing holds."""
    result = call_on(report(lessons=before), report(lessons=after))
    assert result.exit_code == code
    assert said in result.output


def test_a_name_stays_in_its_line(call_on):
    """A claim that draws a second, better line, or a tick over its cross."""
    name = "kl\n✓  00 kl\r\x1b[1A\u202e[/b]:smile:"
    result = call_on(report(entry(name)), report(entry(name, value=0.0)))
    (row,) = [line for line in result.output.splitlines() if "(broke)" in line]
    assert row.startswith("✗  00 kl ✓  00 kl\\r\\x1b[1A\\u202e[/b]:smile:")
    assert result.exit_code == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "many", "seconds"),
    [("all break", 200_000, 20), *((shape, 20_000, 5) for shape in ("none moves", "namesakes", "lessons", "are gone"))],
)
def test_many_claims_are_compared_in_seconds(call_on, shape, many, seconds):
    """A list that is searched for each of its items; a table that takes minutes to lay out."""
    names = (f"kl {0 if shape == 'namesakes' else place}" for place in range(many))
    claims = [entry(name) for name in names]
    each_in_one = {f"00_{place}": [claim] for place, claim in enumerate(claims)}
    old = each_in_one if shape in ("lessons", "are gone") else {"00_toy": claims}
    new = {"all break": {"00_toy": [claim | {"value": 0} for claim in claims]}, "are gone": {"00_0": claims[:1]}}
    started = time.process_time()
    result = call_on(report(lessons=old), report(lessons=new.get(shape, old)))
    assert time.process_time() - started < seconds  # a quarter of that is measured
    assert result.exit_code == (1 if shape in new else 0)
    assert len(result.output.splitlines()) == {"all break": many + 2, "are gone": many}.get(shape, 1)


NUMBERS = st.floats() | st.integers() | st.sampled_from(["nan", "inf", "-inf", 10**400, None])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
HELD_AGAINST = dict.fromkeys(("expected", "tolerance", "at_least", "at_most", "spread"), NUMBERS)
CLAIMS = st.fixed_dictionaries(
    {"name": st.sampled_from("ab"), "value": NUMBERS}, optional=HELD_AGAINST | {"is_truth": st.booleans()}
)
REPORTS = st.dictionaries(st.sampled_from(["00_a", "01_b"]), st.lists(CLAIMS, max_size=4)).map(
    lambda lessons: report(lessons=lessons)
)


def paths_in(part):
    """The way to each value in a JSON document."""
    yield ()
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, inner in items:
        yield from ((key, *rest) for rest in paths_in(inner))


def with_another(part, path, value):
    if not path:
        return value
    changed = dict(part) if isinstance(part, dict) else list(part)
    changed[path[0]] = with_another(part[path[0]], path[1:], value)
    return changed


def shown(found):
    """All that the command says of a comparison."""
    assert isinstance(found, Comparison)
    return [move.words for move in found.worth_showing(0.01)], found.summary(0.01), found.notes, found.broken


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("reports") / "claims.json"


@settings(deadline=None)
@given(content=REPORTS, value=JSON, data=st.data())
def test_any_value_in_any_place_is_a_comparison_or_a_sentence(path, content, value, data):
    """The field that nobody thought of."""
    place = data.draw(st.sampled_from(list(paths_in(content))))
    written(path, with_another(content, place, value))
    try:
        shown(compare(read_report(path), read_report(path)))
    except MisuseError as error:
        assert str(path) in str(error) or "nothing to compare" in str(error)


@settings(deadline=None)
@given(REPORTS)
def test_a_run_does_not_differ_from_itself(path, content):
    """NaN is not NaN, so a number that is not there has moved."""
    try:
        found = compare(*[read_report(written(path, content))] * 2)
    except MisuseError:
        return
    assert found.broken == 0
    assert all(move.difference == 0 and move.share_of_room == 0 for move in found.moves)
    assert {move.verdict for move in found.moves} <= {"held", "still broken"}


@settings(deadline=None)
@given(REPORTS, REPORTS)
def test_what_one_way_mended_breaks_the_other_way(path, before, after):
    """A comparison that depends on which run is named first, for more than its sign."""
    try:
        old, new = read_report(written(path, before)), read_report(written(path, after))
        there, back = compare(old, new), compare(new, old)
    except MisuseError:
        return
    shown(there)
    both = set(before["lessons"]) & set(after["lessons"])
    there_and_back = {"held": "held", "mended": "broke", "broke": "mended", "still broken": "still broken"}
    one, other = (
        {
            (move.lesson, move.name): move.verdict
            for move in found.moves
            if move.before and move.after and move.lesson in both
        }
        for found in (there, back)
    )
    assert {key: there_and_back[verdict] for key, verdict in one.items()} == other
