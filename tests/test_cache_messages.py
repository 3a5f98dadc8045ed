"""Every refusal of a cache, word for word: what was given, which rule it breaks, what to do."""

import pytest
import safetensors.torch
import torch
from datasets import Dataset
from safetensors import safe_open
from shapes import make_model, make_rows, make_tokenizer
from test_scoring import WAVES, wav2vec
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForAudioFrameClassification

from kdcourse.cache import LogitsCache, load_logits, save_logits
from kdcourse.provenance import columns_read, fingerprint
from kdcourse.teacher import CachedTeacher, add_logits, cache_logits, score
from kdcourse.topk import TopK, top_k

ANEW = "delete it and the files after it, and score the dataset anew; the rows before stay."
ONE, TWO = "rows-000000000.safetensors", "rows-000000002.safetensors"


def fill(folder, *, rows=2, prints=None, about=None, logits=None):
    cache = LogitsCache(folder, prints or {})
    cache.append(logits or [torch.zeros(3)] * rows, about)
    return cache


def rewrite(folder, name=ONE, tensors=None, **metadata):
    with safe_open(folder / name, "pt") as file:
        about = file.metadata()
    stored = {key: value.clone() for key, value in safetensors.torch.load_file(folder / name).items()}
    safetensors.torch.save_file(stored | (tensors or {}), folder / name, about | metadata)


def other_fields(folder):
    fill(folder, prints={"teacher weights": "a" * 64, "settings": "all logits"})
    LogitsCache(folder, {"teacher weights": "b" * 64, "settings": "all logits"})


def other_words(folder):
    fill(folder, prints={"settings": "top 3 at temperature 2.0"})
    LogitsCache(folder, {"settings": "all logits"})


def a_field_that_is_not_there(folder):
    fill(folder)
    LogitsCache(folder, {"settings": "all logits"})


def without_a_seal(folder):
    fill(folder)
    safetensors.torch.save_file(safetensors.torch.load_file(folder / ONE), folder / ONE, {"rows": "0 to 1"})


def without(field):
    def attack(folder):
        fill(folder)
        with safe_open(folder / ONE, "pt") as file:
            about = file.metadata()
        del about[field]
        safetensors.torch.save_file(safetensors.torch.load_file(folder / ONE), folder / ONE, about)
        LogitsCache(folder, {})

    return attack


def another_word(folder):
    fill(folder)
    rewrite(folder, rows="0 to 2")
    LogitsCache(folder, {})


def another_bit(folder):
    fill(folder)
    rewrite(folder, tensors={"logits": torch.ones(2, 3)})
    LogitsCache(folder, {})[0]


def changed(**tensors):
    def attack(folder):
        fill(folder, logits=[top_k(torch.arange(4.0), 2, 2.0)] * 2)
        rewrite(folder, tensors=tensors)
        LogitsCache(folder, {})

    return attack


def begun_too_early(folder):
    fill(folder, logits=[torch.zeros(1, 3), torch.zeros(1, 3)])
    rewrite(folder, tensors={"ends": torch.tensor([-1, 2])})
    LogitsCache(folder, {})


def of_another_cache(folder):
    fill(folder)
    other = fill(folder.with_name("other"), logits=[torch.zeros(4)] * 2)
    other.append([torch.zeros(4)])
    (other.folder / TWO).rename(folder / TWO)
    LogitsCache(folder, {})


def renamed(folder):
    fill(folder).append([torch.zeros(3)])
    (folder / ONE).replace(folder / "rows-000000003.safetensors")
    (folder / TWO).replace(folder / ONE)
    LogitsCache(folder, {})


def lost(folder):
    fill(folder).append([torch.zeros(3)])
    (folder / ONE).unlink()
    LogitsCache(folder, {})


def second_writer(folder):
    late = LogitsCache(folder, {})
    fill(folder)
    late.append([torch.zeros(3)])


def named(folder, name="train"):
    path = folder.with_name("logits.safetensors")
    save_logits(path, {"train": torch.zeros(2, 3)}, {"train": {"token ids": "1"}})
    load_logits(path, name, {"token ids": "2"})


def spoiled(folder):
    path = folder.with_name("logits.safetensors")
    save_logits(path, {"train": torch.zeros(2, 3)}, {"train": {}})
    with safe_open(path, "pt") as file:
        about = file.metadata()
    safetensors.torch.save_file({"train": torch.ones(2, 3)}, path, about)
    load_logits(path, "train", {})


def in_a_file(folder):
    folder.write_text("")
    save_logits(folder / "logits.safetensors", {"train": torch.zeros(2, 3)}, {"train": {}})


def not_a_folder(folder):
    folder.write_text("")
    LogitsCache(folder, {})


def not_a_parent(folder):
    folder.write_text("")
    LogitsCache(folder / "cache", {}).append([torch.zeros(3)])


def smaller(folder):
    rows = make_rows("bert-classifier", 4)
    cache_logits(folder, make_model("bert-classifier"), make_tokenizer(), rows)
    cache_logits(folder, make_model("bert-classifier"), make_tokenizer(), rows.select(range(3)))


