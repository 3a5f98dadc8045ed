"""May this student learn from this teacher? Each refusal names both sides; what fits is let through."""

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from shapes import LABELS, WORDS, load_without_head, make_classifier, make_model, make_tokenizer
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    ViTImageProcessorPil,
)

from kdcourse import MismatchError, check_classifiers, check_language_models
from kdcourse.checks import require_equal_shapes
from kdcourse.compat import require_same_task, tokenizer_of

NAMES = ["negative", "neutral", "positive"]


@pytest.mark.parametrize("shape", ["bert-classifier", "gpt2-classifier", "llama-classifier"])
def test_classifiers_that_fit(shape):
    """A check that refuses what is in order: the same labels by name, or names on one side alone."""
    assert check_classifiers(make_classifier(shape), make_classifier("bert-classifier")) is None
    assert check_classifiers(make_classifier(shape, NAMES), make_classifier("bert-classifier", NAMES)) is None
    assert check_classifiers(make_classifier(shape, NAMES), make_classifier("bert-classifier")) is None
    assert check_classifiers(make_classifier(shape), make_classifier("bert-classifier", NAMES)) is None


def test_the_number_of_labels_must_be_the_same():
    """(8, 2) against (8, 3), found out at the first step; or (8, 1), which broadcasts."""
    with pytest.raises(MismatchError, match=r"3 labels and the teacher 2, .* num_labels=2\.$"):
        check_classifiers(make_classifier(), make_classifier(num_labels=2))


def test_labels_in_another_order_are_refused_with_the_order_that_repairs_them():
    """Class 0 of the student is class 2 of the teacher: the student learns the opposite."""
    theirs = ["positive", "negative", "neutral"]
    with pytest.raises(MismatchError, match=r"another order.*logits\[:, \[1, 2, 0\]\]") as refused:
        check_classifiers(make_classifier(names=NAMES), make_classifier(names=theirs))
    assert str(NAMES) in str(refused.value)
    assert str(theirs) in str(refused.value)
    assert [theirs[index] for index in (1, 2, 0)] == NAMES


def test_other_labels_are_refused():
    """As many labels, and another question."""
    with pytest.raises(MismatchError, match="cannot teach this student"):
        check_classifiers(make_classifier(names=NAMES), make_classifier(names=["anger", "fear", "joy"]))


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "problem_type is multi_label_classification"),
        ({"problem_type": "regression"}, "problem_type is regression"),
        ({"num_labels": 1}, "num_labels=1, which transformers takes for regression"),
    ],
)
def test_one_label_of_several_per_example(side, changes, message):
    """num_labels=1 is MSE and float labels are BCE in transformers; a softmax over one class is always 1."""
    models = {"student": make_classifier(), "teacher": make_classifier()} | {side: make_classifier(**changes)}
    with pytest.raises(MismatchError, match=f"The {side}'s problem_type|The {side} has num_labels") as refused:
        check_classifiers(**models)
    assert message in str(refused.value)


def test_two_labels_are_enough():
    """A limit that is off by one."""
    pair = make_classifier(num_labels=2), make_classifier(num_labels=2, problem_type="single_label_classification")
    assert check_classifiers(*pair) is None


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_label_ids_are_integers(side):
    """label2id={"neg": "0"}: accepted, and saved as strings, by transformers."""
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
            id2label={"0": "neg", "1": "pos"}, label2id={"neg": "0", "pos": "1"},
        )
    )  # fmt: skip
    models = {"student": make_classifier(num_labels=2), "teacher": make_classifier(num_labels=2)} | {side: model}
    with pytest.raises(MismatchError, match=rf"The {side}'s label2id holds \{{'neg': '0', 'pos': '1'\}}"):
        check_classifiers(**models)
    check_classifiers(**models, repair=True)
    assert model.config.label2id == {"neg": 0, "pos": 1}


def test_a_repair_does_not_invent_label_ids():
    """Strings that are no numbers, turned into something."""
    model = make_classifier()
    model.config.label2id = {"a": "zero", "b": "1", "c": "2"}
    with pytest.raises(MismatchError, match="'a': 'zero'"):
        check_classifiers(model, make_classifier(), repair=True)
    assert model.config.label2id["b"] == "1"


