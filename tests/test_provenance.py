"""What logits depend on: whatever changes them changes the fingerprint, and nothing else does."""

import copy
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace

import pytest
import torch
from accelerate import dispatch_model
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from shapes import make_classifier, make_model, make_rows, make_tokenizer, make_trainer
from tokenizers.normalizers import Lowercase
from torch import nn
from transformers import Wav2Vec2FeatureExtractor

from kdcourse.cache import CacheMismatchError, fingerprint
from kdcourse.provenance import columns_read, hash_configuration
from kdcourse.teacher import cache_logits, score

TOKENIZER = make_tokenizer()
CHANGES = [
    ("bert-classifier", {"num_attention_heads": 4}),
    ("bert-classifier", {"hidden_act": "relu"}),
    ("bert-classifier", {"layer_norm_eps": 1e-2}),
    ("gpt2-classifier", {"n_head": 4}),
    ("gpt2-classifier", {"activation_function": "relu"}),
    ("gpt2-classifier", {"scale_attn_weights": False}),
    ("gpt2-classifier", {"pad_token_id": 7}),
    ("gpt2-lm", {"scale_attn_by_inverse_layer_idx": True}),
    ("llama-lm", {"rope_parameters": {"rope_type": "default", "rope_theta": 10.0}}),
    ("llama-lm", {"rms_norm_eps": 1e-1}),
]


@pytest.mark.parametrize(("shape", "change"), CHANGES)
def test_another_function_of_the_same_weights_is_refused(shape, change, tmp_path):
    """Heads, activations, positions: the same matrices make other logits, and the old ones were served."""
    teacher, other, rows = make_model(shape, 1), make_model(shape, 1, **change), make_rows(shape)
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), other.parameters(), strict=True))
    if shape.endswith("classifier") and "pad_token_id" not in change:
        assert not torch.allclose(score(teacher, TOKENIZER, rows), score(other, TOKENIZER, rows), atol=1e-3)
    cache_logits(tmp_path / "cache", teacher, TOKENIZER, rows)
    with pytest.raises(CacheMismatchError, match="other teacher configuration"):
        cache_logits(tmp_path / "cache", other, TOKENIZER, rows)


# The name that transformers 5.20 knows, too.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
@pytest.mark.parametrize("shape", ["bert-classifier", "gpt2-classifier", "llama-classifier", "gpt2-lm", "llama-lm"])
def test_the_same_teacher_is_the_same(shape, tmp_path):
    """A night's work that is refused because the model was saved, used, or trained in another folder."""
    teacher = make_model(shape, 1)
    before = hash_configuration(teacher)
    cache_logits(tmp_path / "cache", teacher, TOKENIZER, make_rows(shape), batch_size=4)
    teacher(torch.tensor([[3, 4, 5]]), labels=torch.tensor([0] if "classifier" in shape else [[3, 4, 5]]))
    teacher.train().gradient_checkpointing_enable()
    teacher.requires_grad_(False)
    teacher.config.use_cache = False
    assert hash_configuration(teacher) == before
    assert hash_configuration(copy.deepcopy(teacher)) == before
    teacher.save_pretrained(tmp_path / "saved")
    loaded = type(teacher).from_pretrained(tmp_path / "saved")
    assert hash_configuration(loaded) == before
    make_trainer(shape, tmp_path, teacher=loaded, processing_class=TOKENIZER).train()
    cache_logits(tmp_path / "cache", loaded, TOKENIZER, make_rows(shape))


@pytest.mark.parametrize("spread", [False, True])
def test_a_teacher_on_other_devices_is_the_same(spread, tmp_path):
    """Scoring that is refused where it goes on, on another number of GPUs."""
    teacher = make_model("llama-lm", 1)
    cache_logits(tmp_path / "cache", teacher, TOKENIZER, make_rows("llama-lm", 3), batch_size=4)
    if spread:
        dispatch_model(teacher, {"": "cpu"}, main_device="cpu", force_hooks=True)
        assert "forward" in vars(teacher.lm_head)
    else:
        teacher.hf_device_map = {"model": 0, "lm_head": 1}
    assert hash_configuration(teacher) == hash_configuration(make_model("llama-lm", 1))
    if spread:
        assert len(cache_logits(tmp_path / "cache", teacher, TOKENIZER, make_rows("llama-lm", 5)).cache) == 5


