"""The page about kinds of caches shows what was measured, and what it says of that is so."""

import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "caches.md").read_text(encoding="utf-8")
FOUND = json.loads((ROOT / "docs" / "caches.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module("cache_kinds")


def kinds(column):
    return {(each["name"], each["dtype"]): each for each in FOUND["kinds"][column]}


def one(column, name, dtype="float16"):
    return kinds(column)[name, dtype]["one"]


def test_the_tables_are_made_of_what_was_found(benchmark):
    """A number that somebody typed, or that was measured again without its page."""
    assert benchmark.with_tables(PAGE, FOUND) == PAGE
    assert PAGE.count("| top 50 | float16 |") == PAGE.count("| one draw: a label |") == 1
    numbers = re.search(r"keep fewer classes than they draw \(([\d.]+) of 50 at T = 1 and ([\d.]+) at T = 2\)", PAGE)
    kept = [FOUND["others"][column]["50 draws with replacement"]["kept"] for column in ("T = 1, far", "T = 2, far")]
    assert [float(number) for number in numbers.groups()] == [round(number) for number in kept]


@pytest.mark.parametrize("column", FOUND["kinds"])
def test_what_the_page_says_is_what_was_found(column):
    """A conclusion that outlives the numbers it was drawn from."""
    others = FOUND["others"][column]
    for k in (12, 50, 200):
        is_known = column != "T = 1, tail"
        assert (one(column, f"top {k}") < 0.1) == is_known
        assert is_known or one(column, f"top {k}") == pytest.approx(1, abs=0.01)
        assert one(column, f"{k} drawn") < others[f"top {k}, scaled to 1"]["one"]
        assert others[f"top {k}, scaled to 1"]["mean"] == others[f"top {k}, scaled to 1"]["one"]
        if is_known:
            assert one(column, f"top {k}") < one(column, f"{k} drawn")
    for (name, _), each in kinds(column).items():
        if "drawn" in name:
            assert each["draws"] == 16
            assert 0.2 < each["mean"] / each["one"] < 0.3
        else:
            assert each["mean"] == each["one"]
    assert one(column, "all", "bfloat16") == pytest.approx(8 * one(column, "all"), rel=0.15)
    assert abs(one(column, "top 50") - one(column, "top 50", "float32")) < 0.02 * one(column, "top 50")
    # k draws have an error like 1 / √k: brought to as many classes as the draws with replacement keep.
    replaced = others["50 draws with replacement"]
    as_many = one(column, "50 drawn") * (50 / replaced["kept"]) ** 0.5
    assert 0.6 < as_many / replaced["one"] < 1


@pytest.mark.slow
def test_the_errors_are_measured_again(benchmark):
    """A loss or a cache that changed, and a page that did not: what is not drawn, at T = 1, and the bytes of all."""
    setting = benchmark.make_setting("far")
    exact = benchmark.soft_and_gradient(setting, setting.teacher, 1.0)
    for kind, before in zip(benchmark.KINDS, FOUND["kinds"]["T = 1, far"], strict=True):
        again = benchmark.measure_kind(setting, kind, 1.0, exact, draws=2)
        assert again["bytes"] == pytest.approx(before["bytes"], abs=1)
        assert again["one"] == pytest.approx(before["one"], rel=0.1 if kind.is_drawn else 0.01, abs=1e-7)


def test_drawn_classes_are_right_on_average_and_the_largest_are_not(benchmark):
    """The measurement itself, on a small vocabulary: noise that does not go away, bias that does."""
    setting = benchmark.make_setting("far", vocabulary=500, tokens=8)
    exact = benchmark.soft_and_gradient(setting, setting.teacher, 1.0)
    drawn, largest, whole = (
        benchmark.measure_kind(setting, kind, 1.0, exact, draws=100)
        for kind in (
            benchmark.Kind("", 8, is_drawn=True),
            benchmark.Kind("", 8),
            benchmark.Kind(""),
        )
    )
    assert drawn["mean"] < 0.2 * drawn["one"]
    assert largest["mean"] == largest["one"] > 0.005
    assert whole["one"] == whole["value"] == 0
    assert abs(drawn["value"]) < 0.1
    assert largest["value"] < 0
