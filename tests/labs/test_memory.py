"""Memory of a step, in a process of its own: with logits it is more by what logits take."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kdcourse.labs import lab08
from kdcourse.labs.memory import peak_of_a_step

WORDS, WIDTH, TOKENS = 40_000, 16, 512


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("teacher")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_logits_take_what_logits_take(folder):
    """Both ways measured in one process, of which the second can only be as large; or a fused step that is not."""
    fused = peak_of_a_step(fused=True, model=folder, layers=[0], tokens=TOKENS)
    whole = peak_of_a_step(fused=False, model=folder, layers=[0], tokens=TOKENS)
    assert 0 < fused["before"] < fused["peak"]
    logits = WORDS * TOKENS * 4  # bytes; a teacher's, a student's, and a gradient at the least
    assert whole["peak"] - fused["peak"] > 2 * logits


@pytest.mark.slow
def test_a_step_that_fails_says_why(tmp_path):
    """An empty answer, or JSON's complaint about it."""
    with pytest.raises(RuntimeError, match=r"ended with 1: .*"):
        peak_of_a_step(fused=True, model=tmp_path)


@pytest.mark.slow
def test_a_step_of_the_lab_fits_into_three_gigabytes(smollm2_folder):
    """Logits that come back: 1,024 tokens of them take 200 MB for each model, and again for each thing made of them."""
    found = peak_of_a_step(fused=True, model=smollm2_folder, layers=lab08.FULL.layers)
    assert found["peak"] < 3e9
