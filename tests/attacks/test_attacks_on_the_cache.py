"""Cached logits that were changed, lost, mixed up or half written: a sentence, and never another row's answer.

KDCOURSE_DEEP=1 (`make test-deep`) flips twenty times as many bytes, drawn anew in each run.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from shapes import make_model, make_rows, make_tokenizer, make_trainer

from kdcourse.cache import CacheMismatchError, LogitsCache, load_logits, save_logits
from kdcourse.checks import MismatchError
from kdcourse.hashing import hash_tensors
from kdcourse.pieces import narrowed
from kdcourse.sampled import sample_k
from kdcourse.teacher import CachedTeacher, cache_logits
from kdcourse.topk import Cut, TopK, top_k

DEEP = bool(os.environ.get("KDCOURSE_DEEP"))
EXAMPLES = settings(max_examples=4000 if DEEP else 200, derandomize=not DEEP, database=None, deadline=None)
FINGERPRINT = {"teacher weights": "a" * 64, "settings": "as they are"}
LENGTHS = [3, 1, 4, 2]
KINDS = ["classifier", "classifier, top 2", "tokens", "tokens, top 2"]
DRAWN = ["classifier, 2 drawn", "tokens, 2 drawn"]
SHORT = ["tokens, in float16", "tokens, top 2 in bfloat16"]
ALL_KINDS = KINDS + DRAWN + SHORT


def rows_of(kind, seed=0, rows=4):
    """Logits of `rows` examples."""
    random = torch.Generator().manual_seed(seed)
    shapes = [(length, 6) if kind.startswith("tokens") else (6,) for length in LENGTHS[:rows]]
    logits = [torch.randn(*shape, generator=random) for shape in shapes]
    if "top 2" in kind:
        logits = [top_k(row, 2, 2.0) for row in logits]
    if "drawn" in kind:
        logits = [sample_k(row, 2, 2.0, seed=(seed, number)) for number, row in enumerate(logits)]
    short = kind.rpartition(" in ")[2]
    return [narrowed(row, getattr(torch, short)) for row in logits] if short in ("float16", "bfloat16") else logits


def write(folder, kind, pieces=2):
    """A cache of `pieces` files with four rows each, and what it has to answer."""
    cache, written = LogitsCache(folder, FINGERPRINT), []
    for seed in range(pieces):
        written += (rows := rows_of(kind, seed))
        cache.append(rows, about={"token ids": str(seed)})
    return written


def read(folder):
    cache = LogitsCache(folder, FINGERPRINT)
    return [cache[row] for row in range(len(cache))]


def parts(row):
    """In the precision in which logits are handed out."""
    if not isinstance(row, Cut):
        return [row.float()]
    return [isinstance(row, TopK), row.logits.float(), row.classes.long(), row.rest, row.temperature, row.width]


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b))
        for one, other in zip(left, right, strict=True)
        for a, b in zip(parts(one), parts(other), strict=True)
    )


def files(folder):
    return sorted(folder.glob("rows-*"))


def refused(folder, match, row=0):
    """A cache that hands out nothing of what was changed."""
    with pytest.raises(CacheMismatchError, match=match):
        LogitsCache(folder, FINGERPRINT)[row]


def rewrite(path, change, about=None):
    """The file with other tensors, and with the metadata that it had."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}
    change(tensors)
    safetensors.torch.save_file(tensors, path, metadata | (about or {}))


