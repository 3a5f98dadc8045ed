"""The models: the teacher that is shipped is as good as it should be, and a student finds its last word."""

import json

import pytest
import torch
from transformers import AutoTokenizer, pipeline

from kdcourse import cache
from kdcourse.labs import data, models
from kdcourse.teacher import score


@pytest.fixture(scope="module")
def review_teacher():
    return models.load_teacher()


@pytest.fixture(scope="module")
def test_sentences(reviews, tokenizer):
    return data.tokenize(reviews["test"], tokenizer)


@pytest.mark.slow
def test_the_shipped_teacher_reaches_its_target(review_teacher, tokenizer, test_sentences):
    """An adapter that was not merged, or was trained on other labels; at least 85.5% of 1,500 sentences."""
    logits = score(review_teacher, tokenizer, test_sentences)
    right = (logits.argmax(-1) == torch.tensor(test_sentences["label"])).float().mean().item()
    report = json.loads((models.TEACHER_FOLDER / "report.json").read_text(encoding="utf-8"))
    assert right >= 0.855
    assert right == pytest.approx(report["test accuracy"], abs=0.002)


@pytest.mark.parametrize("name", ["train", "validation", "test", "transfer", *data.DOMAINS])
def test_the_shipped_logits_are_those_of_the_shipped_teacher(name, review_teacher, reviews, tokenizer):
    """Logits of last month's teacher; the sample is scored anew, the fingerprint covers all rows."""
    if name in data.DOMAINS:
        rows = data.load_domain(name)
    else:
        rows = data.load_transfer() if name == "transfer" else reviews[name]
    rows = data.tokenize(rows, tokenizer)
    expected = cache.fingerprint(models.teacher_digest(), tokenizer, rows)
    stored = cache.load_logits(models.TEACHER_LOGITS, name, expected)
    sample = range(0, len(rows), len(rows) // 24)
    assert torch.allclose(score(review_teacher, tokenizer, rows.select(sample)), stored[sample], atol=1e-3)


def test_the_teacher_is_a_plain_model_that_does_not_learn(review_teacher):
    """Adapter layers that cost time, dropout that is on, weights that drift."""
    assert type(review_teacher).__name__ == "BertForSequenceClassification"
    assert not review_teacher.training
    assert not any(parameter.requires_grad for parameter in review_teacher.parameters())
    assert models.count_parameters(review_teacher) == pytest.approx(22.7e6, rel=0.01)


def test_nothing_that_is_shipped_names_a_machine():
    """The path of somebody's cache folder in adapter_config.json."""
    config = json.loads((models.TEACHER_FOLDER / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_the_digest_knows_each_file(tmp_path):
    """A new adapter under the fingerprint of the old one."""
    for file in models.ADAPTER_FILES:
        (tmp_path / file).write_bytes((models.TEACHER_FOLDER / file).read_bytes())
    assert models.teacher_digest(tmp_path) == models.teacher_digest()
    config = tmp_path / "adapter_config.json"
    config.write_text(config.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert models.teacher_digest(tmp_path) != models.teacher_digest()


def test_padding_does_not_change_what_the_student_says(tokenizer, sentences):
    """GPT-2 has no pad token of its own and would pool the last column of a batch, which is padding."""
    student = models.gpt2_student(tokenizer, layers=1, width=64).eval()
    batched = score(student, tokenizer, sentences, batch_size=64)
    alone = torch.cat([score(student, tokenizer, sentences.select([row])) for row in range(4)])
    assert torch.allclose(batched[:4], alone, atol=1e-5)


def test_a_student_that_travels_is_handed_no_token_types(tmp_path, tokenizer):
    """A pipeline that adds the embedding of word 0 to every token: probabilities that are off by a third, no error."""
    models.load_student_tokenizer().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert set(loaded("a film")) == {"input_ids", "attention_mask"}
    assert loaded("a film")["input_ids"] == tokenizer("a film")["input_ids"]
    models.gpt2_student(tokenizer, layers=1, width=64).save_pretrained(tmp_path)
    (answer,) = pipeline("text-classification", model=str(tmp_path), device="cpu")(["a film"], top_k=None)
    student = models.gpt2_student(tokenizer, layers=1, width=64).eval()
    expected = student(torch.tensor([loaded("a film")["input_ids"]])).logits.softmax(-1)[0, 1].item()
    assert {each["label"]: each["score"] for each in answer}["positive"] == pytest.approx(expected, abs=1e-5)


def test_a_seed_is_a_student(tokenizer):
    """Two arms of a comparison that start from other weights, or three seeds that are one."""
    first, again, other = (models.gpt2_student(tokenizer, layers=1, width=64, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.score.weight, again.score.weight)
    assert not torch.equal(first.score.weight, other.score.weight)


def test_making_a_student_does_not_disturb_other_random_numbers(tokenizer):
    """Data order that depends on whether a model was built before."""
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    models.gpt2_student(tokenizer, layers=1, width=64)
    assert torch.equal(torch.rand(1), expected)


def test_label_maps_are_integers(tokenizer):
    """{"negative": "0"} as the notes have it is saved as a string, and breaks whoever looks it up."""
    config = models.gpt2_student(tokenizer, layers=1, width=64).config
    assert config.id2label == {0: "negative", 1: "positive"}
    assert config.label2id == {"negative": 0, "positive": 1}


def test_latency_is_a_median_in_milliseconds(tokenizer, sentences):
    """Seconds, or a mean that one hiccup decides."""
    student = models.gpt2_student(tokenizer, layers=1, width=64).eval()
    inputs = tokenizer.pad(sentences.select_columns(["input_ids", "attention_mask"])[:1], return_tensors="pt")
    assert 0.05 < models.latency(student, inputs, repeats=5) < 1000
