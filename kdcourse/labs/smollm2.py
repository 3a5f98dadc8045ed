"""SmolLM2-135M-Instruct as transformers reads it, made once from the GGUF file that a package carries (lab 08).

transformers loads a GGUF file itself, and makes another tokenizer of it: it leaves out that digits stand alone, so that
"1994" becomes another number of tokens than the model has learned. What is written here are the files of the original,
byte for byte: configuration, tokenizer and chat template have the SHA-256 that they have on the model hub. The weights
are those of the GGUF file, 4 bits each for the layers and 8 for the embeddings, rounded to float16.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from kdcourse.labs.gguf import Gguf, read_gguf

SPECIAL_TOKENS = 17
"""The first ids."""

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pad_token_id": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
    "use_cache": True,
    "vocab_size": 49152,
}

GENERATION_CONFIG = {
    "_from_model_config": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "transformers_version": "4.42.3",
}

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""What llama.cpp calls a part, and what transformers does."""


def convert(source: Path, folder: Path) -> None:
    """Write the model of the one GGUF file in `source` into `folder`, with configuration and tokenizer.

    Raises:
        GgufError: the file cannot be read.
    """
    (file,) = source.glob("*.gguf")
    gguf = read_gguf(file)
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "generation_config.json", GENERATION_CONFIG)
    write_json(folder / "tokenizer_config.json", tokenizer_config(gguf.values))
    write_json(folder / "tokenizer.json", tokenizer(gguf.values), end="")
    weights = {name_of(name): tensor for name, tensor in unpermuted(gguf, CONFIG).items()}
    half = {name: np.ascontiguousarray(tensor.astype(np.float16)) for name, tensor in weights.items()}
    # Not by save_file, whose files nobody else may read: a cache may be shared.
    (folder / "model.safetensors").write_bytes(save(half, metadata={"format": "pt"}))


def write_json(path: Path, value: Any, end: str = "\n") -> None:
    """As transformers and tokenizers lay it out: two spaces, and letters as they are."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + end, encoding="utf-8", newline="\n")


def name_of(name: str) -> str:
    """`blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`."""
    *block, part, weight = name.split(".")
    inside = NAMES[part]
    return f"model.layers.{block[1]}.{inside}.{weight}" if block else f"{inside}.{weight}"


def unpermuted(gguf: Gguf, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """llama.cpp turns two neighbouring rows of a head by one angle, transformers a row and the one half a head on."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    return {
        name: halves_apart(tensor, heads[part]) if (part := name.split(".")[-2]) in heads else tensor
        for name, tensor in gguf.tensors.items()
    }


def halves_apart(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows 0, 2, 4, … of each head first, then 1, 3, 5, …; (heads · size, width)."""
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def tokenizer(values: dict[str, Any]) -> dict[str, Any]:
    """The `tokenizer.json`: byte pairs over bytes, digits one by one."""
    tokens = values["tokenizer.ggml.tokens"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    in_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": token, **flags} for number, token in _special(tokens)],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, in_bytes],
        },
        "post_processor": None,
        "decoder": in_bytes | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": values["tokenizer.ggml.merges"],
        },
    }


def tokenizer_config(values: dict[str, Any]) -> dict[str, Any]:
    """The `tokenizer_config.json`, with the chat template."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    tokens = values["tokenizer.ggml.tokens"]
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(number): {"content": token, **flags} for number, token in _special(tokens)},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": "<|im_start|>",
        "chat_template": values["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": 8192,
        "pad_token": "<|im_end|>",
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": "<|endoftext|>",
        "vocab_size": 49152,
    }


def _special(tokens: list[str]) -> list[tuple[int, str]]:
    return list(enumerate(tokens[:SPECIAL_TOKENS]))
