"""Models as people bring them: each is trained by the rule of its task, or refused in words."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from shapes import (
    LABELS,
    load_without_head,
    logged_loss,
    make_collator,
    make_model,
    make_rows,
    make_tokenizer,
    make_trainer,
)
from torch import nn
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertGenerationDecoder,
    BertLMHeadModel,
    BertModel,
    BertPreTrainedModel,
    DataCollatorForTokenClassification,
    Gemma3Config,
    Gemma3ForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoXForCausalLM,
    GPTNeoXJapaneseForCausalLM,
    IBertConfig,
    IBertForSequenceClassification,
    LlamaForTokenClassification,
    MixtralConfig,
    MixtralForCausalLM,
    NystromformerConfig,
    NystromformerForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
    ProphetNetConfig,
    ProphetNetForCausalLM,
    ProphetNetForConditionalGeneration,
    PvtConfig,
    PvtForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    TapasConfig,
    TapasForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
    default_data_collator,
)

from kdcourse import MismatchError, distillation_loss, lm_distillation_loss
from kdcourse.compat import balance_weight, check_classifiers, positions_of, require_room
from kdcourse.tasks import task_of
from kdcourse.teacher import CachedTeacher, ColumnTeacher, cache_logits, logits_of

ALPHA, T = 0.4, 2.0
SMALL = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
PROPHET = {
    "vocab_size": 20, "hidden_size": 4, "encoder_ffn_dim": 4, "decoder_ffn_dim": 4, "pad_token_id": 0,
    **{f"num_{half}_{name}": 1 for half in ("encoder", "decoder") for name in ("layers", "attention_heads")},
}  # fmt: skip


def expected(student_logits, teacher_logits, labels):
    return distillation_loss(student_logits, teacher_logits, labels, alpha=ALPHA, temperature=T).total.item()


def tagger(seed):
    config = make_model("bert-classifier").config
    torch.manual_seed(seed)
    model = BertForTokenClassification(config)
    model.classifier.weight.data.mul_(20)
    return model


def tagged_rows():
    """A label for each token but every third, which is the rest of a word."""
    rows = make_rows("bert-classifier").to_list()
    for number, row in enumerate(rows):
        row["labels"] = [
            -100 if place % 3 == 2 else (number + place) % LABELS for place in range(len(row["input_ids"]))
        ]
    return Dataset.from_list(rows)


@pytest.mark.parametrize("batch", [16, 4])
def test_tokens_are_classified_where_they_are(batch, tmp_path):
    """Logits (B, T, C) of a tagger, shifted as a language model's: each token is taught its neighbour's class."""
    student, teacher, rows = tagger(0), tagger(1).eval(), tagged_rows()
    collate = DataCollatorForTokenClassification(make_tokenizer())
    inputs = collate([dict(row) for row in rows])
    labels = inputs.pop("labels")
    with torch.no_grad():
        rows_of_tokens = [model(**inputs).logits[labels != -100] for model in (student, teacher)]
    trainer = make_trainer(
        "bert-classifier", tmp_path, student=student, teacher=teacher, rows=rows, collator=collate,
        per_device_train_batch_size=batch, gradient_accumulation_steps=16 // batch, eval_rows=rows,
    )  # fmt: skip
    right = expected(*rows_of_tokens, labels[labels != -100])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(right, abs=1e-4)
    assert logged_loss(trainer) == pytest.approx(right, abs=1e-4)


def test_a_cached_tagger_is_the_tagger(tmp_path):
    """Token logits that the cache knows for language models only."""
    teacher, rows = tagger(1).eval(), tagged_rows()
    collate = DataCollatorForTokenClassification(make_tokenizer())
    cached = cache_logits(tmp_path / "cache", teacher, make_tokenizer(), rows)

    def loss(source, data):
        settings = {"student": tagger(0), "teacher": source, "rows": data, "collator": collate}
        return logged_loss(make_trainer("bert-classifier", tmp_path, **settings))

    losses = [loss(teacher, rows), loss(cached, cached.add_rows(rows))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def vit(seed=0, size=8, **changes):
    torch.manual_seed(seed)
    config = ViTConfig(image_size=size, patch_size=4, num_channels=1, hidden_size=16, num_hidden_layers=1,
                       num_attention_heads=2, intermediate_size=16, num_labels=3, **changes)  # fmt: skip
    model = ViTForImageClassification(config)
    model.classifier.weight.data.mul_(50)
    return model


def resnet(seed=1, **changes):
    torch.manual_seed(seed)
    config = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=3, **changes)
    return ResNetForImageClassification(config)


def pictures():
    pixels = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return [{"pixel_values": picture, "labels": number % 3} for number, picture in enumerate(pixels)]


@pytest.mark.parametrize("make_teacher", [vit, resnet])
def test_pictures_are_classified(make_teacher, tmp_path):
    """An AttributeError for `vocab_size`, in 34 of 42 image architectures."""
    student, teacher, rows = vit(), make_teacher(seed=1).eval(), pictures()
    inputs = default_data_collator(rows)
    with torch.no_grad():
        logits = [model(pixel_values=inputs["pixel_values"]).logits for model in (student, teacher)]
    trainer = make_trainer("bert-classifier", tmp_path, student=student, teacher=teacher, rows=rows,
                           collator=default_data_collator)  # fmt: skip
    assert logged_loss(trainer) == pytest.approx(expected(*logits, inputs["labels"]), abs=1e-4)


NAMES, OTHER_ORDER = ["cat", "dog", "bird"], ["dog", "cat", "bird"]


def named(names):
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def test_labels_of_pictures_are_compared(tmp_path):
    """A student of the same three animals in another order, taught that cats are dogs."""
    with pytest.raises(MismatchError, match="same labels in another order"):
        make_trainer("bert-classifier", tmp_path, student=vit(**named(NAMES)), teacher=vit(1, **named(OTHER_ORDER)))


class Tokens(nn.Module):
    """A module of somebody's own, with logits (B, T, C), or (B, C) where it takes the mean."""

    def __init__(self, seed, mean=False, classes=3):
        super().__init__()
        torch.manual_seed(seed)
        self.table, self.mean = nn.Embedding(40, classes), mean

    def forward(self, input_ids):
        logits = self.table(input_ids)
        return logits.mean(dim=1) if self.mean else logits


