"""The hub profile of lab 07, from the first cell to the last, with no hub: its cache holds tiny models under the names.

They are of the classes that the hub has, language models without a head and without a pad token, so that whatever the
real ones need is needed here as well.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import nbformat
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

from kdcourse.course.claims import claims_of
from kdcourse.course.lessons import find_lessons
from kdcourse.labs import assets, data

pytestmark = pytest.mark.slow

GOOD, BAD = ["good", "lovely", "moving", "funny", "fresh"], ["bad", "dull", "empty", "stale", "clumsy"]
SENTENCE = "a film that is {} and in its part number {} also {} ."
END = "<|endoftext|>"


def sentences(count):
    """Sentences whose two adjectives agree, and their labels; each one differs from all others."""
    for number in range(count):
        words = GOOD if number % 2 else BAD
        yield SENTENCE.format(words[number % 5], number, words[number // 5 % 5]), number % 2


def make_tokenizer():
    """A byte-pair tokenizer like GPT-2's: an end-of-text token, and nothing to pad with."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator([text for text, _ in sentences(500)], trainer)
    return GPT2TokenizerFast(tokenizer_object=backend, bos_token=END, eos_token=END, unk_token=END)


def make_language_model(tokenizer, width):
    ids = tokenizer.convert_tokens_to_ids(END)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=width, n_layer=2, n_head=2, bos_token_id=ids,
        eos_token_id=ids,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(width)
        return GPT2LMHeadModel(config)


def snapshot(cache, hub):
    """The folder in which the hub client looks for a revision of a repository."""
    folder = cache / f"{hub.kind}s--{hub.repo.replace('/', '--')}" / "snapshots" / hub.revision
    for file in hub.files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
    return folder


def lay_out(cache):
    """Everything that the hub profile asks the hub for."""
    datasets.disable_progress_bars()
    known, tokenizer = assets.hub_only(), make_tokenizer()
    for name, width in (("gpt2", 16), ("gpt2-medium", 32)):
        folder = snapshot(cache, known[name])
        make_language_model(tokenizer, width).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    folder = snapshot(cache, known["sst2"])
    for file, count in zip(known["sst2"].files, (400, 80), strict=True):
        texts, labels = zip(*sentences(count), strict=True)
        Dataset.from_dict({"idx": range(count), "sentence": texts, "label": labels}).to_parquet(str(folder / file))
    imdb = assets.catalogue()["imdb"].hub
    texts = [text.removesuffix(" .") + "." for text, _ in sentences(21_000)]
    reviews = ["<br /><br />".join(texts[start : start + 10]) for start in range(0, len(texts), 10)]
    Dataset.from_dict({"text": reviews, "label": [1] * len(reviews)}).to_parquet(
        str(snapshot(cache, imdb) / imdb.files[0])
    )