def test_the_two_label_maps_must_be_inverse():
    """Two maps that contradict each other, accepted by transformers: which one names the classes?"""
    model = make_classifier(names=NAMES)
    model.config.label2id = {name: 2 - index for index, name in enumerate(NAMES)}
    with pytest.raises(MismatchError, match=r"The teacher's label2id .* is not the inverse of its id2label"):
        check_classifiers(make_classifier(), model)


def test_labels_that_are_numbers_are_the_same_after_they_were_saved(tmp_path):
    """A teacher that `run_glue.py` trained on a file names its classes 0, 1 and 2; in JSON, these keys are strings."""
    numbers = {"names": [0, 1, 2]}
    teacher = make_classifier(**numbers)
    teacher.save_pretrained(tmp_path)
    loaded = BertForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.label2id == {"0": 0, "1": 1, "2": 2}
    assert check_classifiers(make_classifier(**numbers), loaded) is None
    loaded.config.label2id = {"0": 0, "1": 2, "2": 1}
    with pytest.raises(MismatchError, match="not the inverse"):
        check_classifiers(make_classifier(**numbers), loaded)


def test_a_processor_is_looked_into_for_its_tokenizer():
    """Users of pictures and recordings pass what they have as `processing_class`: it has no pad token, nor words."""
    tokenizer = make_tokenizer()
    assert tokenizer_of(tokenizer) is tokenizer
    assert tokenizer_of(SimpleNamespace(tokenizer=tokenizer, image_processor=ViTImageProcessorPil())) is tokenizer
    assert tokenizer_of(ViTImageProcessorPil()) is None
    assert tokenizer_of(None) is None


def test_classes_are_counted_from_0():
    """Labels 1, 2, 3 for logits 0, 1, 2."""
    model = make_classifier()
    model.config.id2label = {1: "a", 2: "b", 3: "c"}
    model.config.label2id = {"a": 1, "b": 2, "c": 3}
    with pytest.raises(MismatchError, match=r"The student's id2label has the ids \[1, 2, 3\]"):
        check_classifiers(model, make_classifier())


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("shape", ["gpt2-classifier", "llama-classifier"])
def test_a_decoder_needs_a_pad_token(side, shape):
    """GPT-2 raises at batch size 2; the Trainer gives the pad id to the student's config only."""
    model = make_classifier(shape, pad_token_id=None)
    models = {"student": make_classifier(), "teacher": make_classifier()} | {side: model}
    with pytest.raises(MismatchError, match=f"The {side} .* no pad_token_id"):
        check_classifiers(**models)
    with pytest.raises(MismatchError, match="no pad_token_id"):
        check_classifiers(**models, repair=True)
    check_classifiers(**models, **{f"{side}_tokenizer": make_tokenizer(pad_token="w5")}, repair=True)
    assert model.config.pad_token_id == 5


def test_a_repair_leaves_a_pad_token_that_is_there():
    """A tokenizer's pad id written over the one that the model was trained with."""
    model = make_classifier("gpt2-classifier")
    check_classifiers(model, make_classifier(), make_tokenizer(pad_token="w5"), repair=True)
    assert model.config.pad_token_id == 0


def test_an_encoder_needs_no_pad_token():
    """A refusal for want of what is never looked up."""
    assert check_classifiers(make_classifier(pad_token_id=None), make_classifier()) is None


