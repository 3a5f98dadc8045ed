"""Which heads the trainer sees, what it makes of twists behind them, and that the step is the same without logits."""

import copy
import gc
import math
from functools import partial

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from settings.by_hand import distance, losses, step
from shapes import PAD, WORDS, make_collator, make_model, make_rows, make_tokenizer, make_trainer, weights_of
from test_fused import Largest
from torch import nn
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)
from transformers.modeling_outputs import CausalLMOutput

from kdcourse import fused_lm_distillation_loss
from kdcourse.columns import unwrapped
from kdcourse.heads import HeadAside, HiddenHeadError, ImplicitLogits, look
from kdcourse.teacher import ModelTeacher, cache_logits

SHAPE = "llama-lm"
EXACT = 5e-5
"""Of the length of a step: float32 rounds its sums."""

SIZES = {
    "vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip


def of_class(model_class, config_class, **changes):
    """Makes a model of a class by its seed, with weights that make student and teacher disagree."""

    def make(seed):
        torch.manual_seed(seed)
        model = model_class(config_class(**SIZES | changes))
        for weight in model.parameters():
            weight.data.mul_(10 if weight.ndim > 1 else 1).add_(0.0 if weight.ndim > 1 else 0.1)
        return model

    return make


HEADS = {
    "tied": (lambda seed: make_model("gpt2-lm", seed), 1.0, None),
    "alone": (lambda seed: make_model(SHAPE, seed), 1.0, None),
    "tied, by a setting": (lambda seed: make_model(SHAPE, seed, tie_word_embeddings=True), 1.0, None),
    "bias": (of_class(PhiForCausalLM, PhiConfig, resid_pdrop=0.0), 1.0, None),
    "divided": (of_class(GraniteForCausalLM, GraniteConfig, logits_scaling=8.0), 0.125, None),
    "multiplied": (of_class(CohereForCausalLM, CohereConfig, logit_scale=0.3), 0.3, None),
    "soft-cap": (of_class(Gemma2ForCausalLM, Gemma2Config, final_logit_softcapping=3.0), 1.0, 3.0),
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick_collection():
    """The Trainer collects garbage after each training: what was there before is none."""
    gc.freeze()
    yield
    gc.unfreeze()


def took_a_step(folder, student, teacher, shape=SHAPE, **settings):
    """The trainer after one step; which must be that of the formula in float64, whichever way it was taken."""
    start = weights_of(student).double()
    by_hand, weights = step(shape, make_rows(shape), student=student, teacher=teacher)
    trainer = make_trainer(shape, folder, student=student, teacher=teacher, **settings)
    trainer.train()
    for name, value in zip(("loss", "hard_loss", "soft_loss"), by_hand, strict=True):
        assert trainer.state.log_history[0][name] == pytest.approx(value.item(), rel=1e-5, abs=1e-6), name
    assert distance(weights_of(unwrapped(trainer.model)), weights, start) < EXACT
    return trainer


@pytest.mark.parametrize(("make", "scale", "softcap"), HEADS.values(), ids=HEADS)
def test_a_head_is_seen_with_what_becomes_of_its_logits(make, scale, softcap, tmp_path):
    """A scale, a soft-cap or a bias that is in the model's logits and not in the loss."""
    trainer = took_a_step(tmp_path, make(0), make(1))
    assert trainer.students_head.is_seen and trainer.teachers_head.is_seen
    seen = look(trainer.model, {"input_ids": torch.arange(3, 9).view(2, 3)})
    assert seen.scale == pytest.approx(scale, rel=1e-6)
    assert seen.softcap == pytest.approx(softcap)


class Twisted(LlamaForCausalLM):
    """A model that somebody has written: `behind` is what becomes of its head's logits."""

    def __init__(self, config):
        super().__init__(config)
        self.extra = nn.Parameter(torch.full((1,), 1.1))
        self.ruled_out = nn.Buffer(torch.arange(config.vocab_size) % 5 == 4, persistent=False)

    def forward(self, input_ids, attention_mask=None):
        hidden = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
        return CausalLMOutput(logits=type(self).behind(self, self.lm_head(hidden), hidden))


def twice(model, logits, hidden):
    return logits + model.lm_head(hidden.flip(-1))


def without_its_head(model, logits, hidden):
    return hidden @ model.lm_head.weight.t()


def _at_twice_the_position(model, logits, hidden):
    return logits * torch.arange(1, logits.shape[1] + 1)[:, None] / 4


TWISTS = {
    "learnt scale": lambda model, logits, _: logits * model.extra,
    "learnt scale of 1, as it begins": lambda model, logits, _: logits * (model.extra / model.extra.detach()),
    "learnt bias of 0, as it begins": lambda model, logits, _: logits + (model.extra - model.extra.detach()),
    "bias": lambda model, logits, _: logits + 0.5 * model.ruled_out,
    "ruled out": lambda model, logits, _: logits.masked_fill(model.ruled_out, -50.0),
    "cut above": lambda model, logits, _: logits.clamp(max=1.5),
    "another soft-cap": lambda model, logits, _: 3 * torch.atan(logits / 3),
    "bent near zero": lambda model, logits, _: logits + 0.1 * torch.sin(logits),
    "normalised": lambda model, logits, _: logits - logits.mean(dim=-1, keepdim=True) / 2,
    "log-softmax": lambda model, logits, _: logits.log_softmax(dim=-1),
    "by position": _at_twice_the_position,
    "by the hidden states": lambda model, logits, hidden: logits * (1 + 0.1 * hidden.tanh().mean(-1, keepdim=True)),
    "two heads": twice,
    "a product of its own": without_its_head,
    "steps of no slope": lambda model, logits, _: logits + (logits.round() - logits).detach(),
}  # fmt: skip


def twisted(seed):
    model = Twisted(make_model(SHAPE).config)
    model.load_state_dict(make_model(SHAPE, seed).state_dict(), strict=False)
    return model


@pytest.mark.parametrize("twist", TWISTS)
def test_an_unknown_twist_behind_a_head_is_found(twist, monkeypatch):
    """Logits that are taken for others."""
    monkeypatch.setattr(Twisted, "behind", TWISTS[twist], raising=False)
    with pytest.raises(HiddenHeadError):
        look(twisted(0), {"input_ids": torch.arange(3, 15).view(2, 6)})


@pytest.mark.slow
@pytest.mark.parametrize("twist", TWISTS)
def test_a_head_with_an_unknown_twist_is_left_to_the_model(twist, tmp_path, monkeypatch, caplog):
    """A loss of logits that are not the model's: whatever is behind a head, the step is right, and the reason told."""
    monkeypatch.setattr(Twisted, "behind", TWISTS[twist], raising=False)
    trainer = took_a_step(tmp_path, twisted(0), twisted(1))
    assert not trainer.students_head.is_seen
    said = [record.getMessage() for record in caplog.records if record.name == "kdcourse.heads"]
    assert said == [f"The logits of the student (Twisted) are computed whole, since {trainer.students_head.reason}."]


def test_only_the_teachers_logits_are_whole_where_only_its_head_is_hidden(tmp_path, monkeypatch):
    """A student's gigabytes for a twist of the teacher's."""
    monkeypatch.setattr(Twisted, "behind", TWISTS["cut above"], raising=False)
    trainer = took_a_step(tmp_path, make_model(SHAPE), twisted(1))
    assert trainer.students_head.is_seen
    assert trainer.teachers_head.reason


ADAPTERS = {
    "lora on the head": ({"target_modules": ["q_proj", "lm_head"], "init_lora_weights": False}, True),
    "lora that begins with 0": ({"target_modules": ["q_proj", "lm_head"]}, True),
    "lora that drops": ({"target_modules": ["lm_head"], "lora_dropout": 0.5}, False),
    "dora": ({"target_modules": ["q_proj", "lm_head"], "use_dora": True, "init_lora_weights": False}, False),
    "dora that begins with 0": ({"target_modules": ["lm_head"], "use_dora": True}, False),
    "a copy of the head": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, True),
    "head left alone": ({"target_modules": "all-linear", "init_lora_weights": False}, True),
}  # fmt: skip


@pytest.mark.slow
# peft reads a property that transformers has renamed; both names mean the same until transformers 6.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize(("settings", "is_seen"), ADAPTERS.values(), ids=ADAPTERS)
def test_an_adapter_on_the_head_learns_as_ever(settings, is_seen, tmp_path):
    """A head whose adapter is not in the loss, or gets no gradient because it begins with 0."""
    torch.manual_seed(5)
    student = get_peft_model(make_model(SHAPE), LoraConfig(task_type="CAUSAL_LM", r=2, **settings))
    if "lora_dropout" in settings:
        trainer = make_trainer(SHAPE, tmp_path, student=student)
        trainer.train()
    else:
        trainer = took_a_step(tmp_path, student, make_model(SHAPE, 1))
    assert trainer.students_head.is_seen == is_seen


SETTINGS = {
    "pieces": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 6},
    "checkpointing": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
    "reentrant checkpointing": {
        "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True},
    },
    "padding on the left": {"collator": make_collator(SHAPE, make_tokenizer(pad_side="left"))},
    "whole": {"fused": False},
}  # fmt: skip