@pytest.fixture(params=ALL_KINDS)
def kind(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def test_what_was_written_is_read(kind, folder):
    """A proof that refuses the cache's own files."""
    written = write(folder, kind)
    assert same(read(folder), written)
    assert all(path.stat().st_mode & 0o777 == 0o666 & ~umask() for path in files(folder))


def umask():
    """Of this process; safetensors makes files that only their owner can read, so a shared cache was unreadable."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_likeliest_class_alone_can_be_kept(folder):
    """k = 1, or a temperature below 1, taken for damage."""
    rows = [top_k(row, 1, 0.5) for row in rows_of("tokens")]
    LogitsCache(folder, FINGERPRINT).append(rows)
    assert same(read(folder), rows)


def test_a_text_may_be_empty(folder):
    """A row without tokens, taken for damage."""
    rows = [torch.zeros(0, 6), torch.ones(2, 6), torch.zeros(0, 6)]
    LogitsCache(folder, FINGERPRINT).append(rows)
    assert same(read(folder), rows)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """By kind: a file's bytes, and its rows."""
    made = {}
    for name in ALL_KINDS:
        folder = tmp_path_factory.mktemp("original")
        written = write(folder, name, pieces=1)
        made[name] = (files(folder)[0].read_bytes(), written)
    return made


@EXAMPLES
@given(data=st.data(), name=st.sampled_from(ALL_KINDS))
def test_any_other_byte_is_refused_or_harmless(originals, data, name):
    """A flipped bit, in the header or in the logits, that becomes a target of training."""
    content, written = originals[name]
    changed = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        changed[place] ^= data.draw(st.integers(1, 255))
    served_or_refused(bytes(changed), written)


@EXAMPLES
@given(data=st.data(), name=st.sampled_from(ALL_KINDS))
def test_any_other_length_is_refused(originals, data, name):
    """A file that was cut short, lost a stretch in its middle, or grew."""
    content, written = originals[name]
    start, end = sorted(data.draw(st.lists(st.integers(0, len(content)), min_size=2, max_size=2, unique=True)))
    served_or_refused(content[:start] + data.draw(st.binary(max_size=9)) + content[end:], written)


WORDS = [
    *("logits", "classes", "rest", "ends", "is_sequence", "temperature", "width", "seal", "content", "rows", "0 to 3"),
    *(
        "F32",
        "F64",
        "I64",
        "I32",
        "BOOL",
        "BF16",
        "F8_E4M3",
        "F4",
        "U64",
        "F16",
        "U16",
        "U8",
        "I16",
        "is_sampled",
        "[4,6]",
        "[10,6]",
        "[10]",
        "[4]",
        "[]",
    ),
]
"""Of a header."""


@EXAMPLES
@given(data=st.data(), name=st.sampled_from(ALL_KINDS))
def test_a_header_of_another_shape_is_refused_or_harmless(originals, data, name):
    """Names, dtypes, shapes and offsets that are legal, and not those that were written."""
    content, written = originals[name]
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].decode()
    old = data.draw(st.sampled_from([word for word in WORDS if word in header]))
    changed = header.replace(old, data.draw(st.sampled_from(WORDS))).encode()
    served_or_refused(len(changed).to_bytes(8, "little") + changed + content[8 + size :], written)


def served_or_refused(content, written):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "cache"
        folder.mkdir()
        (folder / "rows-000000000.safetensors").write_bytes(content)
        try:
            answers = read(folder)
        except CacheMismatchError as error:
            assert str(error).endswith(("anew; the rows before stay.", "that they came from."))
        else:
            assert same(answers, written)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda tensors: tensors["ends"].add_(1), "do not end where"),
        (lambda tensors: tensors["ends"][:-1].add_(1), "do not end where|not those that were written"),
        (lambda tensors: tensors["ends"].zero_(), "do not end where"),
        (lambda tensors: tensors.update(ends=tensors["ends"][:0]), "no rows"),
        (lambda tensors: tensors.update(ends=tensors["ends"].float()), "ends is torch.float32"),
        (lambda tensors: tensors.update(ends=tensors["ends"][None]), r"of shape \(1, 4\)"),
        (lambda tensors: tensors.update(logits=tensors["logits"][:-1]), "do not end where"),
        (lambda tensors: tensors.update(logits=tensors["logits"].long()), "logits is torch.int64"),
        (lambda tensors: tensors["logits"][0].neg_(), "not those that were written"),
        (
            lambda tensors: tensors.update(is_sequence=~tensors["is_sequence"]),
            "do not end|not those that were|another kind",
        ),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "it holds .*more"),
        (lambda tensors: tensors.pop("is_sequence"), "it holds"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, match, kind, folder):
    """Rows cut at the wrong place, a row that is gone, a row of zeros; a loop without end for a file without rows."""
    write(folder, kind)
    rewrite(files(folder)[0], change)
    refused(folder, match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda tensors: tensors["temperature"].fill_(torch.nan), "temperature is nan"),
        (lambda tensors: tensors["temperature"].fill_(torch.inf), "temperature is inf"),
        (lambda tensors: tensors["temperature"].fill_(0), "temperature is 0"),
        (lambda tensors: tensors["temperature"].fill_(4), "another kind"),
        (lambda tensors: tensors["width"].fill_(1), "keeps 2 of 1 classes"),
        (lambda tensors: tensors["width"].fill_(7), "another kind"),
        (lambda tensors: tensors.update(classes=tensors["classes"][:, :1].clone()), "not as many"),
        (lambda tensors: tensors.update(rest=tensors["rest"][1:].clone()), "not as many"),
        (lambda tensors: tensors["classes"].view(torch.int16).add_(1), "not those that were written"),
        (lambda tensors: tensors["rest"].zero_(), "not those that were written"),
    ],
)
@pytest.mark.parametrize("kind", [*KINDS[1::2], *DRAWN])
def test_a_top_k_that_does_not_fit_is_refused(change, match, kind, folder):
    """T = NaN, classes of a smaller vocabulary, the rest of another row."""
    write(folder, kind)
    rewrite(files(folder)[0], change)
    refused(folder, match)


