"""SmolLM2 out of its package: the files of the original, and weights that another reader reads alike."""

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kdcourse.hashing import hash_tensors
from kdcourse.labs import smollm2

ON_THE_HUB = {
    "config.json": "8eb740e8bbe4cff95ea7b4588d17a2432deb16e8075bc5828ff7ba9be94d982a",
    "generation_config.json": "87b916edaaab66b3899b9d0dd0752727dff6666686da0504d89ae0a6e055a013",
    "tokenizer.json": "9ca9acddb6525a194ec8ac7a87f24fbba7232a9a15ffa1af0c1224fcd888e47c",
    "tokenizer_config.json": "4ec77d44f62efeb38d7e044a1db318f6a939438425312dfa333b8382dbad98df",
}
"""SHA-256 of the original's files, as others have published them."""

READ_BY_OTHERS = "6e036b66d747543013a0d7b351db906c68d79217b2a9542c0d31625e1a0049c5"
"""Of the weights by name, as gguf 0.19.0 and transformers 5.23.0 read them together, rounded to float16 by torch."""


def test_rows_of_a_head_are_put_apart():
    """Queries and keys that are turned by another row's angle: fluent nonsense, and no error."""
    weight = np.arange(8)[:, None] * np.ones((1, 3))  # two heads of four rows
    assert smollm2.halves_apart(weight, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("blk.12.attn_output.weight", "model.layers.12.self_attn.o_proj.weight"),
        ("blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
    ],
)
def test_each_weight_has_its_name(ours, theirs):
    """A layer of new random weights, since its name was not found."""
    assert smollm2.name_of(ours) == theirs


@pytest.mark.slow
def test_configuration_and_tokenizer_are_the_originals(smollm2_folder):
    """Text cut into other tokens than the model has learned, as transformers' own conversion does it."""
    assert {name: hashlib.sha256((smollm2_folder / name).read_bytes()).hexdigest() for name in ON_THE_HUB} == ON_THE_HUB


@pytest.mark.slow
def test_weights_are_those_that_other_readers_read(smollm2_folder):
    """A block that is read askew, rows in another order, a matrix under another's name."""
    assert hash_tensors(load_file(smollm2_folder / "model.safetensors")) == READ_BY_OTHERS


@pytest.mark.slow
def test_it_is_loaded_whole_and_says_something_sensible(smollm2_folder):
    """Weights that are missing are new ones, with a warning that nobody reads."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, report = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder)
    assert len(tokenizer) == 49_152
    assert tokenizer.tokenize("1994") == list("1994")
    ids = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        likeliest = model(**ids).logits[0, -1].argmax()
    assert tokenizer.decode(likeliest) == " Paris"