# transformers has renamed the setting to activation_checkpointing; both mean the same until transformers 6.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_step_is_the_same_in_every_setting(setting, tmp_path):
    """A setting in which hidden states are others, or their gradient is lost. Others are in tests/settings."""
    trainer = took_a_step(tmp_path, make_model(SHAPE), make_model(SHAPE, 1), **SETTINGS[setting])
    assert trainer.students_head.is_seen == (setting != "whole")


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    {"divergence": "reverse_kl"}, {"divergence": "jensen_shannon", "beta": 0.3}, {"temperature": 0.7},
    {"label_smoothing_factor": 0.2}, {"class_weights": [0.5 + i / WORDS for i in range(WORDS)]}, {"alpha": 0.0},
    {"alpha": 1.0}, {"bf16": True},
], ids=str)  # fmt: skip
def test_the_step_is_that_of_the_whole_logits(options, tmp_path):
    """A setting of the objective that one of the two ways leaves out."""
    runs = []
    for fused in (True, False):
        trainer = make_trainer("gpt2-lm", tmp_path, fused=fused, eval_rows=make_rows("gpt2-lm", 5), **options)
        trainer.train()
        assert trainer.students_head.is_seen == fused
        runs.append((weights_of(trainer.model).double(), trainer.state.log_history[0] | trainer.evaluate()))
    (ours, our_log), (theirs, their_log) = runs
    rounding = 0.02 if "bf16" in options else 1e-5
    assert distance(ours, theirs, weights_of(make_model("gpt2-lm")).double()) < rounding
    for name in ("loss", "hard_loss", "soft_loss", "eval_loss", "eval_hard_loss", "eval_soft_loss"):
        assert our_log[name] == pytest.approx(their_log[name], rel=rounding, abs=1e-6), name