def test_a_forward_of_ones_own_is_seen_on_other_devices():
    """A function that somebody has put in the place of a module's, taken for accelerate's."""

    def doubled(hidden):
        return 2 * hidden

    teacher = make_model("llama-lm", 1)
    teacher.model.norm.forward = doubled
    before = hash_configuration(teacher)
    assert before != hash_configuration(make_model("llama-lm", 1))
    dispatch_model(teacher, {"": "cpu"}, main_device="cpu", force_hooks=True)
    assert hash_configuration(teacher) == before


def test_labels_by_another_name_are_no_other_function():
    """Logits that are scored again because somebody has named the classes."""
    teacher = make_model("bert-classifier")
    before = hash_configuration(teacher)
    teacher.config.id2label = {0: "a", 1: "b", 2: "c"}
    teacher.config._name_or_path = "elsewhere"
    assert hash_configuration(teacher) == before


class Own(nn.Module):
    """A teacher of one's own, with all that such a class may keep beside its weights."""

    def __init__(self, **changes):
        super().__init__()
        self.embed = nn.Embedding(40, 3)
        self.norm = nn.LayerNorm(3, eps=changes.get("eps", 1e-5))
        self.scale = changes.get("scale", 1.0)
        self.config = changes.get("config", SimpleNamespace(heads=2))
        self.act = changes.get("act", torch.relu)
        self.levels = changes.get("levels", {"a": [1, 2], "b": {3}})
        self.kind = changes.get("kind", torch.float32)
        self.shift = torch.tensor(changes.get("shift", 0.0))
        self.register_buffer("mask", torch.tensor(changes.get("mask", 1.0)), persistent=False)

    def forward(self, input_ids):
        return self.act(self.norm(self.embed(input_ids).mean(dim=1)) * self.scale * self.mask + self.shift)


class Another(Own):
    """The same weights, another class."""


def own(make=Own, **changes):
    torch.manual_seed(0)
    return make(**changes)


@pytest.mark.parametrize(
    "change",
    [
        {"eps": 1e-3}, {"scale": 2.0}, {"config": SimpleNamespace(heads=4)}, {"config": {"heads": 4}},
        {"act": torch.tanh}, {"levels": {"a": [1, 3], "b": {3}}}, {"levels": {"a": [1, 2], "b": {4}}},
        {"kind": torch.bfloat16}, {"kind": SimpleNamespace}, {"kind": object()}, {"kind": None},
        {"shift": 1.0}, {"mask": 0.5}, {"make": Another},
    ],
)  # fmt: skip
def test_a_module_of_ones_own_is_looked_into(change):
    """A scale, a mask or a function beside the weights, which `state_dict` does not hold."""
    assert hash_configuration(own()) == hash_configuration(own())
    assert hash_configuration(own(**change)) != hash_configuration(own())


@dataclass
class Settings:
    """What somebody may keep a configuration in."""

    heads: int = 2


class Odd:
    """An object that nobody can write down."""


class Kind(Enum):
    """A choice that is no text."""

    WIDE = 1
    NARROW = 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Settings(2), Settings(4)), (Kind.WIDE, Kind.NARROW), ([1, 2], [2, 1]), ((1, 2), (1, 3)), (Settings, Kind),
        (torch.float32, torch.float16), (torch.relu, torch.tanh), ({1, 2}, {1, 3}), (Settings(), SimpleNamespace()),
        (object(), Odd()), (1, 1.5), (None, 0), ("a", "b"), (True, False), ({"a": {"b": 1}}, {"a": {"b": 2}}),
    ],
)  # fmt: skip
def test_settings_of_every_kind_are_told_apart(one, other):
    """A setting that is left out because it is no number."""
    assert hash_configuration(own(kind=one)) == hash_configuration(own(kind=copy.deepcopy(one)))
    assert hash_configuration(own(kind=one)) != hash_configuration(own(kind=other))


def test_what_has_no_order_and_no_name_is_the_same():
    """A digest of an address in memory, or of the order in which a set was filled: another one at each start."""
    assert list({0, 8}) != list({8, 0})
    assert hash_configuration(own(kind={0, 8})) == hash_configuration(own(kind={8, 0}))
    assert hash_configuration(own(kind=object())) == hash_configuration(own(kind=object()))
    elsewhere = type("Own", (Own,), {"__module__": "elsewhere"})
    assert hash_configuration(own(elsewhere)) != hash_configuration(own())


def test_each_configuration_counts():
    """A model made of two, of which only the last is looked at."""

    def pair(first, second):
        return nn.ModuleList([own(config={"heads": first}), own(config={"heads": second})])

    assert len({hash_configuration(pair(*heads)) for heads in [(1, 1), (1, 2), (2, 1), (2, 2)]}) == 4