def test_a_module_of_ones_own_says_what_its_tokens_are(tmp_path):
    """Unknown (B, T, C) logits, shifted or not by a guess."""
    rows = [{"input_ids": [3, 4, 5, 6], "labels": [0, 1, -100, 2]} for _ in range(16)]
    settings = {"rows": rows, "collator": default_data_collator}

    def loss(**task):
        return logged_loss(
            make_trainer("bert-classifier", tmp_path, student=Tokens(0), teacher=Tokens(1), **settings, **task)
        )

    with pytest.raises(MismatchError, match="task='token classifier'"):
        loss()
    ids, labels = torch.tensor([3, 4, 6]), torch.tensor([0, 1, 2])
    here = [model.table(ids) for model in (Tokens(0), Tokens(1))]
    assert loss(task="token classifier") == pytest.approx(expected(*here, labels), abs=1e-4)
    before = [model.table(torch.tensor([3, 5])) for model in (Tokens(0), Tokens(1))]
    assert loss(task="language model") == pytest.approx(expected(*before, torch.tensor([1, 2])), abs=1e-4)


def test_a_module_with_a_configuration_of_its_own_is_not_taken_for_one_of_transformers(tmp_path):
    """`model.config` as everybody may call it: an AttributeError for its id2label."""
    student, teacher = Tokens(0, mean=True), Tokens(1, mean=True)
    student.config, teacher.config = SimpleNamespace(layers=1), {"layers": 2}
    rows = [{"input_ids": [3, 4], "labels": 0} for _ in range(16)]
    make_trainer("bert-classifier", tmp_path, student=student, teacher=teacher, rows=rows,
                 collator=default_data_collator).train()  # fmt: skip


class OwnHead(BertPreTrainedModel):
    """A head of one's own on a body of transformers, which answers for each token, or for the first of them."""

    def __init__(self, config, first=False):
        super().__init__(config)
        self.bert, self.head, self.first = BertModel(config), nn.Linear(config.hidden_size, LABELS), first
        self.post_init()

    def forward(self, input_ids, attention_mask=None):
        hidden = self.bert(input_ids, attention_mask).last_hidden_state
        return self.head(hidden[:, 0] if self.first else hidden)