def other_dataset(folder):
    rows = make_rows("bert-classifier", 4)
    cached = cache_logits(folder, make_model("bert-classifier"), make_tokenizer(), rows)
    cached.add_rows(rows.remove_columns("input_ids"))


def other_rows(folder):
    cached = cache_logits(folder, make_model("bert-classifier"), make_tokenizer(), make_rows("bert-classifier", 4))
    cached.add_rows(make_rows("bert-classifier", 4, seed=1))


def cut_shorter(folder):
    cached = CachedTeacher(fill(folder, logits=[torch.zeros(2, 3)] * 2))
    places = cached.add_rows(Dataset.from_dict({"text": ["a", "b"]})).with_format("torch")[[1, 0]]
    cached.logits(places | {"attention_mask": torch.tensor([[1, 0], [1, 1]])})


def frames(folder):
    extractor = Wav2Vec2FeatureExtractor()
    rows = Dataset.from_dict({"input_values": [WAVES[0]]})
    cache_logits(folder, wav2vec(Wav2Vec2ForAudioFrameClassification), extractor, rows)


def masked_frames(folder):
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    rows = Dataset.from_dict({"input_values": [WAVES[0]]})
    cache_logits(folder, wav2vec(Wav2Vec2ForAudioFrameClassification), extractor, rows)


def cut(classes=(0, 1), temperature=2.0, width=6):
    return TopK(torch.zeros(2), torch.tensor(classes), torch.tensor(0.0), temperature, width)


