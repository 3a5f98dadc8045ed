"""`LogitsCache` and `cache_logits`: interrupted, grown, damaged, and never handed to another question."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from datasets import concatenate_datasets
from hypothesis import given
from safetensors import safe_open
from shapes import make_model, make_rows, make_tokenizer, make_trainer
from test_properties import cases

from kdcourse import distillation_loss
from kdcourse.cache import CacheMismatchError, LogitsCache
from kdcourse.collators import LanguageModelCollator
from kdcourse.pieces import narrowed, sealed, write_tensors
from kdcourse.sampled import Sampled, sample_k
from kdcourse.teacher import CachedTeacher, cache_logits
from kdcourse.topk import Cut, top_k

TESTS = Path(__file__).parent
SHAPES = ["bert-classifier", "llama-lm"]
DRAWN = {"k": 3, "temperature": 2.0, "sampled": True, "seed": 7}


def fill(folder, shape, rows=10, *, teacher_seed=1, tokenizer=None, row_seed=0, **options):
    tokenizer = tokenizer or make_tokenizer()
    dataset = make_rows(shape, rows, seed=row_seed)
    return cache_logits(
        folder, make_model(shape, teacher_seed), tokenizer, dataset, **{"rows_per_file": 4} | options
    ).cache


def same(left, right):
    if isinstance(left, Cut):
        return all(
            torch.equal(*(getattr(row, part) for row in (left, right))) for part in ("logits", "classes", "rest")
        )
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


def test_what_is_stored_of_a_row_does_not_depend_on_its_neighbours(tmp_path):
    """A GPT-2 with padding on the left: other positions, and logits that were off by 4, beside a longer row."""
    tokenizer, rows = make_tokenizer(pad_side="left"), make_rows("gpt2-lm", 10)
    teacher = make_model("gpt2-lm", 1).eval()
    cached = cache_logits(tmp_path / "cache", teacher, tokenizer, rows, batch_size=10).cache
    for index, row in enumerate(rows):
        with torch.no_grad():
            alone = teacher(torch.tensor([row["input_ids"]])).logits[0]
        torch.testing.assert_close(cached[index], alone, atol=1e-5, rtol=0)
    assert tokenizer.padding_side == "left"


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
        ("teacher weights", {"teacher_seed": 2}),
        ("tokenizer", {"tokenizer": make_tokenizer(words=50)}),
        ("token ids", {"row_seed": 1}),
        ("settings", {"k": 3, "temperature": 2.0}),
        ("settings", {"k": 2, "temperature": 4.0, "first": {"k": 2, "temperature": 2.0}}),
        ("settings", {**DRAWN, "first": {"k": 3, "temperature": 2.0}}),
        ("settings", {**DRAWN, "seed": 8, "first": DRAWN}),
        ("settings", {"dtype": torch.float16}),
        ("settings", {**DRAWN, "dtype": torch.bfloat16, "first": {**DRAWN, "dtype": torch.float16}}),
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


def test_settings_that_do_not_belong_together_are_refused(tmp_path):
    """Top-k kept without the temperature at which the rest was weighed; logits as integers."""
    for options, match in (
        ({"k": 3}, "k and temperature belong together"),
        ({"sampled": True}, "sampled=True draws k classes of each row; say how many"),
        ({**DRAWN, "seed": -1}, "seed is -1, but it is a whole number"),
        ({"dtype": torch.float8_e4m3fn}, "dtype is torch.float8_e4m3fn, but logits are stored in float16"),
        ({"dtype": torch.float64}, "dtype is torch.float64, but"),
    ):
        with pytest.raises(ValueError, match=match):
            fill(tmp_path / "cache", "llama-lm", **options)


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
    assert bytes_in(tmp_path / "cache") / 20 < 50_257 * 4 / 550
    cache = LogitsCache(tmp_path / "in half", {})
    cache.append([narrowed(top_k(logits, 50, 2.0), torch.float16)])
    assert bytes_in(tmp_path / "in half") / 20 < 50_257 * 4 / 800


def bytes_in(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("shape", SHAPES)
def test_drawn_classes_come_back(shape, tmp_path):
    """A draw that depends on how rows are batched or filed, so that an interruption changes it."""
    cache = fill(tmp_path / "cache", shape, **DRAWN)
    model, rows = make_model(shape, 1).eval(), make_rows(shape, 10)
    for index, row in enumerate(rows):
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0]
        expected, cached = sample_k(logits, 3, 2.0, seed=(7, index)), cache[index]
        assert isinstance(cached, Sampled)
        assert torch.equal(cached.classes.long(), expected.classes)
        torch.testing.assert_close(cached.logits, expected.logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(cached.rest, expected.rest, atol=1e-5, rtol=0)
    otherwise = fill(tmp_path / "other", shape, batch_size=3, rows_per_file=100, **DRAWN)
    grown = fill(tmp_path / "grown", shape, 6, **DRAWN), fill(tmp_path / "grown", shape, 10, **DRAWN)
    for index in range(10):
        for each in (otherwise, grown[-1]):
            assert torch.equal(each[index].classes, cache[index].classes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"k": 3, "temperature": 2.0}, DRAWN], ids=["all", "top 3", "3 drawn"])
def test_a_teacher_of_sixteen_bits_is_stored_in_them(options, dtype, tmp_path):
    """Twice the bytes for no other number; or a bit that is lost without anybody having asked for it."""
    for number, wide in enumerate((False, True)):
        cached = cache_logits(
            tmp_path / str(number), make_model("llama-lm", 1).to(dtype), make_tokenizer(), make_rows("llama-lm"),
            dtype=torch.float32 if wide else None, **options,
        ).cache  # fmt: skip
        if number == 0:
            narrow = cached
    assert all(same(narrow[row], cached[row]) for row in range(16))
    assert narrow[0].to("cpu").shape == cached[0].shape
    stored = [safe_open(next((tmp_path / name).iterdir()), "pt").get_tensor("logits").dtype for name in ("0", "1")]
    assert stored == [dtype, torch.float32]


def test_precisions_that_give_the_same_numbers_are_one_setting(tmp_path):
    """A cache in float32, as an earlier version wrote it, that is scored anew because its teacher is in bfloat16."""
    teacher, tokenizer = make_model("llama-lm", 1).bfloat16(), make_tokenizer()
    score = lambda rows, **options: cache_logits(tmp_path / "cache", teacher, tokenizer, rows, **options).cache  # noqa: E731
    before = score(make_rows("llama-lm", 6), dtype=torch.float32)
    after = score(make_rows("llama-lm", 10))
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert all(same(before[row], after[row]) for row in range(6))
    assert {after[row].dtype for row in range(10)} == {torch.float32}


def as_before(row):
    """The tensors of a file of the version before 16 bits: classes in int32, all else in float32."""
    cut = {"classes": row.classes.int(), "rest": row.rest, "temperature": torch.tensor(row.temperature).double(),
           "width": torch.tensor(row.width)} if isinstance(row, Cut) else {}  # fmt: skip
    logits = row.logits if cut else row
    return {"logits": logits, "ends": torch.tensor([len(logits)]), "is_sequence": torch.tensor(True)} | cut


@pytest.mark.parametrize("cut", [False, True])
def test_a_cache_of_an_earlier_version_is_read_and_continued(cut, tmp_path):
    """A night of scoring that an update throws away."""
    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(0))
    row = top_k(logits, 4, 2.0) if cut else logits
    write_tensors(
        tmp_path / "rows-000000000.safetensors", tensors := as_before(row), sealed(tensors, {"rows": "0 to 0"})
    )
    LogitsCache(tmp_path, {}).append([row])
    cache = LogitsCache(tmp_path, {})
    assert same(cache[0], cache[1])
    assert torch.equal(cache[0].logits, row.logits) if cut else torch.equal(cache[0], row)


LOWEST = torch.finfo(torch.float32).min
HALVES = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
"""By how much of a number rounding moves it."""


@cases(100)
@given(st.integers(0, 10**6), st.sampled_from(list(HALVES)), st.sampled_from([1.0, 30.0, 1e5, 1e30]), st.booleans())
def test_sixteen_bits_move_a_logit_by_their_rounding(seed, dtype, scale, centred):
    """A mask that becomes NaN, a logit above 65,504 that becomes infinite, likely classes with the fewest digits."""
    random = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(4, 9, generator=random) + (0 if centred else 100 * scale)
    masks = torch.rand(logits.shape, generator=random)
    logits[masks < 0.2] = -torch.inf
    logits[masks > 0.8] = torch.finfo(torch.float32).min
    logits[0] = -torch.inf
    short = narrowed(logits, dtype).float()
    assert short.dtype == torch.float32 and not short.isnan().any()
    assert torch.equal(short == -torch.inf, logits == -torch.inf)
    below, kept = (x[1:] - x[1:].amax(-1, keepdim=True) for x in (logits, short))
    off, legal = (kept - below).abs(), below > torch.finfo(dtype).min
    assert (off <= HALVES[dtype] * below.abs() + 1e-6 * logits[1:].abs())[legal & below.isfinite()].all()
    assert (kept[~legal & below.isfinite()] <= torch.finfo(dtype).min / 2).all()
    for temperature in (0.5, 1.0, 8.0):
        probs, exact = ((x / temperature).softmax(-1) for x in (short[1:], logits[1:]))
        far = (1e-3 + HALVES[dtype] * 2 * 90) * exact + 1e-6  # beyond 90 T, a probability is 0 in float32
        assert scale > 100 or ((probs - exact).abs() <= far).all()


def test_a_finite_mask_keeps_a_probability_of_zero_up_to_a_temperature_of_600():
    """-65,504 in the place of the lowest float32, which a temperature makes a class again."""
    kept = narrowed(torch.tensor([[0.3, -1.7, LOWEST, -torch.inf]]), torch.float16).float()
    assert kept[0, 2].isfinite() and kept[0, 3] == -torch.inf
    assert (kept / 600).softmax(-1)[0, 2] == 0
    assert (kept / 800).softmax(-1)[0, 2] > 0


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", ["all", "top", "drawn"])
def test_sixteen_bits_change_the_loss_by_little(kind, dtype):
    """The weight of the rest left where it was, while the logits beside it were counted from their largest."""
    random = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(8, 50, generator=random) + 20 for _ in range(2))
    teacher[:, 7], teacher[:, 8] = -torch.inf, torch.finfo(torch.float32).min
    kept = {"all": teacher, "top": top_k(teacher, 5, 2.0), "drawn": sample_k(teacher, 5, 2.0, seed=0)}[kind]
    losses, gradients = [], []
    for target in (kept, narrowed(kept, dtype)):
        leaf = student.clone().requires_grad_()
        loss = distillation_loss(leaf, target, alpha=0, temperature=2.0)
        loss.total.backward()
        losses.append(loss.total.item())
        gradients.append(leaf.grad)
    assert losses[1] == pytest.approx(losses[0], rel=4 * HALVES[dtype])
    assert losses[1] != losses[0]
    assert (gradients[1] - gradients[0]).norm() <= 4 * HALVES[dtype] * gradients[0].norm()


def places(cached, rows, *numbers):
    """What a batch says of these rows' places in a cache."""
    taught = cached.add_rows(rows).with_format("torch")[list(numbers)]
    return {name: taught[name] for name in ("teacher_row", "teacher_cache")}


