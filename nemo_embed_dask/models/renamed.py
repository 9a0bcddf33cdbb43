"""Configurations of models whose authors' own code transformers has rewritten under another name.

Alibaba's type "new" (gte-base-en-v1.5, gte-multilingual-base, stella) is transformers' "gte". transformers
converts the names of the weights itself.
"""

from __future__ import annotations

from typing import Any

from ..errors import ModelError
from .json_files import JsonObject
from .names import model_file

_TYPES = {"new": "gte"}
# What the authors' configuration means if it leaves a setting out, where transformers' default is another.
_DEFAULTS = {
    "vocab_size": 30528,
    "max_position_embeddings": 2048,
    "type_vocab_size": 1,
    "pad_token_id": None,
}
_ROPE_THETA = 10_000.0
# Settings of the authors' code, and the only value of each that transformers implements.
_FIXED = {
    "pack_qkv": True,
    "position_embedding_type": "rope",
    "layer_norm_type": "layer_norm",
    "logn_attention_scale": False,
    "rope_parameters": None,  # a later name of rope_scaling, which the authors' files do not have
}


def type_in_transformers(config: JsonObject) -> object:
    """Return the model's type as transformers names it."""
    model_type = config.get("model_type")
    return _TYPES.get(model_type, model_type) if isinstance(model_type, str) else model_type


def rename_settings(config: JsonObject) -> dict[str, Any] | None:
    """Return a configuration as transformers names its type and settings; None if it has these names already.

    Raises
    ------
    ModelError
        It has a setting that transformers does not implement.
    """
    if type_in_transformers(config) != "gte":
        return None
    is_new = config.get("model_type") == "new"
    scaling = config.section("rope_scaling")
    if not is_new and (scaling.get("type") != "ntk" or "rope_parameters" in config):
        return None
    settings = (_DEFAULTS if is_new else {}) | dict(config) | {"model_type": "gte"}
    for name, value in _FIXED.items():
        if settings.get(name, value) != value:
            raise _unsupported(config, f"{name}={settings[name]!r}")
    for name in ("auto_map", "rope_scaling", "rope_theta"):
        settings.pop(name, None)
    return settings | {"rope_parameters": _rope_parameters(config, scaling)}


def _rope_parameters(config: JsonObject, scaling: JsonObject) -> dict[str, Any]:
    """Return the rotary frequencies in transformers' terms.

    Alibaba's "ntk" multiplies the base by the factor f, and divides every frequency by f ** (2 / width of a
    head): transformers' "linear" with another base and factor.
    """
    base = config.number("rope_theta", _ROPE_THETA)
    if not scaling:
        return {"rope_type": "default", "rope_theta": base}
    scaling.require("factor")
    factor = scaling.number("factor", 1.0)
    if scaling.get("type") != "ntk" or scaling.get("mixed_b") is not None or factor < 1:
        raise _unsupported(config, f"rope_scaling={dict(scaling)!r}")
    width = (config.count("hidden_size") or 768) // (config.count("num_attention_heads") or 12)
    return {"rope_type": "linear", "rope_theta": base * factor, "factor": factor ** (2 / width)}


def _unsupported(config: JsonObject, setting: str) -> ModelError:
    return ModelError(
        f"{model_file(config.path)} has {setting}, which transformers' implementation of the model lacks: use "
        "another model, or, if you have read the model's own code and trust it, trust_remote_code=True"
    )