def test_rounding_of_another_machine_is_no_other_teacher():
    """Frequencies of rotary positions, computed anew wherever a model is loaded: a cache that cannot be moved."""
    teacher = make_model("llama-lm")
    before = hash_configuration(teacher)
    teacher.model.rotary_emb.inv_freq.mul_(1 + 1e-7)
    assert hash_configuration(teacher) == before


def test_a_fingerprint_knows_what_its_teacher_reads():
    """Positions that the model reads and a tokenizer does not make."""
    rows = make_rows("bert-classifier", 2).add_column("position_ids", [[1], [2]])
    moved = make_rows("bert-classifier", 2).add_column("position_ids", [[1], [3]])
    teacher = make_model("bert-classifier")
    prints = [fingerprint(teacher, TOKENIZER, each) for each in (rows, moved)]
    assert prints[0].keys() - {"position_ids"} == fingerprint("digest", TOKENIZER, rows).keys() | {
        "teacher configuration"
    }
    assert prints[0]["position_ids"] != prints[1]["position_ids"]


def test_a_module_of_ones_own_is_cached(tmp_path):
    """An AttributeError for its `config` or its `device`."""
    rows = make_rows("bert-classifier")
    cached = cache_logits(tmp_path / "cache", own(), TOKENIZER, rows, batch_size=1)
    for row in (0, 15):
        assert torch.allclose(cached.cache[row], own()(torch.tensor([rows[row]["input_ids"]]))[0])
    with pytest.raises(CacheMismatchError, match="other teacher configuration"):
        cache_logits(tmp_path / "cache", own(scale=2.0), TOKENIZER, rows)


# peft reads a property that transformers has renamed; both names mean the same until transformers 6.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("change", ["alpha", "switched off", "another adapter"])
def test_an_adapter_is_part_of_the_teacher(change):
    """LoRA at another scale or switched off: the same weights, and other answers."""

    def adapted(alpha=8):
        torch.manual_seed(0)
        settings = {"task_type": "SEQ_CLS", "r": 2, "target_modules": ["query"], "init_lora_weights": False}
        model = get_peft_model(make_model("bert-classifier"), LoraConfig(lora_alpha=alpha, **settings))
        model.add_adapter("second", LoraConfig(lora_alpha=8, **settings))
        return model

    teacher, other = adapted(), adapted(16 if change == "alpha" else 8)
    assert hash_configuration(teacher) == hash_configuration(other) or change == "alpha"
    if change == "switched off":
        other.base_model.disable_adapter_layers()
    if change == "another adapter":
        other.set_adapter("second")
    rows = make_rows("bert-classifier")
    assert not torch.allclose(score(teacher, TOKENIZER, rows), score(other, TOKENIZER, rows), atol=1e-3)
    assert hash_configuration(teacher) != hash_configuration(other)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("attention mask", {"rows": {"attention_mask": lambda ids: [0] + [1] * (len(ids) - 1)}}),
        ("columns", {"rows": {"position_ids": lambda ids: list(range(len(ids)))}}),
        ("columns", {"rows": {"token_type_ids": lambda ids: [0] * len(ids)}}),
        ("padding side", {"tokenizer": make_tokenizer(pad_side="left")}),
        ("tokenizer", {"tokenizer": make_tokenizer(pad_token="w5")}),
        ("collate", {"collate": lambda rows: {"input_ids": torch.tensor([row["input_ids"][:3] for row in rows])}}),
    ],
)
def test_rows_that_are_read_otherwise_are_refused(field, change, tmp_path):
    """Half a text under a mask, padding on the left, another column: the same ids, and the old logits were served."""
    teacher, rows = make_model("bert-classifier"), make_rows("bert-classifier")
    cache_logits(tmp_path / "cache", teacher, TOKENIZER, rows)
    made = change.get("rows", {})
    other = rows.map(lambda row: {name: make(row["input_ids"]) for name, make in made.items()})
    with pytest.raises(CacheMismatchError, match=f"other {field}"):
        cache_logits(
            tmp_path / "cache", teacher, change.get("tokenizer", TOKENIZER), other, collate=change.get("collate")
        )


class Cut:
    """Makes a batch of the first words."""

    def __call__(self, rows):
        return {"input_ids": torch.tensor([row["input_ids"][:3] for row in rows])}


class CutOtherwise(Cut):
    """Another class."""


def first_words(rows):
    return Cut()(rows)