def test_cached_tokens_must_be_those_of_the_batch(tmp_path):
    """Rows cut to another length after they were scored: each token would get its neighbour's logits."""
    rows = make_rows("llama-lm", 3)
    cached = cache_logits(tmp_path / "cache", make_model("llama-lm"), make_tokenizer(), rows)
    mask = torch.ones(1, len(rows[1]["input_ids"]) - 1, dtype=torch.long)
    with pytest.raises(ValueError, match="as they were scored"):
        cached.logits(places(cached, rows, 1) | {"attention_mask": mask})


def test_packed_texts_must_be_those_of_the_batch(tmp_path):
    """Two texts of 5 and 7 tokens for two of 7 and 5: as many tokens, and each with another's logits."""
    rows = make_rows("llama-lm", 3)
    cached = cache_logits(tmp_path / "cache", make_model("llama-lm"), make_tokenizer(), rows)
    first, second = (len(rows[index]["input_ids"]) for index in (0, 1))
    assert first != second
    positions = torch.tensor([[*range(first), *range(second)]])
    batch = {"input_ids": positions, "position_ids": positions} | places(cached, rows, 0, 1)
    assert torch.equal(cached.logits(batch)[0], torch.cat([cached.cache[0], cached.cache[1]]))
    with pytest.raises(ValueError, match=rf"holds \[{second}, {first}\] tokens for sequences of \[{first}, {second}\]"):
        cached.logits(batch | places(cached, rows, 1, 0))


