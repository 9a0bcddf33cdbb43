"""Find settings in a model's configuration that decide vectors, but that transformers ignores.

transformers keeps settings that it does not know, and does not use them. They come from older versions of
transformers, and from models whose own code transformers has rewritten.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

# Names of settings in other implementations, and what transformers calls them.
_OTHER_NAMES = {
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
    "n_embd": "hidden_size",
    "activation_function": "hidden_act",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
}
_SAME_ACTIVATION = {"swiglu": "silu", "geglu": "gelu"}
# Settings of other implementations, and the only value of each that transformers' classes implement.
_FIXED = {
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "prenorm": False,
    "parallel_block": False,
    "use_rms_norm": False,
    "layer_norm_type": "layer_norm",
    "logn_attention_scale": False,
    "logn_attention_clip1": False,
}


def find_ignored_settings(config: Any, model: nn.Module) -> list[str]:
    """Return the settings, as name=value, that contradict what the model computes.

    Those of a model that also reads images are in its configuration and in that of its text part.
    """
    text = getattr(config, "text_config", None)
    parts = [config, *([text] if hasattr(text, "attribute_map") else [])]
    return [setting for part in parts for setting in _ignored(part, model)]


def _ignored(config: Any, model: nn.Module) -> list[str]:
    declared = {*inspect.signature(type(config)).parameters, *config.attribute_map}
    given = {name: value for name, value in vars(config).items() if name not in declared}
    wrong = [name for name, current in _OTHER_NAMES.items() if _differs(given, name, _current(config, current))]
    wrong += [name for name, value in _FIXED.items() if _differs(given, name, value)]
    # Many configurations have BERT's default, "absolute", whatever their positions are.
    is_rotary = any("Rotary" in type(module).__name__ for module in model.modules())
    positions = (None, "absolute", *(("rope", "rotary") if is_rotary else ()))
    if given.get("position_embedding_type") not in positions:
        wrong.append("position_embedding_type")
    return [f"{name}={given[name]!r}" for name in wrong]


def _differs(given: dict[str, Any], name: str, current: Any) -> bool:
    value = given.get(name, current)
    return bool(_SAME_ACTIVATION.get(str(value), value) != current)


def _current(config: Any, name: str) -> Any:
    if name == "rope_theta":
        return (getattr(config, "rope_parameters", None) or {}).get(name)
    return getattr(config, name, None)