def test_what_makes_the_batch_is_known_by_its_name(tmp_path):
    """Another function, or another collator's class, and the old logits."""
    teacher, rows = make_model("bert-classifier"), make_rows("bert-classifier")
    makers = [("Cut", Cut()), ("CutOtherwise", CutOtherwise()), ("first_words", first_words)]
    for name, make in makers:
        for other, make_otherwise in makers:
            cache_logits(tmp_path / name, teacher, TOKENIZER, rows, collate=make)
            if other != name:
                with pytest.raises(CacheMismatchError, match=rf"other collate \({name}, not {other}\)"):
                    cache_logits(tmp_path / name, teacher, TOKENIZER, rows, collate=make_otherwise)


def test_a_question_is_told_by_what_is_said_of_it(tmp_path):
    """Other files, other settings, and other names of the classes: each refused by its own name."""
    teacher, rows = make_classifier(names=["a", "b", "c"]), make_rows("bert-classifier")

    def ask(**changes):
        given = {"teacher": teacher, "tokenizer": TOKENIZER, "dataset": rows, "weights": "first"} | changes
        return cache_logits(tmp_path / "cache", **given)

    assert ask().label_names == ["a", "b", "c"]
    for changes, words in (
        ({"weights": "second"}, "teacher weights (first, not second)"),
        ({"k": 2, "temperature": 2}, "settings (all logits, not top 2 at temperature 2.0)"),
        ({"teacher": make_classifier(names=["b", "a", "c"])}, 'label names (["a", "b", "c"], not ["b", "a", "c"])'),
    ):
        with pytest.raises(CacheMismatchError) as refused:
            ask(**changes)
        assert str(refused.value).startswith(f"The logits in {tmp_path / 'cache'} were computed with other {words}; ")
    with pytest.raises(CacheMismatchError) as refused:
        ask(dataset=make_rows("bert-classifier", seed=1))
    assert str(refused.value).startswith(f"The logits in {tmp_path / 'cache'} were computed with other token ids (")
    ask()


def test_a_temperature_is_a_number_and_not_a_text(tmp_path):
    """The same cache, refused for a 2 in place of a 2.0."""
    teacher, rows = make_model("bert-classifier"), make_rows("bert-classifier")
    for temperature in (2, 2.0):
        cached = cache_logits(tmp_path / "cache", teacher, TOKENIZER, rows, k=2, temperature=temperature)
    assert len(cached.cache) == 16
    assert cached.label_names == []


def test_a_column_that_is_gone_is_another_question(tmp_path):
    """Rows without the segments that they were scored with."""
    teacher, rows = make_model("bert-classifier"), make_rows("bert-classifier")
    pairs = rows.map(lambda row: {"token_type_ids": [0] * len(row["input_ids"])})
    cache_logits(tmp_path / "cache", teacher, TOKENIZER, pairs)
    with pytest.raises(CacheMismatchError, match=r"other columns \(input_ids, token_type_ids, not input_ids\)"):
        cache_logits(tmp_path / "cache", teacher, TOKENIZER, rows)


def test_a_mask_of_ones_is_no_mask(tmp_path):
    """Work done twice because the column was left out."""
    teacher, rows = make_model("gpt2-classifier"), make_rows("gpt2-classifier")
    cached = cache_logits(tmp_path / "cache", teacher, TOKENIZER, rows)
    cache_logits(tmp_path / "cache", teacher, TOKENIZER, rows.remove_columns("attention_mask"))
    cached.add_rows(rows.remove_columns("attention_mask").with_format("torch"))


@pytest.mark.parametrize("change", [{"pad_token_id": 1}, {"padding_side": "left"}, {"words": {"a": 1}}])
def test_a_tokenizer_in_python_is_looked_into(change):
    """Another padding under the same vocabulary."""

    def slow(words=None, **named):
        return SimpleNamespace(
            get_vocab=lambda: words or {"a": 0}, **{"pad_token_id": 0, "padding_side": "right"} | named
        )

    assert fingerprint("weights", slow()) == fingerprint("weights", slow())
    assert fingerprint("weights", slow()) != fingerprint("weights", slow(**change))


def test_rules_are_part_of_a_tokenizer():
    """The same vocabulary, read in another way: every word in capitals is unknown."""
    lower = make_tokenizer()
    lower.backend_tokenizer.normalizer = Lowercase()
    assert lower.get_vocab() == TOKENIZER.get_vocab()
    assert fingerprint("weights", lower)["tokenizer"] != fingerprint("weights", TOKENIZER)["tokenizer"]


def test_a_tokenizers_class_is_part_of_it():
    """Two that cut words differently, and have the same pieces."""

    class First:
        def get_vocab(self):
            return {"a": 0}

    class Second(First):
        """The same vocabulary."""

    assert fingerprint("weights", First()) != fingerprint("weights", Second())


