"""A tiny configuration of any architecture: the default one, with every size replaced by a small one that fits.

A size is known by its name. Those that have to agree with one another (a hidden size and its heads) are replaced by
numbers that do, in the configuration and in those inside it. What follows from a size (the kinds of layers, say) is
left to the configuration's own class.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from transformers import PreTrainedConfig

from census.architectures import DECODERS, MASKED, fields_of, fitting_config
from census.peculiar import PECULIAR

WORDS = 64
"""Words of the vocabulary."""

PAD, BOS, EOS = 0, 1, 2

FIRST_WORD = 20
"""Ids below it are special: padding, the ends of a text, places for pictures."""

CLASSES = 3

HIDDEN, HEADS, HEAD = 32, 2, 16

LAYERS = 2

RANDOM = r"drop(?!_path$)|pdrop|mask_(time|feature)_prob|jitter"
"""Dropout by any of its names: two runs could not be compared."""

CONSPICUOUS = {
    r"aux_loss_coef|moe_loss_weight": 0.5,
    r"^(logits?_scal(e|ing)|logits_mup_width_multiplier|lm_head_multiplier|output_multiplier)$": 0.7,
    r"^(final_logit_softcapping|output_logit_soft_cap|logits_soft_cap)$": 2.0,
}
"""What the loss of a router weighs, and what is done to logits behind a head: so much that nobody can overlook it."""

EIGHTHS = (
    "hidden_sizes", "embed_dims", "stage_in_channels", "stage_mid_channels", "stage_out_channels", "neck_hidden_sizes",
)  # fmt: skip
"""Widths, stage by stage, which keep their proportions."""

SIZES: list[tuple[str, int]] = [
    (r"(?<!type)(^|_)vocab_size(_per_layer_input)?$", WORDS),
    (r"vocab_size_base$", WORDS),
    (r"^pad_token_id$", PAD),
    (r"^bos_token_id$", BOS),
    (r"^eos_token_id$", EOS),
    (r"(num_key_value_heads|num_kv_heads|kv_n_heads)$", 1),
    (r"(^|_)(num_)?(attention_heads|num_heads|n_heads?|num_query_groups)$", HEADS),
    (r"(^|_)(n_)?(num_)?(hidden_layers|layers?|n_layers?|depth|num_blocks)$", 2),
    (r"(intermediate_size|ffn_dim|d_ff|d_inner|dff|n_inner|ffn_hidden_size|mlp_dim|_size_mlp)$", 2 * HIDDEN),
    (r"^(hidden_size|d_model|n_embd|dim|embed_dim|embedding_size|emb_dim|hidden_dim|word_embed_proj_dim)$", HIDDEN),
    (r"(^|_)((hidden|projection|proj|pooler_output)_size|(projection|output|embedding|embed)_dim|width)$", HIDDEN),
    (r"(^|_)(head_dim|d_kv|head_size|dim_head|d_head|kv_channels)$", HEAD),
    (r"^(qk_rope_head_dim|rotary_dim)$", 8),
    (r"^qk_nope_head_dim$", 8),
    (r"^(kv_lora_rank|q_lora_rank|o_lora_rank)$", 8),
    (r"^(num_experts|n_routed_experts|num_local_experts|moe_num_experts)$", 4),
    (r"^(num_experts_per_tok|num_experts_per_token|moe_topk|moe_top_k|moe_k)$", 2),
    (r"^(n_group|topk_group|num_expert_group)$", 1),
    (r"^index_topk$", 4),
    (r"^hidden_size_per_layer_input$", 8),
    (r"^first_k_dense_replace$", 1),
    (r"^(max_position_embeddings|n_positions|n_ctx|max_seq\w*_len\w*|context_length|max_target_positions)$", 64),
    (r"^max_source_positions$", 16),
    (r"^num_mel_bins$", 8),
    (r"^(sliding_window|attention_window_size|local_attention|sliding_window_size)$", 4),
    (r"^(depths|num_block_repeats)$", 1),
    (r"^(image_size|crop_size|input_size)$", 32),
    (r"^patch_size$", 8),
    (r"^(conv_dim|tdnn_dim)$", 16),
    (r"^window_size$", 4),
    (r"^num_conv_pos_embedding_groups$", 2),
    (r"^num_conv_pos_embeddings$", 4),
    (r"^mamba_expand$|^expand$", 2),
]  # fmt: skip
"""The first pattern that a name fits says its small value."""

WITHOUT_A_DEFAULT = {"head_dim": HEAD, "pad_token_id": PAD, "final_logit_softcapping": 2.0}
"""What some configurations leave open."""


def tiny_config(architecture):
    """The configuration of a tiny model of an architecture."""
    changes = PECULIAR.get(architecture.model_type, {})
    try:
        default = architecture.config_class()
    except ValueError:  # its defaults contradict one another
        default = architecture.config_class(**merged({}, changes))
    config = architecture.config_class(**{"num_labels": CLASSES} | merged(tiny_changes(default), changes))
    config = fitting_config(config, architecture.model_class)
    if architecture.task == MASKED and hasattr(config, "is_decoder"):
        config.is_decoder = False
    if architecture.task in DECODERS and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = BOS
    if architecture.setting:
        setting = architecture.setting.removesuffix("=True")
        for part in (config, config.get_text_config()):
            if setting in fields_of(type(part)):
                setattr(part, setting, True)
    return config


def tiny_changes(config: PreTrainedConfig) -> dict[str, Any]:
    """What to pass to a configuration's class, so that it describes a tiny model."""
    own = {field.name for field in fields(config)}
    layers_name = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    layers = vars(config).get(layers_name) if small_value(layers_name, 9) == LAYERS else None
    kinds = list(dict.fromkeys(getattr(config, "layer_types", None) or []))
    changes: dict[str, Any] = {}
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            changes[name] = tiny_changes(value) | ({"model_type": value.model_type} if value.model_type else {})
        elif name not in own or isinstance(value, (bool, str)):
            continue
        elif value is None:
            changes |= {name: WITHOUT_A_DEFAULT[name]} if name in WITHOUT_A_DEFAULT else {}
        elif name == "layer_types":
            changes[name] = kinds if len(kinds) > 1 else kinds * LAYERS
        elif isinstance(value, (list, tuple)) and len(value) == layers:
            small = small_value(name, value) or value
            changes[name] = type(value)(small[: max(LAYERS, len(kinds))])
        elif (small := small_value(name, value)) is not None:
            changes[name] = small
    if "kv_lora_rank" in own:  # latent attention has as many heads for keys and values
        changes["num_key_value_heads"] = HEADS
    if len(kinds) > LAYERS and layers_name in own:
        changes[layers_name] = len(kinds)
    return changes | special_tokens({name: vars(config).get(name) for name in own})


