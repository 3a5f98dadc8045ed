"""The models: the teacher that is shipped is as good as it should be, and a student finds its last word."""

import json

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, pipeline

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


def tiny_llama(layers=5, tied=True):
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, tie_word_embeddings=tied, initializer_range=0.3,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


IDS = torch.arange(3, 13).view(2, 5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_student_is_its_teacher_without_the_other_layers(tied):
    """Layers in the order of the teacher's numbers under the student's, new embeddings, a norm that was forgotten."""
    teacher = tiny_llama(tied=tied)
    student = models.cut_student(teacher, [0, 3, 4])
    assert student.training and all(weight.requires_grad for weight in student.parameters())
    assert (student.lm_head.weight is student.model.embed_tokens.weight) == tied
    expected = tiny_llama(tied=tied)
    expected.model.layers = torch.nn.ModuleList(expected.model.layers[place] for place in (0, 3, 4))
    with torch.no_grad():
        logits = student.eval()(input_ids=IDS).logits
        assert torch.equal(logits, expected(input_ids=IDS, use_cache=False).logits)
        student.model.embed_tokens.weight.zero_()
    assert teacher.model.embed_tokens.weight.abs().sum() > 0
    assert teacher.config.num_hidden_layers == 5


def test_a_student_of_all_layers_says_what_its_teacher_says():
    """A copy that is none: a buffer, a dtype or a setting that stays behind."""
    teacher = tiny_llama().to(torch.bfloat16)
    student = models.cut_student(teacher, range(5)).eval()
    assert student.dtype == torch.bfloat16
    with torch.no_grad():
        assert torch.equal(student(input_ids=IDS).logits, teacher(input_ids=IDS).logits)
    text = student.generate(IDS, max_new_tokens=4, do_sample=False)  # with a cache, which counts layers
    assert torch.equal(text, teacher.generate(IDS, max_new_tokens=4, do_sample=False))


def test_gpt2_is_cut_as_well():
    """A cut that knows the names of one family."""
    config = GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=3, n_head=2, bos_token_id=1, eos_token_id=2)
    teacher = GPT2LMHeadModel(config).eval()
    student = models.cut_student(teacher, [2]).eval()
    assert torch.equal(student.transformer.h[0].mlp.c_fc.weight, teacher.transformer.h[2].mlp.c_fc.weight)
    assert torch.equal(student.transformer.wpe.weight, teacher.transformer.wpe.weight)


@pytest.mark.parametrize("layers", [[], [5], [-1]])
def test_layers_that_are_not_there_are_refused(layers):
    """The last layer for −1, or a model without any."""
    with pytest.raises(ValueError, match="layers 0 to 4"):
        models.cut_student(tiny_llama(), layers)


def test_a_model_without_one_list_of_layers_is_refused():
    """A vision tower cut in the place of the language model."""
    teacher = tiny_llama()
    teacher.more = torch.nn.ModuleList(torch.nn.Identity() for _ in range(5))
    with pytest.raises(ValueError, match="has 2 lists of 5 layers"):
        models.cut_student(teacher, [0])


def test_a_layer_that_does_nothing_changes_nothing():
    """A mean over the layers next door, or the final norm taken for a layer's work."""
    teacher = tiny_llama()
    for layer in (1, 4):
        teacher.model.layers[layer].self_attn.o_proj.weight.data.zero_()
        teacher.model.layers[layer].mlp.down_proj.weight.data.zero_()
    teacher.model.norm.weight.data = torch.linspace(-2, 2, 16)
    changes = models.residual_change(teacher, IDS)
    assert len(changes) == 5
    assert changes[1] == pytest.approx(0, abs=1e-6) and changes[4] == pytest.approx(0, abs=1e-6)
    assert min(changes[0], changes[2], changes[3]) > 0.01


def test_the_ways_to_cut_keep_as_many_layers():
    """Two ways that are one, or a layer that is kept twice."""
    changes = [0.9, 0.1, 0.2, 0.1, 0.3, 0.1, 0.1, 0.1, 0.2, 0.8]
    assert models.ways_to_cut(4, changes) == {
        "first": [0, 1, 2, 3],
        "last": [6, 7, 8, 9],
        "every k-th": [0, 3, 6, 9],
        "first and last": [0, 1, 8, 9],
        "largest change": [0, 2, 4, 9],
    }
    for count in (2, 5, 10):
        assert all(len(set(layers)) == count for layers in models.ways_to_cut(count, changes).values())
    for count in (1, 11):
        with pytest.raises(ValueError, match="from 2 to 10"):
            models.ways_to_cut(count, changes)