def test_a_router_keeps_its_loss(tmp_path):
    """The balance of a mixture's experts, lost with the logits."""
    make = of_class(MixtralForCausalLM, MixtralConfig, output_router_logits=True, router_aux_loss_coef=0.5)
    logged = []
    for fused in (True, False):
        trainer = make_trainer(SHAPE, tmp_path, student=make(0), teacher=make(1), fused=fused)
        trainer.train()
        logged.append((weights_of(trainer.model), trainer.state.log_history[0]))
    (ours, our_log), (theirs, their_log) = logged
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert our_log["loss"] == pytest.approx(their_log["loss"], rel=1e-5)
    assert our_log["loss"] > 0.4 * our_log["hard_loss"] + 0.6 * our_log["soft_loss"] + 0.1


LARGE = 4000
"""A vocabulary beside which all else is small."""


@pytest.mark.parametrize("teacher_is", ["a model", "a cache of its top 5"])
def test_no_tensor_of_a_step_or_an_evaluation_is_as_large_as_the_logits(teacher_is, tmp_path, monkeypatch):
    """Logits that are computed all the same: by the model, for a look at them, or for an evaluation's loss."""
    in_little = partial(fused_lm_distillation_loss, memory=10**6)
    monkeypatch.setattr("kdcourse.heads.fused_lm_distillation_loss", in_little)
    student, teacher = (make_model(SHAPE, seed, vocab_size=LARGE) for seed in (0, 1))
    rows = make_rows(SHAPE)
    if teacher_is != "a model":
        teacher = cache_logits(tmp_path / "cache", teacher, make_tokenizer(), rows, k=5, temperature=2.0)
        rows = teacher.add_rows(rows)
    largest = {}
    for fused in (True, False):
        trainer = make_trainer(
            SHAPE, tmp_path, student=copy.deepcopy(student), teacher=teacher, rows=rows, eval_rows=rows, fused=fused
        )
        with Largest() as seen:
            trainer.train()
            trainer.evaluate()
        largest[fused] = seen.bytes
    tokens = make_collator(SHAPE)(list(make_rows(SHAPE)))["input_ids"].numel()
    assert largest[False] >= tokens * LARGE * 4
    assert largest[True] <= tokens * LARGE * 4 / 5