def small_value(name: str, value: Any) -> Any:
    """The small value of a setting, in the type of its large one; None where it may stay as it is."""
    if isinstance(value, (list, tuple)) and not all(type(each) in (int, float) for each in value):
        return None
    if re.search(RANDOM, name):
        return type(value)(type(each)(0) for each in value) if isinstance(value, (list, tuple)) else type(value)(0)
    for pattern, conspicuous in CONSPICUOUS.items():
        if re.search(pattern, name):
            return conspicuous
    if name in EIGHTHS:
        return type(value)(each // 8 for each in value) if isinstance(value, (list, tuple)) else None
    small = next((small for pattern, small in SIZES if re.search(pattern, name)), None)
    if small is None or isinstance(value, float):
        return None
    return small if isinstance(value, int) else type(value)(small for _ in value)


def special_tokens(values: dict[str, Any]) -> dict[str, int]:
    """Small ids for the tokens that stand for something else, each its own."""
    names = sorted(
        name
        for name, value in values.items()
        if re.search(r"_token_(id|index)$", name) and type(value) is int and not re.match("(pad|bos|eos)_", name)
    )
    return {name: EOS + 1 + number for number, name in enumerate(names)}


def merged(changes: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """`more` takes precedence, setting by setting; an ellipsis leaves one to the configuration's class."""
    for name, value in more.items():
        if value is ...:
            changes.pop(name, None)
        elif isinstance(value, dict):
            changes[name] = merged(dict(changes.get(name) or {}), value)
        else:
            changes[name] = value
    return changes