def environment(cache):
    return os.environ | {
        assets.SOURCE_VARIABLE: "hub", "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip


def run_lab(folder):
    """`kdcourse run 07` in a folder of its own, so that nothing of this clone's build is used or left behind."""
    return subprocess.run(
        [sys.executable, "-m", "kdcourse", "run", "07", "--out", str(folder / "out")],
        env=environment(folder / "cache") | {"KDCOURSE_NOTEBOOKS": str(folder / "notebooks")},
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The folder of a lab that has been run."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    (lesson,) = find_lessons(["07"])
    shutil.copy(lesson.path, folder / "notebooks")
    shutil.copytree(lesson.path.parent / "claims", folder / "notebooks" / "claims")
    lay_out(folder / "cache")
    done = run_lab(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def built(lab):
    return lab / "build" / "07_capstone_sst2" / "hub"


def executed(lab):
    return nbformat.read(lab / "out" / "07_capstone_sst2.ipynb", as_version=4)


def test_the_lab_runs_to_its_last_cell(lab):
    """A hub profile that was written, and never run."""
    cells = [cell for cell in executed(lab).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert "lovely" in cells[-1].outputs[0].text
    assert any("pad token" in claim["name"] for claim in claims_of(executed(lab)))


def test_the_models_that_are_laid_out_lack_what_those_of_the_hub_lack(lab):
    """A test that passes because its models have the pad token and the head that GPT-2 has not."""
    for name in ("gpt2", "gpt2-medium"):
        folder = snapshot(lab / "cache", assets.hub_only()[name])
        assert AutoTokenizer.from_pretrained(folder).pad_token is None
        config = AutoConfig.from_pretrained(folder)
        assert (config.pad_token_id, config.architectures) == (None, ["GPT2LMHeadModel"])
        assert not [tensor for tensor in load_file(folder / "model.safetensors") if "score" in tensor]


def test_the_teacher_is_fine_tuned_before_it_teaches(lab):
    """Row 10 of the errata: a student that learns from a random head."""
    (teacher,) = built(lab).glob("teacher-0-*")
    before = load_file(snapshot(lab / "cache", assets.hub_only()["gpt2-medium"]) / "model.safetensors")
    after = load_file(teacher / "model.safetensors")
    name = "transformer.h.0.attn.c_attn.weight"
    assert after[name].shape == (32, 96)
    assert not torch.equal(after[name], before[name])
    assert "score.weight" in after


def test_the_student_taken_home_has_what_it_needs(lab):
    """String label ids, a pad token that stayed behind, a card that says nothing."""
    folder = built(lab) / "student"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["GPT2ForSequenceClassification"]
    assert config["n_embd"] == 16
    assert (config["id2label"], config["label2id"]) == (
        {"0": "negative", "1": "positive"}, {"negative": 0, "positive": 1},
    )  # fmt: skip
    assert AutoTokenizer.from_pretrained(folder).pad_token == END
    assert config["pad_token_id"] == AutoTokenizer.from_pretrained(folder).pad_token_id


def test_the_card_is_about_this_model_alone(lab):
    """A gain of other students, or the record of another experiment, on the card of one that never had it."""
    card = (built(lab) / "student" / "README.md").read_text(encoding="utf-8")
    (run,) = (built(lab) / "runs").glob("soft-20000-5-*")
    logits = load_file(run / "logits.safetensors")["test"]
    accuracy = (logits.argmax(-1) == torch.tensor([label for _, label in sentences(80)])).double().mean().item()
    assert f"- accuracy, %: {100 * accuracy:.1f}" in card
    assert f"- film reviews: {100 * accuracy:.1f}% right (" in card
    assert "the larger class alone gives 50.0%" in card
    assert "GPT-2 medium teaches GPT-2 on SST-2" in card
    assert "gain" not in card
    shown = [claim["name"] for claim in claims_of(executed(lab))]
    assert shown
    assert not [name for name in shown if name in card]


def test_nothing_is_shown_under_the_name_of_what_was_not_trained(lab):
    """One arm's numbers in the rows of eight: the record is the embedded experiment's, and says so."""
    said_by = {cell.id: str(cell.get("outputs", "")) for cell in executed(lab).cells}
    assert "8 arms, 4 numbers of steps, 5 seeds each" in said_by["results"]
    assert "soft answers, same sentences: +0.5 (-0.8 to +1.7)" in said_by["forest"]
    trained = {path.name.rsplit("-", 2)[0] for path in (built(lab) / "runs").iterdir() if path.name[0] != "."}
    assert trained == {"labels", "soft-20000"}


def test_validation_holds_whole_sentences_of_which_training_has_no_phrase(tmp_path, monkeypatch):
    """SST-2 as it is: rows that end with a space, and most of them phrases of others, also across the split."""
    whole = [f"{word} but the rest of number {number} is long" for number, word in enumerate(GOOD * 20)]
    phrases = [" ".join(text.split()[start:]) for text in whole for start in (1, 4)] + GOOD
    lay_out_sst2(tmp_path, [f"{text} " for text in [*whole, *phrases]], [text + " " for text in whole[:3]])
    monkeypatch.setattr(data.assets, "locate_on_hub", lambda name: tmp_path)
    split = data.load_sst2()
    texts = {name: list(rows["text"]) for name, rows in split.items()}
    assert not [text for name in texts for text in texts[name] if text != text.strip()]
    assert len(texts["validation"]) == 6
    assert set(texts["validation"]) <= set(whole)
    assert not [text for text in texts["train"] for held_out in texts["validation"] if f" {text} " in f" {held_out} "]
    assert len(texts["train"]) > 250


def lay_out_sst2(folder, train, test):
    for split, texts in (("train", train), ("validation", test)):
        (folder / "data").mkdir(exist_ok=True)
        rows = {"idx": range(len(texts)), "sentence": texts, "label": [1] * len(texts)}
        Dataset.from_dict(rows).to_parquet(str(folder / f"data/{split}-00000-of-00001.parquet"))


LOAD = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
batch = tokenizer(json.load(sys.stdin), padding=True, truncation=True, max_length=48, return_tensors="pt")
batch.pop("token_type_ids", None)
print(json.dumps(model(**batch).logits.tolist()))
"""


def test_another_process_gives_the_answers_of_the_lab(lab):
    """A student that is another one after it was saved and loaded: all 80 test sentences, without this package."""
    (run,) = (built(lab) / "runs").glob("soft-20000-5-*")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(built(lab) / "student")],
        input=json.dumps([text for text, _ in sentences(80)]), env=environment(lab / "cache"),
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    logits = torch.tensor(json.loads(done.stdout.splitlines()[-1]))
    torch.testing.assert_close(logits, load_file(run / "logits.safetensors")["test"], atol=1e-4, rtol=1e-4)


def test_a_second_run_trains_nothing(lab):
    """An hour of GPU for a change in the prose."""
    weights = sorted(Path(built(lab)).rglob("*/*.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in weights if path.parent.name != "student"}
    assert len([path for path in before if path.name == "model.safetensors"]) == 2, (
        "the teacher, and the student that is taken home"
    )
    assert run_lab(lab).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
