"""Tiny models in the layout of Alibaba's type "new", and what their authors' code computes, in float64."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from .tiny import make_tokenizer

# As in gte-base-en-v1.5, with small sizes.
CONFIG = {
    "architectures": ["NewModel"],
    "attention_probs_dropout_prob": 0.0,
    "auto_map": {
        "AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig",
        "AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel",
    },
    "classifier_dropout": None,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "max_position_embeddings": 64,
    "model_type": "new",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "pack_qkv": True,
    "pad_token_id": 0,
    "position_embedding_type": "rope",
    "rope_scaling": {"factor": 2.0, "type": "ntk"},
    "rope_theta": 500000,
    "torch_dtype": "float32",
    "transformers_version": "4.41.2",
    "type_vocab_size": 0,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
}


def make_new(path: Path, *, prefix: str = "", style: str = "wordpiece", **changes) -> Path:
    """A directory as the authors publish it: their configuration, their names of weights, a tokenizer."""
    tokenizer = make_tokenizer(style)
    tokenizer.save_pretrained(path)
    config = {**CONFIG, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **changes}
    torch.manual_seed(0)
    weights = {name: torch.randn(shape) * 0.3 for name, shape in _shapes(config).items()}
    weights |= {
        name: tensor + 1 for name, tensor in weights.items() if name.endswith(("Norm.weight", "ln.weight"))
    }
    named = {prefix + name: tensor for name, tensor in weights.items()}
    if prefix:  # a head, as in gte-multilingual-base
        named |= {"classifier.weight": torch.zeros(1, 32), "classifier.bias": torch.zeros(1)}
        named[f"{prefix}pooler.dense.weight"] = torch.zeros(32, 32)
    save_file(named, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(config))
    return path


def _shapes(config) -> dict[str, tuple[int, ...]]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {"embeddings.word_embeddings.weight": (config["vocab_size"], width)}
    if config["type_vocab_size"]:
        shapes["embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], width)
    norms = ["embeddings.LayerNorm"]
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        shapes[f"{layer}.attention.qkv_proj.weight"] = (3 * width, width)
        shapes[f"{layer}.attention.qkv_proj.bias"] = (3 * width,)
        shapes[f"{layer}.attention.o_proj.weight"] = (width, width)
        shapes[f"{layer}.attention.o_proj.bias"] = (width,)
        shapes[f"{layer}.mlp.up_gate_proj.weight"] = (2 * inner, width)
        shapes[f"{layer}.mlp.down_proj.weight"] = (width, inner)
        shapes[f"{layer}.mlp.down_proj.bias"] = (width,)
        norms += [f"{layer}.attn_ln", f"{layer}.mlp_ln"]
    return shapes | {f"{norm}.{kind}": (width,) for norm in norms for kind in ("weight", "bias")}


def frequencies(config) -> np.ndarray:
    """The rotary frequencies: with "ntk" scaling, a larger base and a smaller frequency of every pair."""
    width = config["hidden_size"] // config["num_attention_heads"]
    exponents = np.arange(0, width, 2) / width
    scaling = config["rope_scaling"] or {"factor": 1.0}
    factor = scaling["factor"]
    return (config["rope_theta"] * factor) ** -exponents / factor ** (2 / width)


def token_states(path: Path, ids: list[int]) -> np.ndarray:
    """The token states of one text, computed from the files in plain numpy."""
    from safetensors.numpy import load_file

    config = json.loads((path / "config.json").read_text())
    weights = {name.removeprefix("new."): tensor.astype(np.float64)
               for name, tensor in load_file(path / "model.safetensors").items()}  # fmt: skip
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)

    angles = np.arange(len(ids))[:, None] * frequencies(config)
    turns = np.exp(1j * angles)[:, None]

    def rotate(x):  # dimension i and i + half are a complex number
        half = x.shape[-1] // 2
        turned = (x[..., :half] + 1j * x[..., half:]) * turns
        return np.concatenate([turned.real, turned.imag], -1)

    x = weights["embeddings.word_embeddings.weight"][ids]
    if config["type_vocab_size"]:
        x = x + weights["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        q, k, v = (part.reshape(len(ids), heads, -1)
                   for part in np.split(linear(x, f"{layer}.attention.qkv_proj"), 3, -1))  # fmt: skip
        scores = np.einsum("qhd,khd->hqk", rotate(q), rotate(k)) / np.sqrt(q.shape[-1])
        chances = np.exp(scores - scores.max(-1, keepdims=True))
        chances /= chances.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", chances, v).reshape(len(ids), -1)
        x = norm(x + linear(mixed, f"{layer}.attention.o_proj"), f"{layer}.attn_ln")
        up, gate = np.split(linear(x, f"{layer}.mlp.up_gate_proj"), 2, -1)
        gate = torch.nn.functional.gelu(torch.from_numpy(gate)).numpy()
        x = norm(x + linear(gate * up, f"{layer}.mlp.down_proj"), f"{layer}.mlp_ln")
    return x