@pytest.mark.parametrize("field", ["teacher weights", "settings", "token ids", "rows", "content", "seal", "new"])
def test_a_word_about_the_logits_is_sealed(field, kind, folder):
    """Another teacher's logits that say they are this one's."""
    write(folder, kind)
    rewrite(files(folder)[1], lambda tensors: None, {field: "b" * 64})
    refused(folder, "what it says of its logits was changed", 4)


def test_logits_are_proven_once(kind, folder, monkeypatch):
    """Every look-up of a training pays for the SHA-256 of a file."""
    written, proven = write(folder, kind), []
    monkeypatch.setattr("kdcourse.pieces.hash_tensors", lambda tensors: proven.append(1) or hash_tensors(tensors))
    cache = LogitsCache(folder, FINGERPRINT)
    assert not proven
    for _ in range(2):
        assert same([cache[row] for row in range(4)], written[:4])
    assert len(proven) == 1
    assert same([cache[row] for row in range(8)], written)
    assert len(proven) == 2


def test_a_cache_without_seals_is_of_an_earlier_version(kind, folder):
    """Files whose content nothing proves."""
    write(folder, kind)
    tensors = safetensors.torch.load_file(path := files(folder)[0])
    safetensors.torch.save_file(tensors, path, FINGERPRINT)
    refused(folder, "as an earlier version wrote it")


@pytest.mark.parametrize("lost", [0, 1])
def test_a_file_that_is_missing_is_named(lost, kind, folder):
    """Rows of later files under the numbers of the lost ones, or all of them scored again without a word."""
    write(folder, kind, pieces=3)
    files(folder)[lost].unlink()
    refused(folder, f"rows-00000000{4 * lost + 4}.safetensors follows {4 * lost} rows")


def test_the_last_file_may_be_missing(kind, folder):
    """What an interrupted run looks like, refused."""
    written = write(folder, kind)
    files(folder)[-1].unlink()
    assert same(read(folder), written[:4])


@pytest.mark.parametrize("name", ["rows-000000002.safetensors", "rows-000000009.safetensors"])
def test_a_file_that_is_there_twice_is_refused(name, kind, folder):
    """A copy that is read as more rows."""
    write(folder, kind)
    shutil.copy(files(folder)[0], folder / name)
    refused(folder, f"{name}|rows-000000004.safetensors follows")


def test_a_copy_at_the_end_is_refused(kind, folder):
    """The first rows once more, as the answers to the next."""
    write(folder, kind)
    shutil.copy(files(folder)[0], folder / "rows-000000008.safetensors")
    refused(folder, "other rows .0 to 3, not 8 to 11")


def test_two_files_that_changed_places_are_refused(kind, folder):
    """Each row answered with that of another."""
    write(folder, kind)
    first, second = files(folder)
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)
    refused(folder, "other rows .4 to 7, not 0 to 3")


def test_what_is_no_file_of_the_cache_is_left_alone(kind, folder):
    """Half a file of a killed run, or a reader's notes, taken for logits."""
    written = write(folder, kind)
    for name in (".rows-000000008.safetensors.1", "rows-8.safetensors", "rows-0000000008.safetensors", "notes.txt"):
        (folder / name).write_bytes(b"half")
    assert same(read(folder), written)