TEXTS = Dataset.from_dict({"text": ["a"], "label": [0]})
TO_TEACHER = "score the dataset with this teacher, or go back to the teacher, data and settings that they came from."
OTHER = "The logits in {{folder}} were computed with other {}; " + TO_TEACHER
MISFIT = "{folder}/" + ONE + " is damaged: {}; " + ANEW
REFUSALS = [
    (other_fields, OTHER.format("teacher weights (aaaaaaaaaaaa, not bbbbbbbbbbbb)")),
    (other_words, OTHER.format("settings (top 3 at temperature 2.0, not all logits)")),
    (a_field_that_is_not_there, OTHER.format("settings (nothing, not all logits)")),
    (lambda folder: (without_a_seal(folder), LogitsCache(folder, {})),
     "{folder}/" + ONE + " has no digest of what it holds, as an earlier version wrote it, or it is damaged; " + ANEW),
    *((without(field), "{folder}/" + ONE + " has no digest of what it holds, as an earlier version wrote it, or it is "
       "damaged; " + ANEW) for field in ("seal", "content")),
    (another_word, MISFIT.replace("{}", "what it says of its logits was changed")),
    (another_bit, MISFIT.replace("{}", "its logits are not those that were written")),
    (changed(temperature=torch.tensor(0.0).double()), MISFIT.replace("{}", "its temperature is 0.0")),
    (changed(width=torch.tensor(1)), MISFIT.replace("{}", "it keeps 2 of 1 classes")),
    (changed(rest=torch.zeros(3)), MISFIT.replace("{}", "its logits, classes and rest have not as many rows")),
    (changed(ends=torch.tensor([1, 3])), MISFIT.replace("{}", "its 2 rows do not end where its 2 logits do")),
    (begun_too_early, MISFIT.replace("{}", "its 2 rows do not end where its 2 logits do")),
    (changed(ends=torch.tensor([], dtype=torch.long)), MISFIT.replace("{}", "it holds no rows")),
    (changed(width=torch.tensor([4])), MISFIT.replace("{}", "width is torch.int64 of shape (1,)")),
    (changed(more=torch.zeros(1)), MISFIT.replace(
        "{}", "it holds ['classes', 'ends', 'is_sequence', 'logits', 'more', 'rest', 'temperature', 'width'], not "
        "['classes', 'ends', 'is_sequence', 'logits', 'rest', 'temperature', 'width']")),
    (of_another_cache,
     "The logits of {folder}/" + TWO + " are of another kind ({'is_sequence': False, 'logits': 4}) than those before "
     "in {folder} ({'is_sequence': False, 'logits': 3}); a cache holds those of one teacher, kept in one way."),
    (renamed, "The logits in {folder}/" + ONE + " were computed with other rows (2 to 2, not 0 to 0); " + TO_TEACHER),
    (lost, "In {folder}, rows-000000002.safetensors follows 0 rows: those between are missing, or there twice; put the "
           "missing file back, or delete the folder and score the dataset anew."),
    (second_writer, "Another process has written {folder}/" + ONE + "; open the cache anew and append what is "
                    "missing."),
    (lambda folder: fill(folder).append([torch.zeros(4)]),
     "The logits of the new rows are of another kind ({'is_sequence': False, 'logits': 4}) than those before in "
     "{folder} ({'is_sequence': False, 'logits': 3}); a cache holds those of one teacher, kept in one way."),
    (lambda folder: fill(folder)[2], "Row 2 is asked for, but cache holds 2 rows."),
    (lambda folder: LogitsCache(folder, {}).append([]),
     "There are no rows to append; a file of a cache holds at least one."),
    (lambda folder: LogitsCache(folder, {}).append([torch.zeros(size) for size in (6, 7, 8, 9)]),
     "The rows have the shapes (6,), (7,), (8,), but those of one cache are all (C,) or all (tokens, V), whole or cut "
     "in one way, to one k at one temperature."),
    (lambda folder: LogitsCache(folder, {}).append([cut((0, 6))]),
     "The classes of a row are 2 different numbers from 0 to 5."),
    (lambda folder: LogitsCache(folder, {}).append([cut(temperature=0.0)]),
     "These rows cannot be kept: its temperature is 0.0."),
    (named, "The logits 'train' in logits.safetensors were computed with other token ids (1, not 2); " + TO_TEACHER),
    (lambda folder: named(folder, "test"),
     "logits.safetensors holds no logits named 'test'; score the dataset anew."),
    (spoiled, "'train' in logits.safetensors is damaged: its logits are not those that were written; " + ANEW),
    (lambda folder: save_logits(folder, {"train": torch.zeros(3)}, {"train": {}}),
     "'train' is torch.float32 of shape (3,), but logits are floats (N, C)."),
    (not_a_folder, "The cache {folder} cannot be read (Not a directory); look at where it leads, and at its "
                   "permissions."),
    (in_a_file, "{folder}/logits.safetensors cannot be written (File exists); nothing was lost; mend that, and call "
                "again."),
    (not_a_parent, "The lock of {folder}/cache cannot be taken (File exists); take a folder that can be written to."),
    (smaller, "{folder} holds 4 rows and the dataset 3; a cache grows with its dataset, so take another folder for a "
              "smaller one."),
    (lambda folder: CachedTeacher(fill(folder)).add_rows(TEXTS),
     "There are 2 cached rows for 1 examples, and each has its own; pass the dataset that was scored, and select from "
     "what comes back."),
    (other_dataset, "The dataset has no column input_ids, and the logits depend on it; pass the one that was scored."),
    (other_rows, "The logits in {folder} were computed with other token ids ("),
    (cut_shorter, "The cache holds [2, 2] tokens for sequences of [1, 2]; train on the rows as they were scored."),
    (frames, "The teacher's logits have shape (1, 59, 3) for no tokens, but one answer for each example or each token "
             "is what can be stored; leave this teacher in the loop."),
    (masked_frames, "The teacher's logits have shape (1, 59, 3) for tokens of shape (1, 600), but one answer for each "
                    "example or each token is what can be stored; leave this teacher in the loop."),
    (lambda folder: cache_logits(folder, make_model("llama-lm"), None, TEXTS, k=3),
     "k and temperature belong together: what the rest weighs depends on the temperature."),
    (lambda folder: columns_read(TEXTS, make_model("llama-lm")),
     "The dataset has the columns text, label and LlamaForCausalLM reads attention_mask, "),
    (lambda folder: fingerprint("digest", None, TEXTS),
     "The dataset has the columns text, label and a text model reads attention_mask, input_ids, token_type_ids; "
     "tokenize or process the dataset, call its columns what forward does, and pass the model itself."),
    (lambda folder: score(make_model("llama-lm"), None, TEXTS.select([])), "There are no rows to score."),
    (lambda folder: add_logits(TEXTS, torch.zeros(2, 3)),
     "There are 2 rows of logits for 1 examples; each needs its own."),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), REFUSALS)
def test_a_refusal_says_what_to_do(call, words, tmp_path):
    """Words that name the wrong number, the wrong file, or no way out."""
    with pytest.raises((ValueError, OSError, IndexError)) as refused:
        call(tmp_path / "cache")
    said = str(refused.value)
    expected = words.replace("{folder}", str(tmp_path / "cache"))
    assert said.startswith(expected) if expected.endswith((", ", "ids (")) else said == expected


def test_what_rust_says_is_in_a_sentence(tmp_path):
    """A SafetensorError, or its words without a file."""
    fill(tmp_path)
    (tmp_path / ONE).write_bytes(b"half")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/{ONE} is damaged \(.+\); {ANEW}$"):
        LogitsCache(tmp_path, {})


def test_what_torch_says_is_in_a_sentence():
    """An error about a sequence of another length, without a way out."""
    words = (
        r"^The rows are uneven \(.+\) and nothing pads them; pass the tokenizer or the feature extractor that does, or "
        r"a collate of your own\.$"
    )
    with pytest.raises(ValueError, match=words):
        score(make_model("bert-classifier"), None, Dataset.from_dict({"input_ids": [[1], [1, 2]]}))


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    """What the operating system says, without what to do."""
    words = rf"^{tmp_path}/none cannot be read \(.+\); look at where it leads, and at its permissions\.$"
    with pytest.raises(FileNotFoundError, match=words):
        load_logits(tmp_path / "none", "train", {})