def test_a_tokenizer_is_the_same_after_it_was_used():
    """Padding and truncation of the last call, which a fast tokenizer keeps among its rules."""
    tokenizer = make_tokenizer()
    before = fingerprint("weights", tokenizer)
    tokenizer(["w3 w4 w5", "w3"], padding=True, truncation=True, max_length=2)
    assert fingerprint("weights", tokenizer) == before


def test_what_stands_in_for_a_tokenizer_is_part_of_the_question():
    """Recordings that are padded with something else, and a teacher that reads pictures without any processor."""
    zeros, ones = (Wav2Vec2FeatureExtractor(padding_value=value) for value in (0.0, 1.0))
    assert fingerprint("weights", zeros) == fingerprint("weights", Wav2Vec2FeatureExtractor(padding_value=0.0))
    assert fingerprint("weights", zeros) != fingerprint("weights", ones)
    assert fingerprint("weights", zeros)["processing"] != fingerprint("weights", ones)["processing"]
    assert fingerprint("weights", None) == {"teacher weights": "weights", "processing": "none"}


def test_what_no_longer_makes_the_batch_is_missed(tmp_path):
    """Rows that a function or a tokenizer of one's own had changed, asked for without it."""
    teacher, rows = make_model("bert-classifier"), make_rows("bert-classifier")
    cut = {"collate": lambda given: {"input_ids": torch.tensor([row["input_ids"][:3] for row in given])}}
    cache_logits(tmp_path / "cut", teacher, TOKENIZER, rows, **cut)
    with pytest.raises(CacheMismatchError, match=r"other collate .*, not the Trainer's"):
        cache_logits(tmp_path / "cut", teacher, TOKENIZER, rows)
    cache_logits(tmp_path / "cache", teacher, TOKENIZER, rows)
    with pytest.raises(CacheMismatchError, match="other processing"):
        cache_logits(tmp_path / "cache", teacher, None, rows)


def test_a_digest_stands_for_weights_only():
    """Another configuration, under the digest of the files that the weights came from."""
    teacher, other = make_model("bert-classifier"), make_model("bert-classifier", num_attention_heads=4)
    prints = [fingerprint(model, TOKENIZER, weights="digest") for model in (teacher, other)]
    assert [each["teacher weights"] for each in prints] == ["digest"] * 2
    assert prints[0]["teacher configuration"] != prints[1]["teacher configuration"]


def test_a_teacher_reads_what_its_forward_names():
    """The student's ids in place of the teacher's own; a text or a label, handed to the model."""
    bert = make_model("bert-classifier")
    rows = make_rows("bert-classifier", 2).add_column("text", ["a", "b"])
    assert sorted(columns_read(rows, bert)) == ["attention_mask", "input_ids"]
    theirs = rows.add_column("teacher_input_ids", [[3], [4]]).add_column("teacher_attention_mask", [[1], [1]])
    assert sorted(columns_read(theirs, bert)) == ["teacher_attention_mask", "teacher_input_ids"]
    with pytest.raises(ValueError, match="has the columns text and BertForSequenceClassification reads attention_mask"):
        columns_read(rows.select_columns("text"), bert)
    with pytest.raises(ValueError, match=r"has the columns pixel_values .* pass the model itself"):
        fingerprint("digest", None, Dataset.from_dict({"pixel_values": [[0.0]]}))


def test_a_teacher_is_scored_on_its_own_columns(tmp_path):
    """A teacher with a tokenizer of its own, scored on the student's ids: other words, without a word."""
    teacher, rows = make_model("gpt2-classifier", 1), make_rows("gpt2-classifier")
    theirs = rows.map(lambda row: {"teacher_input_ids": [7, *row["input_ids"]],
                                   "teacher_attention_mask": [1, *row["attention_mask"]]})  # fmt: skip
    expected = score(teacher, TOKENIZER, Dataset.from_dict({"input_ids": theirs["teacher_input_ids"]}))
    cached = cache_logits(tmp_path / "cache", teacher, TOKENIZER, theirs, batch_size=3)
    stored = torch.stack([cached.cache[row] for row in range(len(rows))])
    assert torch.allclose(stored, expected, atol=1e-5)
    cached.add_rows(theirs)
    masked = theirs.map(lambda row: {"teacher_attention_mask": [0, *row["attention_mask"]]})
    with pytest.raises(CacheMismatchError, match="other attention mask"):
        cache_logits(tmp_path / "cache", teacher, TOKENIZER, masked)