def test_logits_are_whole_where_somebody_asks_for_them(tmp_path):
    """Zeros, one for each token, in the place of the logits that a metric is computed from."""
    trainer = make_trainer(SHAPE, tmp_path, eval_rows=make_rows(SHAPE, 5))
    trainer.evaluate()  # the head is seen
    seen = []
    trainer.compute_metrics = lambda prediction: seen.append(prediction.predictions.shape) or {}
    measured = trainer.evaluate()
    assert seen[0][-1] == WORDS
    expected = losses(SHAPE, make_rows(SHAPE, 5), make_model(SHAPE), make_model(SHAPE, 1))
    assert measured["eval_loss"] == pytest.approx(expected.total.item(), rel=1e-5)
    batch = make_collator(SHAPE)(list(make_rows(SHAPE, 2)))
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert outputs.logits.shape == (*batch["labels"].shape, WORDS)
    assert loss.item() == pytest.approx(trainer.compute_loss(trainer.model, batch).item(), rel=1e-5)


def test_a_look_leaves_no_trace(tmp_path):
    """A draw of random numbers, after which a resumed run is another; a gradient; a head that stays aside."""
    model = make_model(SHAPE, dropout=0.3).train()
    ids = torch.arange(3, 15).view(2, 6)
    before, state = model(ids).logits, torch.get_rng_state()
    look(model, {"input_ids": ids})
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in model.parameters())
    assert "forward" not in vars(model.lm_head)
    model.eval()
    assert model(ids).logits.shape == before.shape


def test_a_head_that_is_replaced_is_looked_at_again():
    """The scale or the module of a head that was there before `resize_token_embeddings`."""
    model, aside = make_model(SHAPE), HeadAside("student")
    features = {"input_ids": torch.arange(3, 15).view(2, 6)}
    assert aside.ask(model, features)[1].shape == (2, 6, WORDS)
    model.resize_token_embeddings(WORDS + 8)
    logits = aside.ask(model, features)[1]
    assert isinstance(logits, ImplicitLogits)
    assert logits.shape == (2, 6, WORDS + 8)


def test_a_head_that_is_spread_after_the_look_is_left_to_the_model():
    """An evaluation with the whole model, and then a training with pieces of it."""
    model, aside = make_model(SHAPE), HeadAside("student")
    features = {"input_ids": torch.arange(3, 15).view(2, 6)}
    aside.ask(model, features)
    assert aside.is_seen
    compiled = torch.compile(model, backend="eager")
    _, logits = aside.ask(compiled, features)
    assert logits.shape == (2, 6, WORDS) and not aside.is_seen
    assert torch.allclose(logits, model(**features).logits, atol=1e-5)


def test_a_failing_call_puts_the_head_back():
    """A model that gives zeros for ever, after one batch that was too long."""
    model, aside = make_model("gpt2-lm"), HeadAside("student")
    features = {"input_ids": torch.arange(3, 15).view(2, 6)}
    aside.ask(model, features)
    with pytest.raises(IndexError):
        aside.ask(model, {"input_ids": torch.full((2, 6), WORDS + 1)})
    assert model(**features).logits.shape == (2, 6, WORDS)