def test_rows_of_another_kind_are_refused_before_they_are_written(kind, folder):
    """A cache half of classes and half of tokens, which nothing can read."""
    written = write(folder, kind)
    cache = LogitsCache(folder, FINGERPRINT)
    for other in {*KINDS, *DRAWN} - {kind.partition(" in ")[0].rstrip(",")}:
        with pytest.raises(CacheMismatchError, match="another kind"):
            cache.append(rows_of(other))
    assert same(read(folder), written)


def bad(**change):
    fields = {"logits": torch.tensor([2.0, 1.0]), "classes": torch.tensor([0, 1]), "rest": torch.tensor(0.0)}
    return TopK(**{**fields, "temperature": 2.0, "width": 6} | change)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([], "no rows to append"),
        ([torch.zeros(3), torch.zeros(4)], r"shapes \(3,\), \(4,\)"),
        ([torch.zeros(3), torch.zeros(2, 3)], "one cache"),
        ([torch.zeros(1, 2, 3)], "one cache"),
        ([torch.tensor(1.0)], "one cache"),
        ([torch.zeros(3, dtype=torch.long)], "logits is torch.int64"),
        ([bad(), torch.zeros(6)], "one cache"),
        ([bad(), bad(temperature=4.0)], "one k at one temperature"),
        ([bad(), bad(width=7)], "one cache"),
        ([bad(temperature=float("nan"))], "temperature is nan"),
        ([bad(temperature=0.0)], "temperature is 0"),
        ([bad(width=1)], "different numbers from 0 to 0"),
        ([bad(classes=torch.tensor([0, 0]))], "2 different numbers from 0 to 5"),
        ([bad(classes=torch.tensor([0, 6]))], "different numbers"),
        ([bad(classes=torch.tensor([-1, 0]))], "different numbers"),
        ([bad(classes=torch.tensor([0, 1, 6]), logits=torch.zeros(3))], "3 different numbers from 0 to 5"),
        ([bad(classes=torch.tensor([6, 1, 0]), logits=torch.zeros(3))], "3 different numbers from 0 to 5"),
        ([bad(classes=torch.tensor([3, 1, 3]), logits=torch.zeros(3))], "3 different numbers from 0 to 5"),
    ],
)
def test_rows_that_cannot_be_read_are_not_written(rows, match, folder):
    """A temperature of the first row for all, and a cache that its own reader refuses."""
    with pytest.raises(ValueError, match=match):
        LogitsCache(folder, {}).append(rows)
    assert not files(folder)


def test_a_temperature_that_is_none_is_refused_at_once(folder):
    """A night of scoring at T = NaN."""
    for temperature in (float("nan"), 0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match="finite number above 0"):
            cache_logits(folder, make_model("llama-lm"), make_tokenizer(), make_rows("llama-lm"), k=3,
                         temperature=temperature)  # fmt: skip
        with pytest.raises(ValueError, match="finite number above 0"):
            top_k(torch.zeros(3), 2, temperature)


def test_a_second_writer_is_told(kind, folder):
    """Two processes that append at the same place: the first one's rows, replaced without a word."""
    ours, theirs = LogitsCache(folder, FINGERPRINT), LogitsCache(folder, FINGERPRINT)
    rows = rows_of(kind)
    ours.append(rows)
    with pytest.raises(CacheMismatchError, match="Another process has written"):
        theirs.append(rows_of(kind, seed=1))
    assert same(read(folder), rows)
    LogitsCache(folder, FINGERPRINT).append(rows_of(kind, seed=1))
    assert same(read(folder), rows + rows_of(kind, seed=1))