@pytest.mark.parametrize("task", ["classifier", "token classifier"])
@pytest.mark.parametrize("both", [True, False], ids=["both", "the student"])
def test_a_head_of_ones_own_on_a_body_of_transformers_says_its_task(task, both, tmp_path):
    """Refused for its class, and with the task that the error for modules of one's own asks for, refused again."""
    first = task == "classifier"
    config = make_model("bert-classifier").config
    labels = 0 if first else [0, 1, -100, 2]
    rows = [{"input_ids": [3, 4, 5, 6], "labels": labels} for _ in range(16)]
    student = OwnHead(config, first).eval()
    other = BertForSequenceClassification if first else BertForTokenClassification
    teacher = (OwnHead(config, first) if both else other(config)).eval()
    settings = {"student": student, "teacher": teacher, "rows": rows, "collator": default_data_collator}
    with pytest.raises(MismatchError, match=r"OwnHead is neither .* DistillationArguments\(task=…\)"):
        make_trainer("bert-classifier", tmp_path, **settings)
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        ours, theirs = student(ids)[0], logits_of(teacher(ids))[0]
    if first:
        right = expected(ours[None], theirs[None], torch.tensor([0]))
    else:
        right = expected(ours[[0, 1, 3]], theirs[[0, 1, 3]], torch.tensor([0, 1, 2]))
    assert logged_loss(make_trainer("bert-classifier", tmp_path, task=task, **settings)) == pytest.approx(
        right, abs=1e-4
    )


def test_a_class_of_transformers_for_something_else_stays_refused_whatever_is_said(tmp_path):
    """The beginnings of answers, taken for the logits of a classifier of tokens."""
    asks = BertForQuestionAnswering(make_model("bert-classifier").config)
    with pytest.raises(MismatchError, match="BertForQuestionAnswering is neither"):
        task_of(asks, "token classifier")
    held = type("XLNetLMHeadModel", (BertForQuestionAnswering,), {})(asks.config)
    with pytest.raises(MismatchError, match="take token_distillation_loss"):
        task_of(held, "language model")


def test_an_unknown_task_is_a_sentence(tmp_path):
    """A typing error that trains by the default."""
    with pytest.raises(ValueError, match="task is 'tagger'"):
        make_trainer("bert-classifier", tmp_path, task="tagger")


def test_a_teacher_by_name_is_a_sentence(tmp_path):
    """A string that is taken for a source of logits, and fails in the first step."""
    with pytest.raises(TypeError, match="load the model that it names"):
        make_trainer("bert-classifier", tmp_path, teacher="bert-base-uncased")


SOURCES = [ColumnTeacher(), object()]


@pytest.mark.parametrize("source", SOURCES, ids=["column", "protocol"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"problem_type": "multi_label_classification"}, "problem_type"),
        ({"num_labels": 1}, "num_labels=1"),
    ],
)
def test_a_student_is_looked_at_whatever_its_teacher_is(source, changes, words, tmp_path):
    """A softmax over several labels, or over one, which trains on 0.0, where the teacher is no module."""
    with pytest.raises(MismatchError, match=words):
        make_trainer("bert-classifier", tmp_path, student=make_model("bert-classifier", **changes), teacher=source)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"problem_type": "multi_label_classification"}, "problem_type"),
        ({"num_labels": 1}, "num_labels=1"),
    ],
)
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_classifier_is_looked_at_where_the_other_model_is_ones_own(role, changes, words, tmp_path):
    """The checks of a pair, left out for both because one of the two is no class of transformers."""
    pair = {"student": Tokens(0, mean=True), "teacher": Tokens(1, mean=True)}
    pair[role] = make_model("bert-classifier", **changes)
    with pytest.raises(MismatchError, match=f"The {role}.*{words}"):
        make_trainer("bert-classifier", tmp_path, **pair)


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize("tokenizers", ["processing_class", "teacher_processing_class"])
def test_a_missing_pad_token_is_mended_where_the_other_model_is_ones_own(role, tokenizers, tmp_path):
    """GPT-2, which has none, refused although its tokenizer is there."""
    pair = {"student": Tokens(0, mean=True), "teacher": Tokens(1, mean=True)}
    pair[role] = make_model("gpt2-classifier", pad_token_id=None)
    given = {tokenizers: make_tokenizer(pad_token="w7"), "processing_class": make_tokenizer(pad_token="w5")}
    make_trainer("gpt2-classifier", tmp_path, **pair, **given)
    theirs = role == "teacher" and tokenizers == "teacher_processing_class"
    assert pair[role].config.pad_token_id == (7 if theirs else 5)