def test_nobody_pays_for_a_gradient_in_an_evaluation(tmp_path, monkeypatch):
    """Two products more for each batch, whose results nobody asks for."""
    asked = []
    monkeypatch.setattr("kdcourse.fused._Pass._add_gradient", lambda *_: asked.append("gradient"))
    make_trainer(SHAPE, tmp_path, eval_rows=make_rows(SHAPE, 5)).evaluate()
    assert asked == []


def test_padded_vocabularies_are_cut_to_what_is_shared(tmp_path):
    """A student and a teacher of different width: ids that mean nothing, compared."""
    student, teacher = make_model(SHAPE, vocab_size=WORDS + 3), make_model(SHAPE, 1, vocab_size=WORDS + 5)
    runs = []
    for fused in (True, False):
        trainer = make_trainer(
            SHAPE, tmp_path, student=copy.deepcopy(student), teacher=copy.deepcopy(teacher), fused=fused,
            processing_class=make_tokenizer(), teacher_processing_class=make_tokenizer(),
        )  # fmt: skip
        trainer.train()
        assert trainer.students_head.is_seen == fused
        runs.append((weights_of(trainer.model), trainer.state.log_history[0]["loss"]))
    assert torch.allclose(runs[0][0], runs[1][0], atol=1e-5)
    assert runs[0][1] == pytest.approx(runs[1][1], rel=1e-5)


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, **features):
        return self.module(**features)


def hooked():
    model = make_model(SHAPE)
    model.lm_head.register_forward_hook(lambda *_: None)
    return model


def spread():
    model = make_model(SHAPE)
    model.__class__ = type("DeepSpeedEngine", (type(model),), {})
    return model


def elsewhere():
    model = make_model(SHAPE)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.to("meta"))
    return model


def stretched():
    settings = IA3Config(task_type="CAUSAL_LM", target_modules=["lm_head"], feedforward_modules=[])
    return get_peft_model(make_model(SHAPE), settings)


def in_whole_numbers():
    model = make_model(SHAPE)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.to(torch.int8), requires_grad=False)
    return model


# peft reads a property that transformers has renamed; both names mean the same until transformers 6.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Wrapper(make_model(SHAPE)), "it names no head (get_output_embeddings)"),
        (hooked, "somebody has put hooks on its head"),
        (spread, "DeepSpeedEngine spreads its weights"),
        (elsewhere, "the weight of its head is not whole in the memory of this device"),
        (in_whole_numbers, "its head (Linear) has no weight (V, H)"),
        (lambda: torch.compile(make_model(SHAPE), backend="eager"), "it is compiled, head and all"),
        (
            stretched,
            "trying its head failed (AttributeError: 'Linear' object has no attribute 'get_delta_weight')",
        ),
    ],
)
def test_a_head_that_cannot_be_seen_is_told_from_one_that_can(make, reason):
    """Weights that are in pieces, in whole numbers or somewhere else, multiplied as if they were whole; an adapter that
    adds nothing to a weight (IA3), whose training ended at its first step."""
    with pytest.raises(HiddenHeadError) as hidden:
        look(make(), {"input_ids": torch.arange(3, 15).view(2, 6)})
    assert str(hidden.value) == reason


def test_a_model_that_does_not_run_is_not_blamed_on_its_head():
    """An error of the model that is swallowed by the look, and comes back as another: it is that of the model."""
    aside = HeadAside("student")
    with pytest.raises(IndexError):
        aside.ask(make_model("gpt2-lm"), {"input_ids": torch.full((2, 6), WORDS + 1)})
    assert "IndexError" in aside.reason


def test_a_teacher_answers_in_eval_mode_and_without_a_graph(tmp_path):
    """Dropout in the teacher's hidden states, or a graph that keeps all its layers."""
    teacher = ModelTeacher(make_model(SHAPE, 1, dropout=0.5))
    teacher.model.train()
    inputs = {"input_ids": torch.arange(3, 15).view(2, 6)}
    _, logits = teacher.answer(inputs, HeadAside("teacher").ask)
    assert not logits.hidden.requires_grad
    whole = torch.empty(12, WORDS)
    logits.head.logits(logits.hidden.flatten(0, 1), whole)
    assert torch.allclose(whole, teacher.logits(inputs).flatten(0, 1), atol=1e-5)
    assert math.isfinite(whole.sum())