APPEND = """
import sys, torch
from pathlib import Path
from kdcourse.cache import LogitsCache
cache = LogitsCache(Path(sys.argv[1]), {})
print("ready", flush=True)
sys.stdin.readline()
try:
    cache.append([torch.full((6,), float(sys.argv[2]))] * 1000)
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_of_two_processes_one_writes(folder):
    """Both look, both find nothing, both write."""
    command = [sys.executable, "-c", APPEND, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, number], **pipes) for number in "12"]
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
    for writer in writers:
        writer.stdin.write("now\n")
        writer.stdin.flush()
    said = [writer.communicate(timeout=120)[0] for writer in writers]
    (loser,) = [number for number, text in enumerate(said) if "Another process has written" in text]
    cache = LogitsCache(folder, {})
    assert len(cache) == 1000
    assert all(cache[row].tolist() == [2.0 - loser] * 6 for row in (0, 999))


@contextmanager
def files_of_at_most(size):
    """What a full disk does to a write, without a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_nothing(folder):
    """A SafetensorError, half a file under the name of a whole one, or the rows before."""
    written = write(folder, "tokens")
    cache = LogitsCache(folder, FINGERPRINT)
    with files_of_at_most(2000), pytest.raises(OSError, match=r"cannot be written \(.*os error.*\); nothing was lost"):
        cache.append([torch.zeros(100, 6)])
    assert sorted(path.name for path in folder.iterdir()) == [path.name for path in files(folder)]
    assert same(read(folder), written)
    cache.append([torch.zeros(100, 6)])
    assert len(read(folder)) == 9


@pytest.mark.parametrize("what", ["a file", "a broken link", "a loop of links"])
def test_a_folder_that_is_none_is_a_sentence(what, tmp_path):
    """A traceback, or a cache that is empty for whoever reads and cannot be made for whoever writes."""
    folder = tmp_path / "cache"
    folder.write_text("") if what == "a file" else folder.symlink_to(
        tmp_path / ("gone" if "broken" in what else "cache")
    )
    with pytest.raises(OSError, match=f"{folder} cannot be read .*; look at where it leads"):
        LogitsCache(folder, {})
    with pytest.raises(OSError, match=f"{folder} cannot be read"):
        cache_logits(folder, make_model("llama-lm"), make_tokenizer(), make_rows("llama-lm"))


@pytest.mark.parametrize("what", ["a folder", "a broken link"])
def test_a_file_that_is_none_is_a_sentence(what, folder, tmp_path):
    """An IsADirectoryError of one line of Rust."""
    write(folder, "tokens")
    path = files(folder)[0]
    path.unlink()
    path.mkdir() if what == "a folder" else path.symlink_to(tmp_path / "gone")
    with pytest.raises((OSError, CacheMismatchError), match=str(path)):
        LogitsCache(folder, {})


def test_a_place_that_cannot_be_written_to_is_a_sentence(tmp_path):
    """A traceback of the lock's."""
    (tmp_path / "parent").write_text("")
    with pytest.raises(OSError, match=r"lock of .* cannot be taken"):
        cache_logits(tmp_path / "parent" / "cache", make_model("llama-lm"), make_tokenizer(), make_rows("llama-lm"))


def forbidden(*arguments, **options):
    raise PermissionError(13, "Permission denied")