def test_a_head_that_was_never_trained_is_refused_for_a_student_of_ones_own(tmp_path):
    """Noise with a softmax over it, taught to a module that nobody compares it with."""
    teacher = load_without_head(tmp_path / "encoder")
    with pytest.raises(MismatchError, match="was not in the checkpoint"):
        make_trainer("bert-classifier", tmp_path, student=Tokens(0, mean=True), teacher=teacher)


class Probabilities(Tokens):
    """A model that ends in a softmax, as many do that were made to be used."""

    def forward(self, input_ids):
        return super().forward(input_ids).softmax(dim=-1)


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize("mean", [True, False], ids=["classifier", "token classifier"])
def test_probabilities_are_no_logits(role, mean, tmp_path):
    """A second softmax, which makes all classes nearly alike; the loss is small, and nothing is learned."""
    models = {"student": Tokens(0, mean=mean), "teacher": Tokens(1, mean=mean)}
    models[role] = Probabilities(2, mean=mean)
    rows = [{"input_ids": [3, 4], "labels": 0 if mean else [0, 1]} for _ in range(16)]
    task = {} if mean else {"task": "token classifier"}
    trainer = make_trainer("bert-classifier", tmp_path, rows=rows, collator=default_data_collator, **models, **task)
    with pytest.raises(MismatchError, match=f"{role}_logits are probabilities"):
        trainer.train()


def test_probabilities_in_a_column_are_no_logits(tmp_path):
    """Answers of a service, stored as they came."""
    rows = [{"input_ids": [3, 4], "labels": 0, "teacher_logits": [0.7, 0.2, 0.1]} for _ in range(16)]
    options = {"student": Tokens(0, mean=True), "teacher": ColumnTeacher(), "collator": default_data_collator}
    with pytest.raises(MismatchError, match="teacher_logits are probabilities"):
        make_trainer("bert-classifier", tmp_path, rows=rows, **options).train()
    logarithms = [row | {"teacher_logits": torch.tensor(row["teacher_logits"]).log().tolist()} for row in rows]
    make_trainer("bert-classifier", tmp_path, rows=logarithms, **options).train()


def test_one_output_is_refused_in_a_module_of_ones_own_too(tmp_path):
    """A loss of exactly 0.0, and a student that never learns."""
    rows = [{"input_ids": [3, 4], "labels": 0, "teacher_logits": [0.5]} for _ in range(16)]
    trainer = make_trainer(
        "bert-classifier", tmp_path, student=Tokens(0, mean=True, classes=1), teacher=ColumnTeacher(), rows=rows,
        collator=default_data_collator,
    )  # fmt: skip
    with pytest.raises(MismatchError, match="one output, over which a softmax is always 1"):
        trainer.train()


def with_names(names, seed=0):
    model = make_model("bert-classifier", seed=seed)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    return model


def test_a_cache_says_for_which_labels_its_logits_are(tmp_path):
    """Cached answers for cat, dog, bird, taught to a student of dog, cat, bird."""
    rows = make_rows("bert-classifier")
    cached = cache_logits(tmp_path / "cache", with_names(NAMES, seed=1), make_tokenizer(), rows)
    assert cached.label_names == NAMES
    settings = {"rows": cached.add_rows(rows), "teacher": cached}
    with pytest.raises(MismatchError, match="the logits were computed for"):
        make_trainer("bert-classifier", tmp_path, student=with_names(OTHER_ORDER), **settings)
    make_trainer("bert-classifier", tmp_path, student=with_names(NAMES), **settings).train()
    make_trainer("bert-classifier", tmp_path, student=make_model("bert-classifier"), **settings).train()
    assert CachedTeacher(cached.cache).label_names == NAMES


