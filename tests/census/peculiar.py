"""What the general rules of `shrinking.py` leave inconsistent, large or open, by model type, and why.

An ellipsis leaves a setting to the configuration's class.
"""

from __future__ import annotations

from typing import Any

# Heads times their size is twice the hidden size in a state space layer.
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 4}
# The last layers of these share the keys of earlier ones of their kind.
_SHARED_KEYS = {
    "num_hidden_layers": 4, "num_kv_shared_layers": 2, "global_head_dim": 16,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
}  # fmt: skip
_GEMMA3N = _SHARED_KEYS | {"intermediate_size": [64] * 4, "activation_sparsity_pattern": None, "laurel_rank": 8}
_DRAFT = {
    "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0, "global_head_dim": 16,
}  # fmt: skip
_WINDOWS = {"patch_size": 4, "depths": (1, 2), "num_heads": (2, 2), "embed_dim": 16}
_INDEX = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 8,
    "indexer_compress_ratio": 2,
}  # fmt: skip
_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
_DOTS3 = {"num_key_value_heads": 2, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "per_layer_config": {}}
_HALF = {
    "model_type": "bert", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 64, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip

PECULIAR: dict[str, dict[str, Any]] = {
    # Layers of every kind, in widths that fit each.
    "bamba": _MAMBA | {"attn_layer_indices": [1]},
    "falcon_h1": _MAMBA | {"mamba_d_ssm": 64},
    "granitemoehybrid": _MAMBA | {"layer_types": ["linear_attention", "full_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 4, "state_size": 8, "n_groups": 2, "chunk_size": 4},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"], "mamba_num_heads": 4,
        "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 2, "chunk_size": 4,
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "lru_width": 32},
    "xlstm": {
        "hidden_size": 128, "embedding_dim": 128, "num_heads": 2, "chunk_size": 4, "mode": "train",
    },
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"], "num_hidden_layers": 3, "n_mamba_heads": 2,
        "mamba_d_state": 8, "attention_hidden_size": 64, "attention_head_dim": 32,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"], "mamba_d_state": 8, "mamba_headdim": 16, "chunk_size": 4,
        "n_mamba_heads": 4,
    },
    # Keys that are shared, and drafts that take all of them from another model.
    "gemma3n": {"text_config": _GEMMA3N, "vision_config": {"model_type": "siglip_vision_model"}},
    "gemma3n_text": _GEMMA3N,
    "gemma4": {"text_config": _SHARED_KEYS},
    "gemma4_text": _SHARED_KEYS,
    "gemma4_unified": {"text_config": _SHARED_KEYS},
    "gemma4_unified_text": _SHARED_KEYS,
    "gemma4_assistant": {"text_config": _DRAFT},
    "gemma4_unified_assistant": {"text_config": {"num_kv_shared_layers": 2, "global_head_dim": 16}},
    # As many heads for values, or an even number.
    "diffllama": {"num_key_value_heads": 2},
    "dots3_note": {
        "text_config": _DOTS3, "vision_config": {"adapter_in_dim": 32, "adapter_out_dim": 32},
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32},
    },
    "dots3_note_text": _DOTS3,
    "esmc": {"num_key_value_heads": 2},
    # No default.
    "cohere_compass_text": {"rope_parameters": {"sliding_attention": _MROPE, "full_attention": _MROPE}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v4": {"num_hash_layers": 1, "mlp_layer_types": ...},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"num_local_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "esm": {"vocab_size": 64, "mask_token_id": 3},
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 8}},
    "moonshine": {"encoder_num_key_value_heads": 2, "decoder_num_key_value_heads": 2},
    "moonshine_streaming": {"num_key_value_heads": 2, "encoder_config": {"sliding_windows": ((4, 0), (4, 1))}},
    "speech-encoder-decoder": {
        "encoder": {
            "model_type": "wav2vec2", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 64, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2, "hidden_dropout": 0.0, "attention_dropout": 0.0,
            "activation_dropout": 0.0, "feat_proj_dropout": 0.0, "layerdrop": 0.0, "mask_time_prob": 0.0,
        },
        "decoder": _HALF | {"is_decoder": True, "add_cross_attention": True}, "decoder_start_token_id": 1,
        "pad_token_id": 0,
    },
    "encoder-decoder": {
        "encoder": _HALF, "decoder": _HALF | {"is_decoder": True, "add_cross_attention": True},
        "decoder_start_token_id": 1, "pad_token_id": 0,
    },
    "nemotron": {"num_key_value_heads": 1},
    "qwen4_exp": {"text_config": _INDEX},
    "qwen4_exp_text": _INDEX,
    "t5": {"decoder_start_token_id": 0},
    "xmod": {"languages": ("en_XX",), "default_language": "en_XX"},
    # Sizes that have to meet.
    "blt": {
        "encoder_hash_byte_group_vocab": 64, "patcher_config": {"intermediate_size": 64}, "use_cache": False,
        "encoder_config": {"hidden_size_global": 32, "intermediate_size": 64},
        "decoder_config": {"hidden_size_global": 32},
    },
    "bros": {"hidden_size": 64, "num_attention_heads": 2},
    "codegen": {"n_head": 4, "rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "kolibri1": {"num_experts": 4},
    "layoutlmv3": {"coordinate_size": 5, "shape_size": 6},
    "lilt": {"hidden_size": 24},
    "longcat_flash": {"qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "qk_head_dim": 32},
    "musicgen": {"decoder": {"num_codebooks": 2}},
    "musicgen_melody": {"decoder": {"num_codebooks": 2}},
    "nemotron3_diarization": {"audio_config": {"num_key_value_heads": 2}, "head_config": {"audio_hidden_size": 32}},
    "perceiver": {
        "num_latents": 8, "d_latents": 32, "num_self_attends_per_block": 1, "num_cross_attention_heads": 1,
        "output_shape": (1, 4, 16, 16), "train_size": (16, 16),
    },
    # Its grid of positions has as many places as a text; its hashes are the same at each try.
    "reformer": {
        "attn_layers": ("local", "lsh"), "axial_pos_shape": (3, 4), "axial_pos_embds_dim": (16, 16), "is_decoder": True,
        "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "feed_forward_size": 64, "num_buckets": 2,
        "hash_seed": 0,
    },
    "zaya": {"num_experts_per_tok": 1},
    # Pictures, stage by stage.
    "bit": {"num_groups": 4, "embedding_size": 8},
    "convnext": {"image_size": 64},
    "convnextv2": {"image_size": 64},
    "cvt": {"embed_dim": (16, 32, 64), "num_heads": (1, 2, 2), "depth": (1, 2, 3)},
    "donut-swin": _WINDOWS,
    "efficientnet": {
        "hidden_dim": 1280, "in_channels": (32, 8, 8, 8, 8, 8, 8), "out_channels": (8,) * 7, "depth_divisor": 8,
        "width_coefficient": 1.0, "depth_coefficient": 1.0,
    },
    "hgnet_v2": {"stem_channels": (3, 8, 6)},
    "levit": {
        "image_size": 64, "patch_size": 16, "hidden_sizes": (16, 32, 32), "key_dim": (8, 8, 8),
        "num_attention_heads": (2, 4, 4),
    },
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilevitv2": {"image_size": 256, "width_multiplier": 0.25},
    "pvt": {"num_encoder_blocks": 4},
    "segformer": {"num_encoder_blocks": 4},
    "shieldgemma2": {"num_labels": 2, "yes_token_index": 18, "no_token_index": 19},
    "swin": _WINDOWS,
    "textnet": {"stem_out_channels": 8},
    "videoprism_vision_model": {
        "num_spatial_layers": 2, "num_temporal_layers": 1, "image_size": 16, "tubelet_size": (1, 8, 8), "num_frames": 4,
    },
}  # fmt: skip