def test_what_must_not_be_read_is_a_sentence(folder, monkeypatch):
    """Somebody else's cache: a PermissionError without a path. (Root may read everything, so the answer is put in.)"""
    write(folder, "tokens")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", forbidden)
        with pytest.raises(PermissionError, match=r"cache cannot be read \(Permission denied\); look"):
            LogitsCache(folder, FINGERPRINT)
    monkeypatch.setattr("kdcourse.pieces.safe_open", forbidden)
    with pytest.raises(
        PermissionError, match=r"rows-000000000.safetensors cannot be read \(Permission denied\)"
    ) as error:
        LogitsCache(folder, FINGERPRINT)
    assert error.value.errno == 13


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Two sets of logits in one file, as a project ships them."""
    path = tmp_path_factory.mktemp("named") / "logits.safetensors"
    logits = {"train": torch.arange(12.0).reshape(6, 2), "test": torch.ones(3, 2)}
    save_logits(path, logits, dict.fromkeys(logits, FINGERPRINT))
    return path.read_bytes(), logits


@EXAMPLES
@given(data=st.data())
def test_any_other_byte_of_a_shipped_file_is_refused_or_harmless(named, data):
    """The logits that come with the course, changed on the way."""
    content, logits = named
    changed = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        changed[place] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "logits.safetensors"
        path.write_bytes(changed)
        for each, expected in logits.items():
            try:
                assert torch.equal(load_logits(path, each, FINGERPRINT), expected)
            except CacheMismatchError as error:
                assert "logits.safetensors" in str(error)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.update(train=tensors["train"][:-1].clone()),
        lambda tensors: tensors.update(train=tensors["train"].roll(1, 0)),
        lambda tensors: tensors.update(train=tensors["test"].clone()),
        lambda tensors: tensors["train"][3].neg_(),
        lambda tensors: tensors["train"].fill_(torch.nan),
    ],
)
def test_shipped_rows_that_changed_are_refused(change, named, tmp_path):
    """A row that is gone, rows that are shifted, and the rows of another set."""
    path = tmp_path / "logits.safetensors"
    path.write_bytes(named[0])
    rewrite(path, change)
    with pytest.raises(CacheMismatchError, match=r"'train' in logits\.safetensors is damaged"):
        load_logits(path, "train", FINGERPRINT)
    assert torch.equal(load_logits(path, "test", FINGERPRINT), named[1]["test"])


def test_shipped_logits_of_an_earlier_version_are_refused(named, tmp_path):
    """A file without a digest."""
    path = tmp_path / "logits.safetensors"
    safetensors.torch.save_file(named[1], path, {f"train/{field}": value for field, value in FINGERPRINT.items()})
    with pytest.raises(CacheMismatchError, match="as an earlier version wrote it"):
        load_logits(path, "train", FINGERPRINT)


@pytest.mark.parametrize("logits", [torch.zeros(3), torch.zeros(1, 2, 3), torch.zeros(2, 3, dtype=torch.long)])
def test_named_logits_are_rows(logits, tmp_path):
    """Classes in place of logits, which nobody could learn from."""
    with pytest.raises(ValueError, match="'train' is torch"):
        save_logits(tmp_path / "logits.safetensors", {"train": logits}, {"train": {}})
    assert not list(tmp_path.iterdir())


def test_a_shipped_file_that_is_not_there_is_not_found(tmp_path):
    """Another kind of error than `FileNotFoundError`, which whoever scores in its place catches."""
    with pytest.raises(FileNotFoundError, match=r"logits\.safetensors cannot be read"):
        load_logits(tmp_path / "logits.safetensors", "train", {})


@pytest.mark.parametrize(("shape", "other"), [("llama-lm", "llama-classifier"), ("llama-classifier", "llama-lm")])
def test_a_cache_of_another_task_is_refused_at_the_first_batch(shape, other, tmp_path):
    """Logits for tokens, taught to a classifier."""
    cached = cache_logits(tmp_path / "cache", make_model(shape, seed=1), make_tokenizer(), make_rows(shape))
    rows = make_rows(other)
    for name in ("teacher_row", "teacher_cache"):
        rows = rows.add_column(name, cached.add_rows(make_rows(shape))[name])
    with pytest.raises(MismatchError, match=r"row for row and class for class|compared id for id"):
        make_trainer(other, tmp_path, rows=rows, teacher=CachedTeacher(cached.cache)).train()


def test_rows_are_numbered_for_the_dataset_that_was_scored(tmp_path):
    """Another dataset of as many rows: every example gets another one's answer."""
    rows = make_rows("llama-lm", 10)
    cached = cache_logits(tmp_path / "cache", make_model("llama-lm"), make_tokenizer(), rows, rows_per_file=4)
    assert cached.add_rows(rows)["teacher_row"] == list(range(10))
    for other, match in (
        (make_rows("llama-lm", 10, seed=1), "other token ids"),
        (rows.select([*range(8), 9, 8]), "other token ids"),
        (rows.map(lambda row: {"attention_mask": [0, *row["attention_mask"][1:]]}), "other attention mask"),
    ):
        with pytest.raises(CacheMismatchError, match=match):
            cached.add_rows(other)
    pairs = rows.map(lambda row: {"token_type_ids": [0, *[1] * (len(row["input_ids"]) - 1)]})
    segmented = cache_logits(tmp_path / "pairs", make_model("bert-classifier"), make_tokenizer(), pairs)
    assert len(segmented.add_rows(pairs)) == 10
    with pytest.raises(CacheMismatchError, match="no column token_type_ids"):
        segmented.add_rows(rows)
    with pytest.raises(CacheMismatchError, match="no column input_ids"):
        cached.add_rows(rows.remove_columns("input_ids"))
    for other in (make_rows("llama-lm", 9), make_rows("llama-lm", 11)):
        with pytest.raises(ValueError, match="10 cached rows for"):
            cached.add_rows(other)