# peft reads a property that transformers has renamed; both names mean the same until transformers 6.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("shape", ["gpt2-classifier", "llama-classifier"])
def test_an_adapters_trained_head_is_trained(shape, tmp_path):
    """LoRA on GPT-2 or Llama: the copy of the head that peft trains was called random."""
    make_model(shape.replace("classifier", "lm")).save_pretrained(tmp_path / "base")
    base = type(make_model(shape)).from_pretrained(tmp_path / "base", num_labels=LABELS, pad_token_id=0)
    layers = ["c_attn"] if shape.startswith("gpt2") else ["q_proj"]
    adapter = LoraConfig(
        task_type="SEQ_CLS", r=LABELS, target_modules=layers, modules_to_save=["score"],
        fan_in_fan_out=shape.startswith("gpt2"),
    )  # fmt: skip
    teacher = get_peft_model(base, adapter)
    with pytest.raises(MismatchError, match="random"):
        check_classifiers(make_model(shape), teacher)
    teacher.base_model.model.score.modules_to_save["default"].weight.data.add_(0.1)
    check_classifiers(make_model(shape), teacher)
    check_classifiers(make_model(shape), teacher.merge_and_unload())


def test_a_head_that_begins_with_a_bias_is_random_all_the_same(tmp_path):
    """A ResNet from a checkpoint without a head: its bias is drawn, too, and passed for a trained one."""
    resnet().resnet.save_pretrained(tmp_path)
    teacher = ResNetForImageClassification.from_pretrained(tmp_path, num_labels=LABELS)
    assert teacher.classifier[1].bias.any()
    with pytest.raises(MismatchError, match="random"):
        check_classifiers(resnet(), teacher)


def test_a_configuration_need_not_name_its_labels():
    """A TypeError for `id2label`, which PVT's configuration leaves empty while it counts labels."""
    config = PvtConfig(
        image_size=8, num_encoder_blocks=1, depths=(1,), hidden_sizes=(4,), patch_sizes=(4,), strides=(4,),
        sequence_reduction_ratios=(1,), num_attention_heads=(1,), mlp_ratios=(1,), num_labels=3,
    )  # fmt: skip
    assert config.id2label is None
    check_classifiers(PvtForImageClassification(config), PvtForImageClassification(config))


def test_the_pad_token_of_a_model_of_pictures_and_words_is_that_of_its_words():
    """Gemma 3, refused for want of a pad token that it has."""
    words = {"vocab_size": 40, "head_dim": 4, "num_key_value_heads": 1, "intermediate_size": 8, "pad_token_id": None}
    pictures = {"image_size": 8, "patch_size": 4, "intermediate_size": 8}
    config = Gemma3Config(
        text_config=SMALL | words, vision_config=SMALL | pictures, mm_tokens_per_image=4, num_labels=LABELS
    )
    model, other = Gemma3ForSequenceClassification(config), Gemma3ForSequenceClassification(config)
    with pytest.raises(MismatchError, match="no pad_token_id"):
        check_classifiers(model, other)
    check_classifiers(model, other, make_tokenizer(), make_tokenizer(), repair=True)
    assert config.text_config.pad_token_id == 0


def test_a_classifier_of_tokens_needs_no_pad_token():
    """Its head is called `score`, as those that look for the last token, and it was refused."""
    config = make_model("llama-classifier", pad_token_id=None).config
    check_classifiers(LlamaForTokenClassification(config), LlamaForTokenClassification(config))


def test_a_configuration_need_not_name_a_pad_token():
    """An AttributeError for `pad_token_id`."""
    student, teacher = vit(), vit(1)
    for model in (student, teacher):
        model.config.__dict__.pop("pad_token_id", None)
    check_classifiers(student, teacher)


@pytest.mark.parametrize("model_class", [BertLMHeadModel, BertGenerationDecoder])
def test_an_encoder_is_no_language_model_until_it_looks_back_only(model_class):
    """A teacher that sees the token it is to predict, and is always right; BertGeneration was let through."""
    config = model_class.config_class(vocab_size=40, intermediate_size=4, **SMALL)
    with pytest.raises(MismatchError, match="is_decoder=True"):
        task_of(model_class(config))
    config.is_decoder = True
    assert task_of(model_class(config)) == "language model"