@pytest.mark.parametrize("packed", [False, True])
def test_train_and_evaluation_share_one_cache(packed, tmp_path):
    """Evaluation rows that get the logits of training rows with their numbers, without a word."""
    tokenizer, teacher = make_tokenizer(), make_model("llama-lm", 1)
    rows = [make_rows("llama-lm", 8, seed=seed) for seed in (0, 1)]
    train, evaluation = (each.map(lambda row: {"input_ids": row["input_ids"][:3] * 2}) for each in rows)  # as long
    train, evaluation = (each.remove_columns(["attention_mask", "labels"]) for each in (train, evaluation))
    both, parts = concatenate_datasets([train, evaluation]), (train, evaluation)
    apart = [cache_logits(tmp_path / str(number), teacher, tokenizer, part) for number, part in enumerate(parts)]
    numbered = [cached.add_rows(part) for cached, part in zip(apart, parts, strict=True)]
    grown = cache_logits(tmp_path / "0", teacher, tokenizer, both)
    taught = grown.add_rows(both)

    def loss(teacher, rows):
        trainer = make_trainer(
            "llama-lm", tmp_path / "out", rows=train, eval_rows=rows, teacher=teacher,
            collator=LanguageModelCollator(tokenizer, packed=packed), per_device_eval_batch_size=3,
        )  # fmt: skip
        return trainer.evaluate()["eval_loss"]

    right = pytest.approx(loss(teacher, evaluation), rel=1e-4)
    selected = taught.select(range(8, 16))
    assert loss(grown, selected) == loss(apart[1], numbered[1]) == right
    assert loss(grown, taught.shuffle(seed=0).filter(lambda row: row["teacher_row"] >= 8)) == right
    if not packed:
        assert loss(grown, selected.to_iterable_dataset()) == right
    assert loss(grown, numbered[0]) == pytest.approx(loss(teacher, train), rel=1e-4)  # the rows that it began with
    mixed = concatenate_datasets([numbered[0], numbered[1].select([0])])
    for cached, rows in ((apart[0], numbered[1]), (apart[0], mixed), (grown, mixed), (apart[0], selected)):
        with pytest.raises(CacheMismatchError, match=r"^Row \d was numbered for another cache .* score both into one"):
            loss(cached, rows)


