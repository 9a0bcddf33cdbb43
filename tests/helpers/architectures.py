"""A tiny random model of every architecture of transformers that takes token ids alone."""

from __future__ import annotations

import inspect

import torch
import transformers

from nemo_embed_dask.models.weights import _ENCODERS

VOCABULARY, POSITIONS = 96, 128
# Attributes of configurations and their values in a tiny model; windows are shorter than the rows of the scan.
_SIZES = {
    "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "n_positions": POSITIONS, "n_ctx": POSITIONS,
    "initializer_range": 0.3, "init_std": 0.3, "initializer_factor": 10.0,
    "sliding_window": 8, "sliding_window_size": 8, "attention_window_size": 8, "window_size": 8,
    "attention_chunk_size": 8, "local_attention": 16, "local_radius": 7, "global_block_size": 4, "block_size": 4,
    "chunk_size": 8, "attention_window": 8, "mamba_chunk_size": 8, "position_buckets": 8, "num_buckets": 8,
}  # fmt: skip
_WIDTHS = {
    32: ("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "emb_dim", "embedding_size", "word_embed_proj_dim",
         "projection_dim", "lru_width", "attention_hidden_size", "mamba_d_ssm", "rnn_hidden_size", "linear_width",
         "d_embed", "encoder_hidden_size", "hidden_size_per_layer_input", "true_hidden_size", "bottleneck_dim"),
    64: ("intermediate_size", "ffn_dim", "d_ff", "hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner",
         "dim_feedforward", "d_inner", "ffn_hidden_size", "block_ff_dim", "intermediate_size_mlp", "dff"),
    16: ("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank",
         "moe_shared_expert_intermediate_size", "n_groups_dim", "expert_ffn_hidden_size", "mamba_d_state"),
    8: ("head_dim", "d_kv", "d_head", "attention_head_size", "qk_head_dim", "v_head_dim", "qk_nope_head_dim",
        "linear_key_head_dim", "linear_value_head_dim", "global_head_dim", "kv_channels", "attention_key_size",
        "qk_rope_head_dim", "swa_head_dim"),
    4: ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "heads",
        "decoder_attention_heads", "num_key_value_heads", "linear_num_key_heads", "linear_num_value_heads",
        "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_global_key_value_heads",
        "n_head_kv", "num_kv_heads"),
    2: ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "depth",
        "num_encoder_layers", "num_decoder_layers", "num_experts_per_tok", "moe_k", "num_selected_experts",
        "num_experts_per_token", "moe_topk", "expert_top_k"),
    1: ("n_group", "topk_group", "n_groups", "mamba_n_groups", "n_shared_experts"),
}  # fmt: skip
_ALL = _SIZES | {name: size for size, names in _WIDTHS.items() for name in names}
# Sizes that must be given even if a configuration has no default for them.
_ALWAYS = ("vocab_size", "head_dim", "num_key_value_heads", "num_experts_per_tok")
_MAMBA = {"layer_types": ["mamba", "attention"], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_expand": 2}
_MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
# What no rule gives.
_EXCEPTIONS: dict[str, dict] = {
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8},
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "falcon_h1": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_ssm": 64, "mamba_d_state": 8},
    "granitemoehybrid": _MAMBA,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
              "use_mamba_kernels": False, "mamba_dt_rank": 4},
    "lilt": {"hidden_size": 48, "head_dim": 12},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4},
    "mamba": {"intermediate_size": 64},
    "mamba2": {"num_heads": 8, "n_groups": 1, "state_size": 8, "chunk_size": 8},
    "mobilebert": {"embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32,
                   "trigram_input": False},
    "phi3": {"original_max_position_embeddings": POSITIONS},
    "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": 8},
    "reformer": {"axial_pos_shape": [8, 16], "axial_pos_embds_dim": [16, 16], "lsh_attn_chunk_length": 8,
                 "local_attn_chunk_length": 8, "attn_layers": ["local", "lsh"], "feed_forward_size": 64,
                 "num_buckets": 4},
    "zamba": {"num_hidden_layers": 3, "layer_types": ["mamba", "hybrid", "hybrid"],
              "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False,
              "attention_hidden_size": 64, "attention_head_dim": 16, "mamba_dt_rank": 4, "n_mamba_heads": 2},
    "zamba2": {"num_hidden_layers": 3, "attention_hidden_size": 64, "attention_head_dim": 16,
               "mamba_headdim": 8, "n_mamba_heads": 8, "mamba_ngroups": 1, "use_mem_rope": False,
               "layer_types": ["mamba", "hybrid", "mamba"], "use_mamba_kernels": False},
    "big_bird": {"block_size": 4, "num_random_blocks": 1},
    "esm": {"pad_token_id": 1, "mask_token_id": 2},
    "fsmt": {"src_vocab_size": VOCABULARY, "tgt_vocab_size": VOCABULARY},
    "qwen2_vl_text": _MROPE,
    "qwen2_5_vl_text": _MROPE,
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "kimi_linear": {},
}  # fmt: skip


def tiny_config(kind):
    """A configuration of this class with small sizes, and each of its types of layers once."""
    default = kind()
    known = {*default.to_dict(), *kind.attribute_map}
    given = {
        name: size
        for name, size in _ALL.items()
        if name in known and (name in _ALWAYS or getattr(default, name, 0) is not None)
    }
    given |= {"use_cache": False}
    for name in ("pad_token_id", "eos_token_id", "bos_token_id"):
        if isinstance(token := getattr(default, name, None), int) and token >= VOCABULARY:
            given[name] = 1
    rope = getattr(default, "rope_parameters", None) or {}
    if "mrope_section" in rope:
        given["rope_parameters"] = rope | {"mrope_section": [2, 1, 1]}
    layers = list(dict.fromkeys(getattr(default, "layer_types", None) or ()))
    attribute = kind.attribute_map.get("layer_types", "layer_types")
    if layers and not isinstance(getattr(kind, attribute, None), property):
        given["layer_types"] = layers * (2 if len(layers) == 1 else 1)
        given |= {name: len(given["layer_types"]) for name in ("num_hidden_layers",) if name in given}
    for name, part in kind.sub_configs.items():
        if part is not transformers.AutoConfig:
            given[name] = tiny_config(part)
        elif (value := getattr(default, name, None)) is not None:
            given[name] = tiny_config(type(value))
    return kind(**(given | _EXCEPTIONS.get(kind.model_type, {})))


def tiny_model(kind):
    """A random model of this configuration class, as `models.weights` would load it."""
    config = tiny_config(kind)
    name = _ENCODERS.get(config.model_type)
    model_class = getattr(transformers, name) if name else transformers.MODEL_MAPPING[kind]
    if isinstance(model_class, tuple):
        model_class = model_class[0]
    options = (
        {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(model_class).parameters else {}
    )
    with torch.device("meta"):
        size = sum(weight.numel() for weight in model_class(config, **options).parameters())
    if size > 20_000_000:
        raise MemoryError(f"{size} parameters")
    torch.manual_seed(0)
    model = model_class(config, **options).eval()
    model.config.use_cache = False
    return model