@pytest.mark.parametrize("model_class", [GPTNeoXForCausalLM, GPTNeoXJapaneseForCausalLM])
def test_a_model_that_looks_back_whatever_its_configuration_says_is_a_language_model(model_class):
    """Pythia, refused as an encoder: GPT-NeoX has `is_decoder`, False if nothing is said, and never asks for it."""
    model = model_class(model_class.config_class(vocab_size=40, intermediate_size=4, **SMALL)).eval()
    assert model.config.is_decoder is False
    with torch.no_grad():
        one, other = model(torch.tensor([[5, 6, 7, 8], [5, 6, 7, 30]])).logits
    assert torch.equal(one[:3], other[:3])
    assert task_of(model) == "language model"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("CpmAntForCausalLM", "sees a whole text at once"),
        ("Gemma4AssistantForCausalLM", "does not read input_ids"),
        ("MusicgenForCausalLM", "several codebooks"),
        ("Nemotron3DiarizationForAudioFrameClassification", "one sigmoid each"),
        ("DiaForConditionalGeneration", "several codebooks"),
        ("XLNetLMHeadModel", "at the token's own position.*take token_distillation_loss"),
    ],
)
def test_what_is_registered_and_something_else_is_refused(name, why):
    """A softmax over speakers, a text that is seen whole: trained without a word, for the register's name."""
    model = type(name, (type(make_model("gpt2-lm")),), {})(make_model("gpt2-lm").config)
    with pytest.raises(MismatchError, match=why):
        task_of(model)


def test_outputs_that_are_no_labels_are_refused(tmp_path):
    """A head with eight outputs and three labels: a softmax over answers to eight questions."""
    models = [make_model("bert-classifier", seed) for seed in (0, 1)]
    for model in models:
        model.classifier = nn.Linear(16, 8)
    with pytest.raises(MismatchError, match="gives 8 outputs and its configuration counts 3 labels"):
        make_trainer("bert-classifier", tmp_path, student=models[0], teacher=models[1]).train()


def test_the_task_goes_by_the_class_and_those_it_is_made_from():
    """A subclass of somebody's own that counts as unknown."""

    class Mine(BertForTokenClassification):
        pass

    assert task_of(Mine(make_model("bert-classifier").config)) == "token classifier"
    assert task_of(vit()) == "classifier"
    compiled = nn.Module()  # what torch.compile puts around a model
    compiled._orig_mod = make_model("gpt2-lm")
    assert task_of(compiled) == "language model"
    assert task_of(nn.Linear(2, 2)) is None


@pytest.mark.parametrize("holder", ["model", "configuration"])
@pytest.mark.parametrize("name", ["router_aux_loss_coef", "aux_loss_coef"])
def test_the_weight_of_a_routers_loss_is_found_under_all_its_names(holder, name):
    """An AttributeError for `router_aux_loss_coef`, in DBRX and JetMoe."""
    model = make_model("gpt2-lm")
    setattr(model if holder == "model" else model.config, name, 0.25)
    assert balance_weight(model) == 0.25
    with pytest.raises(MismatchError, match="output_router_logits=False"):
        balance_weight(make_model("gpt2-lm"))


def experts(seed, **changes):
    torch.manual_seed(seed)
    config = MixtralConfig(
        vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=4, pad_token_id=0, bos_token_id=1, eos_token_id=1, **changes,
    )  # fmt: skip
    return MixtralForCausalLM(config)