@pytest.mark.parametrize("shape", ["bert-classifier", "gpt2-classifier"])
def test_a_head_that_was_never_trained_is_refused(shape, tmp_path):
    """GPT-2 medium loaded as a classifier: "distillation works perfectly" says nothing of its random head."""
    whole = make_model(shape)
    body = whole.bert if shape.startswith("bert") else whole.transformer
    body.save_pretrained(tmp_path / "body")
    whole.save_pretrained(tmp_path / "whole")
    config = {"num_labels": LABELS, "pad_token_id": 0}
    without_head = AutoModelForSequenceClassification.from_pretrained(tmp_path / "body", **config)
    with pytest.raises(MismatchError, match=r"head of the teacher .* was not in the checkpoint"):
        check_classifiers(whole, without_head)
    assert (
        check_classifiers(without_head, AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")) is None
    )


def test_a_head_that_was_trained_since_is_let_through(tmp_path):
    """A teacher that was fine-tuned in the same process, whose bias is no longer exactly 0."""
    teacher = load_without_head(tmp_path)
    nn.init.constant_(teacher.classifier.bias, 0.1)
    assert check_classifiers(make_classifier(), teacher) is None


# peft reads a property that transformers has renamed; both names mean the same until transformers 6.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_adapters_are_looked_into():
    """A model wrapped by peft, whose class and children have other names."""
    wrapped = get_peft_model(
        make_classifier("gpt2-classifier", pad_token_id=None),
        LoraConfig(task_type="SEQ_CLS", target_modules=["c_attn"], fan_in_fan_out=True),
    )
    assert require_same_task(wrapped, make_classifier()) == "classifier"
    with pytest.raises(MismatchError, match="no pad_token_id"):
        check_classifiers(make_classifier(), wrapped)


@pytest.mark.parametrize("shape", ["gpt2-lm", "llama-lm"])
def test_language_models_that_fit_share_the_tokenizers_ids(shape):
    """Padded widths, 151,936 and 152,064 for one tokenizer: the shared range is what the tokenizer fills."""
    models = make_model(shape), make_model(shape, vocab_size=WORDS + 24)
    assert check_language_models(*models, make_tokenizer(), make_tokenizer()) == WORDS
    assert check_language_models(*reversed(models), make_tokenizer(), make_tokenizer()) == WORDS


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_model_narrower_than_its_tokenizer_is_refused(side):
    """A tokenizer with added tokens, whose ids are no row of the embeddings."""
    models = {"student": make_model("gpt2-lm"), "teacher": make_model("gpt2-lm")}
    models |= {side: make_model("gpt2-lm", vocab_size=WORDS - 1)}
    with pytest.raises(MismatchError, match=f"The {side} has 39 token ids and the tokenizer 40"):
        check_language_models(*models.values(), make_tokenizer(), make_tokenizer())


def test_equal_size_is_not_the_same_tokenizer():
    """Only the size compared (trl#6457, DistillKit#7): id 500 is one word here and another there."""
    theirs = make_tokenizer(swap=(7, 9))
    assert len(theirs) == len(make_tokenizer())
    with pytest.raises(MismatchError, match="agree in 38 ids and differ in 2") as refused:
        check_language_models(make_model("gpt2-lm"), make_model("gpt2-lm"), make_tokenizer(), theirs)
    assert "id 7 is 'w7' here and 'w9' there; id 9 is 'w9' here and 'w7' there" in str(refused.value)


def test_a_long_difference_is_cut():
    """Forty thousand differing ids, printed."""
    with pytest.raises(MismatchError, match="differ in 20") as refused:
        check_language_models(
            make_model("gpt2-lm", vocab_size=60),
            make_model("gpt2-lm", vocab_size=60),
            make_tokenizer(60),
            make_tokenizer(),
        )
    assert str(refused.value).count("there;") == 2
    assert "id 40 is 'w40' here and nothing there" in str(refused.value)


@pytest.mark.parametrize("name", ["bos_token", "eos_token"])
def test_special_tokens_are_compared(name):
    """The same ids, and a text that ends with another one for each."""
    theirs = make_tokenizer(**{name: "w3"})
    with pytest.raises(MismatchError, match=f"The student's {name}_id is 1 and the teacher's 3"):
        check_language_models(make_model("gpt2-lm"), make_model("gpt2-lm"), make_tokenizer(), theirs)


def test_pad_tokens_may_differ():
    """A refusal because of tokens that no loss ever sees."""
    models = make_model("gpt2-lm"), make_model("gpt2-lm")
    assert check_language_models(*models, make_tokenizer(), make_tokenizer(pad_token="w1")) == WORDS


@pytest.mark.parametrize("shapes", [((8, 1), (8, 2)), ((8, 3), (1, 3)), ((3,), ())])
def test_shapes_that_would_broadcast_are_refused(shapes):
    """(8, 1) against (8, 2) gives -0.539, and no error."""
    with pytest.raises(MismatchError) as refused:
        require_equal_shapes("left", torch.zeros(shapes[0]), "right", torch.zeros(shapes[1]))
    assert f"left has shape {shapes[0]} and right {shapes[1]}" in str(refused.value)
