"""The benchmark of the fused loss: it compares the same, finds what differs, and its page says what it measured."""

import importlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench():
    """`benchmarks/fused_loss.py`, which is no package."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("fused_loss")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def ways(bench):
    return sys.modules["ways"]


@pytest.fixture(scope="module")
def stored():
    return json.loads((ROOT / "docs" / "fused.json").read_text(encoding="utf-8"))


def judged(bench, ways, way, **changes):
    case = replace(ways.TOY, **changes)
    return bench.is_off({"case": asdict(case), **ways.disagreement(way, case)})


@pytest.mark.parametrize(
    "name", ["ours", "full", "checkpointed", "liger", "trl", "trl_kernels", "torchdistill", "modelopt"]
)
@pytest.mark.parametrize("temperature", [2.0, 3.7])
def test_every_way_is_asked_for_the_same(bench, ways, name, temperature):
    """A race between two objectives, such as Liger's without T² and ours with it."""
    way = ways.WAYS[name]
    if reason := way.skipped(ways.TOY):
        pytest.skip(f"{way.title}: {reason}")
    assert not judged(bench, ways, way, temperature=temperature)


def test_ours_agrees_in_16_bits(bench, ways):
    """A tolerance that no way keeps."""
    assert not judged(bench, ways, ways.WAYS["ours"], dtype="bfloat16")


def terms(inputs, case):
    student, teacher = inputs.logits()
    log_p, log_q = ((logits / case.temperature).log_softmax(-1) for logits in (student, teacher))
    return F.cross_entropy(student, inputs.targets), log_p, log_q


def without_t_squared(inputs, case):
    hard, log_p, log_q = terms(inputs, case)
    soft = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    return case.alpha * hard + (1 - case.alpha) * soft


def reversed_direction(inputs, case):
    hard, log_p, log_q = terms(inputs, case)
    soft = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return case.alpha * hard + (1 - case.alpha) * case.temperature**2 * soft


def without_half_of_the_gradient(inputs, case):
    hard, log_p, log_q = terms(inputs, case)
    soft = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    return case.alpha * hard.detach() + (1 - case.alpha) * case.temperature**2 * soft


def not_a_number(inputs, case):
    return terms(inputs, case)[0] * torch.nan


@pytest.mark.parametrize("wrong", [without_t_squared, reversed_direction, without_half_of_the_gradient, not_a_number])
def test_what_computes_something_else_is_found(bench, ways, wrong):
    """A comparison that passes whatever it is given."""
    assert judged(bench, ways, ways.Way("wrong", wrong))


def test_what_is_not_there_is_skipped_in_words(ways):
    """A traceback where a library or a GPU is missing, or a number that was guessed."""
    assert ways.Way("nobody's", without_t_squared, "no-such-library").skipped(ways.TOY) == "not installed"
    assert ways.Way("Triton", without_t_squared, needs_gpu=True).skipped(ways.TOY) == "not measured: it needs a GPU"


def test_the_allocator_is_counted(ways):
    """A peak that counts what was given back, or the end and not the most."""

    def work():
        one = torch.ones(10**6)
        two = one + 1
        del one
        return two + 1

    assert ways.allocated(work) == pytest.approx(8e6, rel=0.01)


@pytest.mark.slow
def test_a_process_of_its_own_measures_time_and_memory(bench, ways):
    """A benchmark that nobody has run since something moved."""
    case = asdict(replace(ways.TOY, tokens=300, vocabulary=3000, memory=10**6))
    time = bench.ask({"way": "ours", "measure": "time", "rounds": 3, "floors": [64, 128], "case": case})
    assert len(time["ratios"]) == 3
    assert time["floor_rows"] in (64, 128)
    assert min(time["seconds"]) > 0
    memory = bench.ask({"way": "full", "measure": "memory", "case": case})
    logits = 300 * 3000 * 4
    assert 3 * logits < memory["allocated"] < 20 * logits
    assert memory["gradient_off"] < 1e-5
    assert bench.ask({"way": "liger_triton", "measure": "time", "case": case})["skipped"]
    assert "failed" in bench.ask({"way": "ours", "measure": "memory", "case": {**case, "dtype": "no such"}})["skipped"]


def test_the_page_says_what_was_measured(bench, stored):
    """A number that was typed by hand, or is of another run."""
    figure, alt = bench.picture(bench.Found(stored))
    bench.plt.close(figure)
    assert (ROOT / "docs" / "fused.md").read_text(encoding="utf-8") == bench.page_of(stored, alt)
    assert bench.line_of(stored) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_an_aim_can_be_missed_and_left_open(bench, stored):
    """A limit that nothing exceeds, or one that is reached or missed by what was not measured."""
    slower = json.loads(json.dumps(stored))
    for answer in slower["answers"]:
        if answer["way"] == "ours" and answer["measure"] == "time":
            answer["ratios"] = [2 * ratio for ratio in answer["ratios"]]
    assert {"time, in floors"} <= {aim.what for aim in bench.aims(bench.Found(slower)) if aim.missed}
    alone = {**stored, "answers": [each for each in stored["answers"] if each["way"] == "ours"]}
    aims = {aim.what: aim for aim in bench.aims(bench.Found(alone))}
    assert "not measured" in str(aims["time, of the fastest other way's"])
    assert not aims["time, of the fastest other way's"].missed
    assert aims["memory"].value == bench.Found(stored).peak("ours")