@pytest.mark.parametrize("batch", [16, 8])
def test_a_mixture_of_experts_keeps_its_balance(batch, tmp_path):
    """The router's loss, which the model computes and hands out, dropped without a word: 3.79 instead of 23.98."""
    asked = {"output_router_logits": True, "router_aux_loss_coef": 5.0}
    student, teacher, rows = experts(0, **asked), experts(1).eval(), make_rows("llama-lm")
    collate = make_collator("llama-lm")
    pieces = [collate([dict(row) for row in rows.select(range(start, start + batch))]) for start in range(0, 16, batch)]
    tokens = [(piece["labels"][:, 1:] != -100).sum().item() for piece in pieces]
    with torch.no_grad():
        right = 0.0
        for piece, count in zip(pieces, tokens, strict=True):
            labels = piece.pop("labels")
            outputs = student(**piece, output_router_logits=True)
            soft = lm_distillation_loss(outputs.logits, teacher(**piece).logits, labels, alpha=ALPHA, temperature=T)
            right += (soft.total.item() + 5.0 * outputs.aux_loss.item()) * count / sum(tokens)
    trainer = make_trainer(
        "llama-lm", tmp_path, student=student, teacher=teacher, rows=rows, collator=collate,
        per_device_train_batch_size=batch, gradient_accumulation_steps=16 // batch,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    assert logged_loss(trainer) == pytest.approx(right, abs=2e-3)


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_a_text_that_is_too_long_is_a_sentence(who, tmp_path):
    """An index that is out of range; on a GPU, the end of the process."""
    models = {"student": make_model("gpt2-classifier"), "teacher": make_model("gpt2-classifier", seed=1)}
    models[who] = make_model("gpt2-classifier", seed=2, n_positions=8)
    trainer = make_trainer("gpt2-classifier", tmp_path, **models)
    with pytest.raises(MismatchError, match=rf"the {who} .* has 8 positions"):
        trainer.train()


@pytest.mark.parametrize(
    ("model", "room"),
    [
        (GPT2LMHeadModel(GPT2Config(n_positions=9, n_embd=4, n_layer=1, n_head=1)), 9),
        (RobertaForSequenceClassification(RobertaConfig(max_position_embeddings=11, **SMALL)), 9),
        (OPTForCausalLM(OPTConfig(max_position_embeddings=9, ffn_dim=4, word_embed_proj_dim=4, **SMALL)), 9),
        (make_model("llama-lm"), None),
        (GPTJForCausalLM(GPTJConfig(n_positions=9, n_embd=8, n_layer=1, n_head=1, rotary_dim=4)), 9),
        (IBertForSequenceClassification(IBertConfig(max_position_embeddings=11, intermediate_size=4, **SMALL)), 9),
        (
            NystromformerForSequenceClassification(
                NystromformerConfig(
                    max_position_embeddings=9, intermediate_size=4, num_landmarks=9, segment_means_seq_len=9, **SMALL
                )
            ),
            9,
        ),
        (TapasForSequenceClassification(TapasConfig(max_position_embeddings=9, intermediate_size=4, **SMALL)), None),
        (ProphetNetForCausalLM(ProphetNetConfig(max_position_embeddings=11, **PROPHET)), 9),
    ],
    ids=lambda value: type(value).__name__,
)
def test_positions_are_counted_as_the_model_counts_them(model, room):
    """RoBERTa's first position is number 2: a limit that is off by two. ProphetNet looks up the one that it
    predicts, too: one that is off by one."""
    assert positions_of(model) == room
    ids = torch.full((1, room or 20), 5)
    model.eval()(input_ids=ids)
    if room:
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, room + 1), 5))


def test_what_a_prophetnet_says_has_one_position_less_than_what_it_reads():
    """An index error at exactly the length that a check had let through."""
    model = ProphetNetForConditionalGeneration(ProphetNetConfig(max_position_embeddings=11, **PROPHET))
    assert (positions_of(model.get_encoder()), positions_of(model.get_decoder())) == (10, 9)
    batch = {"input_ids": torch.full((1, 10), 5), "decoder_input_ids": torch.full((1, 9), 5)}
    require_room("student", model, batch)
    assert model(**batch).logits.shape == (1, 9, 20)
    with pytest.raises(MismatchError, match=r"10 labels in a row, and the student .* has 9 positions"):
        require_room("student", model, batch | {"decoder_input_ids": torch.full((1, 10), 5)})


def test_positions_that_are_given_have_an_end_too():
    """Text behind padding, or packed texts, whose positions were trusted: beyond the table, a GPU ends the process."""
    model = make_model("gpt2-lm", n_positions=8)
    batch = {"input_ids": torch.full((1, 12), 5), "position_ids": torch.arange(12)[None] % 8}
    require_room("student", model, batch)
    with pytest.raises(MismatchError, match=r"12 tokens in a row, and the student .* has 8 positions"):
        require_room("student", model, batch | {"position_ids": torch.arange(12)[None] % 9})