@pytest.mark.parametrize("kept", [{}, {"k": 10, "temperature": 2.0}])
def test_a_file_of_a_large_vocabulary_holds_fewer_rows(kept, tmp_path, monkeypatch):
    """Gigabytes of logits that wait in memory for the thousandth row; a cache of larger files that is not continued."""
    rows, tokenizer, teacher = make_rows("llama-lm", 40), make_tokenizer(), make_model("llama-lm", 1)
    lengths = [len(ids) for ids in rows["input_ids"]]

    def files(name, given=rows, teacher=teacher, **options):
        cache = cache_logits(tmp_path / name, teacher, tokenizer, given, **{"batch_size": 2} | kept | options).cache
        return [part for part, _ in cache.pieces()], cache

    small, whole = files("small")
    assert small == [range(40)]
    files("grown", rows.select(range(30)))
    of_token = 80 if kept else 160
    monkeypatch.setattr("kdcourse.teacher.FILE_BYTES", 100 * of_token)
    pieces, cache = files("cut")
    assert len(pieces) > 3
    assert all(sum(lengths[row] for row in piece) <= 100 for piece in pieces)
    grown, continued = files("grown")
    assert grown[0] == range(30)
    assert len(grown) > 1
    for row in (0, 17, 39):
        for other in (cache, continued):
            parts = [(each.logits, each.rest) if kept else (each,) for each in (whole[row], other[row])]
            for one, same_part in zip(*parts, strict=True):
                torch.testing.assert_close(same_part, one, rtol=1e-4, atol=1e-5)
    assert files("a batch", batch_size=20)[0] == [range(20), range(20, 40)]
    assert files("classes", make_rows("bert-classifier", 40), make_model("bert-classifier"), k=None,
                 temperature=None)[0] == [range(40)]  # fmt: skip


def test_rows_that_do_not_say_of_which_cache_are_refused(tmp_path):
    """A column that a collator has dropped: rows of any cache are taken for this one's."""
    rows = make_rows("bert-classifier", 3)
    cached = cache_logits(tmp_path / "cache", make_model("bert-classifier"), make_tokenizer(), rows)
    with pytest.raises(CacheMismatchError, match="The batch has teacher_row and no teacher_cache"):
        cached.logits({"teacher_row": torch.tensor([0, 1])})
    by_hand = [LogitsCache(tmp_path / name, {}) for name in ("a", "b")]
    for number, cache in enumerate(by_hand):
        cache.append([torch.full((2,), float(number))] * 3)
    taught = CachedTeacher(by_hand[0]).add_rows(rows).with_format("torch")[:]
    assert torch.equal(CachedTeacher(by_hand[0]).logits(taught), torch.zeros(3, 2))
    with pytest.raises(CacheMismatchError, match=r"numbered for another cache"):
        CachedTeacher(by_hand[1]).logits(taught)


def test_without_a_mask_all_tokens_are_text(tmp_path):
    """A KeyError for a batch of texts of one length."""
    rows = make_rows("llama-lm", 1)
    cached = cache_logits(tmp_path / "cache", make_model("llama-lm"), make_tokenizer(), rows)
    ids = torch.tensor([rows[0]["input_ids"]])
    assert torch.equal(cached.logits(places(cached, rows, 0) | {"input_ids": ids})[0], cached.cache[0])
    assert cached.logits({"input_ids": ids}) is None


def test_progress_is_shown_where_it_is_asked_for(tmp_path, capsys):
    """A bar for each file where nobody asked for one, or none for a night of scoring."""
    fill(tmp_path / "quiet", "bert-classifier")
    assert not capsys.readouterr().err
    fill(tmp_path / "shown", "bert-classifier", progress=True)
    assert "teacher: 100%" in capsys.readouterr().err
