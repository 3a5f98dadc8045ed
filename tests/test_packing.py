"""Texts that are packed into one row: a model that would read across them is refused before it has learned anything."""

import pytest
import torch
from shapes import WORDS, make_model, make_rows, make_tokenizer, make_trainer
from transformers import (
    BertForTokenClassification,
    BloomConfig,
    BloomForCausalLM,
    DataCollatorWithFlattening,
    FalconConfig,
    FalconForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
    XGLMConfig,
    XGLMForCausalLM,
)

from kdcourse import MismatchError
from kdcourse.collators import LanguageModelCollator
from kdcourse.teacher import ModelTeacher

SIZES = {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
MIDDLE = {"intermediate_size": 32, "num_key_value_heads": 2}
SHORT_NAMES = {"vocab_size": WORDS, "n_layers": 2, "n_heads": 2, "d_model": 16}
FBS = {"d_model": 16, "num_layers": 2, "attention_heads": 2, "ffn_dim": 32, "max_position_embeddings": 64}

ACROSS = {
    "opt": (OPTForCausalLM, OPTConfig, SIZES | {"ffn_dim": 32, "word_embed_proj_dim": 16}),
    "bloom": (BloomForCausalLM, BloomConfig, {"vocab_size": WORDS, "hidden_size": 16, "n_layer": 2, "n_head": 2}),
    "falcon": (FalconForCausalLM, FalconConfig, SIZES),
    "mpt": (MptForCausalLM, MptConfig, SHORT_NAMES | {"max_seq_len": 64}),
    "xglm": (XGLMForCausalLM, XGLMConfig, {"vocab_size": WORDS} | FBS),
    "rwkv": (RwkvForCausalLM, RwkvConfig, SIZES | {"attention_hidden_size": 16}),
    "mamba": (MambaForCausalLM, MambaConfig, {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 2}),
    "lfm2": (Lfm2ForCausalLM, Lfm2Config, SIZES | MIDDLE | {"layer_types": ["conv", "full_attention"]}),
}
APART = {
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig, SIZES | {"intermediate_size": 32}),
    "mistral": (MistralForCausalLM, MistralConfig, SIZES | MIDDLE | {"sliding_window": 3}),
}


def make(model_class, config_class, settings):
    torch.manual_seed(0)
    return model_class(config_class(**settings))


COLLATORS = {
    "ours": LanguageModelCollator(make_tokenizer(), packed=True),
    "positions": DataCollatorWithFlattening(),
    "everything": DataCollatorWithFlattening(return_seq_idx=True, return_flash_attn_kwargs=True),
}


def packed_trainer(folder, student, teacher, collator="ours", **settings):
    rows = make_rows("llama-lm", 4)
    return make_trainer(
        "llama-lm", folder, student=student, teacher=teacher, rows=rows, eval_rows=rows, collator=COLLATORS[collator],
        per_device_train_batch_size=4, **settings,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # the models warn of kernels that are not installed
@pytest.mark.parametrize("name", ACROSS)
def test_a_model_that_reads_across_packed_texts_is_refused(name, tmp_path):
    """Trained and evaluated on texts that begin in the one before them, without a word."""
    model = make(*ACROSS[name])
    what = rf"\({type(model).__name__}\) reads across.* Pad instead"
    with pytest.raises(MismatchError, match=f"the teacher {what}"):
        packed_trainer(tmp_path, make_model("llama-lm"), model).evaluate()
    weights = [weight.detach().clone() for weight in model.parameters()]
    with pytest.raises(MismatchError, match=f"the student {what}"):
        packed_trainer(tmp_path, model.requires_grad_(True), make_model("llama-lm")).train()
    assert all(map(torch.equal, weights, model.parameters()))


@pytest.mark.parametrize("collator", COLLATORS)
@pytest.mark.parametrize("name", APART)
def test_a_model_that_reads_packed_texts_one_by_one_is_trained(name, collator, tmp_path):
    """Refused for its rounding; or tried at each step, with dropout, or leaving a trace in the random numbers."""
    student, teacher = make(*APART[name]), make(*APART[name])
    trainer = packed_trainer(tmp_path, student, teacher, collator)
    trainer.teacher = ModelTeacher(torch.compile(teacher, backend="eager"))
    asked = []
    student.register_forward_pre_hook(lambda module, _: asked.append((module.training, torch.is_grad_enabled())))
    batch = COLLATORS[collator](make_rows("llama-lm", 4).to_list())
    student.train()
    before = torch.get_rng_state()
    for _ in range(2):
        trainer._complete(batch)
    assert asked == [(False, False)] * 2
    assert student.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_single_text_is_no_reason_to_try(tmp_path):
    """A model refused for texts that are not there."""
    model = make(*ACROSS["opt"])
    trainer = packed_trainer(tmp_path, model, make_model("llama-lm"))
    trainer._complete(COLLATORS["positions"]([{"input_ids": [3, 4, 5]}]))
    with pytest.raises(MismatchError, match="reads across"):
        trainer._complete(COLLATORS["positions"]([{"input_ids": [3, 4, 5]}] * 2))


def test_an_encoder_that_classifies_tokens_is_tried(tmp_path):
    """BERT, which looks from one text into the next, where its labels belong to tokens."""
    config = make_model("bert-classifier").config
    trainer = packed_trainer(tmp_path, BertForTokenClassification(config), BertForTokenClassification(config))
    batch = COLLATORS["positions"]([{"input_ids": [3, 4, 5], "labels": [0, 1, 2]}] * 2)
    with pytest.raises(MismatchError, match=r"the student \(BertForTokenClassification\) reads across"):
        trainer._complete(batch)
