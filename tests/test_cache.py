"""`LogitsCache` and `cache_logits`: interrupted, grown, damaged, and never handed to another question."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shapes import make_model, make_rows, make_tokenizer

from kdcourse.cache import CacheMismatchError, LogitsCache
from kdcourse.teacher import cache_logits
from kdcourse.topk import TopK, top_k

TESTS = Path(__file__).parent
SHAPES = ["bert-classifier", "llama-lm"]


def fill(folder, shape, rows=10, *, seed=1, tokenizer=None, row_seed=0, **options):
    tokenizer = tokenizer or make_tokenizer()
    dataset = make_rows(shape, rows, seed=row_seed)
    return cache_logits(folder, make_model(shape, seed), tokenizer, dataset, **{"rows_per_file": 4} | options).cache


def same(left, right):
    if isinstance(left, TopK):
        return all(torch.equal(a.float(), b.float()) for a, b in zip(left[:3], right[:3], strict=True))
    return torch.equal(left, right)


@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_each_row_comes_back(shape, k, tmp_path):
    """Rows of different length cut at the wrong place, a file's first row taken for the cache's."""
    cache = fill(tmp_path / "cache", shape, k=k, temperature=k and 2.0)
    model, rows = make_model(shape, 1), make_rows(shape, 10)
    assert len(cache) == 10
    assert len(list((tmp_path / "cache").iterdir())) == 3
    for index, row in enumerate(rows):
        with torch.no_grad():
            logits = model.eval()(torch.tensor([row["input_ids"]])).logits[0]
        cached = cache[index]
        if k:
            assert torch.equal(cached.classes.long(), top_k(logits, k, 2.0).classes)
            torch.testing.assert_close(cached.logits, top_k(logits, k, 2.0).logits, atol=1e-5, rtol=0)
            torch.testing.assert_close(cached.rest, top_k(logits, k, 2.0).rest, atol=1e-5, rtol=0)
        else:
            torch.testing.assert_close(cached, logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_grown_dataset_is_scored_from_where_the_cache_ends(shape, tmp_path):
    """Work done twice, or a dataset's new rows answered with old ones."""
    fill(tmp_path / "cache", shape, 6)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    grown = fill(tmp_path / "cache", shape, 10)
    whole = fill(tmp_path / "whole", shape, 10)
    assert len(grown) == 10
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert all(torch.allclose(grown[row], whole[row], atol=1e-5) for row in range(10))


@pytest.mark.slow
def test_a_killed_run_goes_on_after_its_last_file(tmp_path):
    """Half a file taken for a whole one, or everything scored again."""
    script = (
        "import os, signal, sys; from pathlib import Path; import kdcourse.cache as cache, test_cache\n"
        "write = cache.write_tensors\n"
        "def die_at_third(path, tensors, metadata):\n"
        "    if '008' in path.name:\n"
        "        path.with_name('.' + path.name + '.1').write_bytes(b'half')\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(path, tensors, metadata)\n"
        "cache.write_tensors = die_at_third\n"
        "test_cache.fill(Path(sys.argv[1]), 'llama-lm')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path / "cache")], env=environment, check=False)
    assert run.returncode == -signal.SIGKILL
    finished = sorted((tmp_path / "cache").glob("rows-*"))
    assert len(finished) == 2
    resumed, whole = fill(tmp_path / "cache", "llama-lm"), fill(tmp_path / "whole", "llama-lm")
    assert all(same(resumed[row], whole[row]) for row in range(10))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("teacher weights", {"seed": 2}),
        ("tokenizer", {"tokenizer": make_tokenizer(words=50)}),
        ("token ids", {"row_seed": 1}),
        ("settings", {"k": 3, "temperature": 2.0}),
        ("settings", {"k": 2, "temperature": 4.0, "first": {"k": 2, "temperature": 2.0}}),
    ],
)
def test_another_question_is_refused_by_name(field, change, tmp_path):
    """A stale cache: logits of another teacher, tokenizer, dataset, k or temperature, used without a word."""
    change = dict(change)
    fill(tmp_path / "cache", "llama-lm", **change.pop("first", {}))
    with pytest.raises(CacheMismatchError, match=f"other {field}"):
        fill(tmp_path / "cache", "llama-lm", **change)


def test_a_smaller_dataset_and_a_damaged_file_are_refused(tmp_path):
    """Rows of a longer dataset, or half a file, taken for this one's."""
    fill(tmp_path / "cache", "bert-classifier")
    with pytest.raises(CacheMismatchError, match="10 rows and the dataset 5"):
        fill(tmp_path / "cache", "bert-classifier", 5)
    damaged = tmp_path / "cache" / "rows-000000004.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(CacheMismatchError, match="damaged"):
        fill(tmp_path / "cache", "bert-classifier")


def test_temperature_and_k_belong_together(tmp_path):
    """Top-k kept without the temperature at which the rest was weighed."""
    with pytest.raises(ValueError, match="k and temperature belong together"):
        fill(tmp_path / "cache", "llama-lm", k=3)


def test_rows_that_are_not_there_are_an_error(tmp_path):
    """Row -1, which Python would take for the last."""
    cache = fill(tmp_path / "cache", "bert-classifier")
    for row in (-1, 10):
        with pytest.raises(IndexError, match=f"Row {row} is asked for, but cache holds 10 rows"):
            cache[row]
    assert len(LogitsCache(tmp_path / "new", {})) == 0


def test_fifty_of_fifty_thousand_take_a_five_hundredth(tmp_path):
    """Top-k that stores the whole row."""
    logits = torch.randn(20, 50_257)
    cache = LogitsCache(tmp_path / "cache", {})
    cache.append([top_k(logits, 50, 2.0)])
    size = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    assert size / 20 < 50_257 * 4 / 400


def test_cached_tokens_must_be_those_of_the_batch(tmp_path):
    """Rows cut to another length after they were scored: each token would get its neighbour's logits."""
    rows = make_rows("llama-lm", 3)
    cached = cache_logits(tmp_path / "cache", make_model("llama-lm"), make_tokenizer(), rows)
    mask = torch.ones(1, len(rows[1]["input_ids"]) - 1, dtype=torch.long)
    with pytest.raises(ValueError, match="as they were scored"):
        cached.logits({"teacher_row": torch.tensor([1]), "attention_mask": mask})


def test_without_a_mask_all_tokens_are_text(tmp_path):
    """A KeyError for a batch of texts of one length."""
    rows = make_rows("llama-lm", 1)
    cached = cache_logits(tmp_path / "cache", make_model("llama-lm"), make_tokenizer(), rows)
    ids = torch.tensor([rows[0]["input_ids"]])
    assert torch.equal(cached.logits({"teacher_row": torch.tensor([0]), "input_ids": ids})[0], cached.cache[0])
    assert cached.logits({"input_ids": ids}) is None


def test_progress_is_shown_where_it_is_asked_for(tmp_path, capsys):
    """A bar for each file where nobody asked for one, or none for a night of scoring."""
    fill(tmp_path / "quiet", "bert-classifier")
    assert not capsys.readouterr().err
    fill(tmp_path / "shown", "bert-classifier", progress=True)
    assert "teacher: 100%" in capsys.readouterr().err
