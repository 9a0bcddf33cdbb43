"""What Curator's ``transformers_init_kwargs`` means here: arguments for ``from_pretrained`` of transformers.

Each is translated to a parameter of the stage, has no effect on vectors, or is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

from ..errors import ConfigError
from ..options import original_name

# Parameters of the stages with the same name and meaning.
_SAME = ("trust_remote_code", "revision", "code_revision")
# Attention is this package's own, the pooler's output is not used, and all tokenizers are fast ones.
_NO_EFFECT = {
    "attn_implementation": ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"),
    "add_pooling_layer": (True, False),
    "low_cpu_mem_usage": (True, False),
    "use_fast": (True,),
}
_DTYPE = ("dtype", "torch_dtype")
# Values of ``dtype``, and the value of ``autocast`` that has this meaning; None for any.
_NUMBER_TYPES = {"float32": False, "bfloat16": True, "auto": None}
_INSTEAD = {
    "backend": "pass runtime to the stage",
    "cache_dir": "pass cache_dir to the stage",
    "cache_folder": "pass cache_dir to the stage",
    "default_prompt_name": "pass prompt_name to the stage",
    "device": "set CUDA_VISIBLE_DEVICES for the process",
    "device_map": "set CUDA_VISIBLE_DEVICES for the process",
    "local_files_only": "set HF_HUB_OFFLINE=1 in the environment, or pass a directory",
    "model_max_length": "pass max_seq_length to the stage",
    "padding_side": "pass padding_side to the stage",
    "prompts": "pass prompt to the stage",
    "token": "pass hf_token to the stage",
    "truncate_dim": "pass truncate_dim to the stage",
    "use_auth_token": "pass hf_token to the stage",
}


def apply_arguments(stage: Any) -> None:
    """Set the parameters that a new stage's ``transformers_init_kwargs`` stands for, and the argument to None.

    Raises
    ------
    ConfigError
        An argument has no meaning here, or contradicts a parameter of the stage.
    """
    given = stage.transformers_init_kwargs
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise ConfigError(f"transformers_init_kwargs={given!r:.80} must be a dict of arguments")
    declared = {original_name(item): item for item in fields(stage)}
    for name, value in _translate(given).items():
        if name in declared:  # the tokenizer stage has no number type
            _set(stage, declared[name], value)
    object.__setattr__(stage, "transformers_init_kwargs", None)


def _translate(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that arguments stand for, by their names in `settings`."""
    found = {name: given[name] for name in _SAME if name in given}
    if len({_autocast(name, given[name]) for name in _DTYPE if name in given}) > 1:
        raise ConfigError(
            "transformers_init_kwargs has dtype and torch_dtype, which contradict each other; pass one of them"
        )
    for name, value in given.items():
        if name in _DTYPE:
            autocast = _autocast(name, value)
            found |= {} if autocast is None else {"autocast": autocast}
        elif name not in _SAME and not (name in _NO_EFFECT and value in _NO_EFFECT[name]):
            raise _refusal(name)
    return found


def _refusal(name: str) -> ConfigError:
    if name in _NO_EFFECT:
        return ConfigError(
            f"this value of transformers_init_kwargs[{name!r}] is not supported; leave it out, or pass one of "
            f"{', '.join(map(str, _NO_EFFECT[name]))}, which have no effect"
        )
    advice = _INSTEAD.get(name, f"leave it out; {', '.join((*_SAME, 'dtype', *_NO_EFFECT))} are accepted")
    return ConfigError(f"transformers_init_kwargs cannot have {name!r}: {advice}")


def _autocast(name: str, value: Any) -> bool | None:
    number = str(value).removeprefix("torch.")
    if number not in _NUMBER_TYPES:
        raise ConfigError(
            f"transformers_init_kwargs[{name!r}]={value!r:.80} is not supported: leave it out for float16 "
            "or bfloat16 where the hardware has it, or pass 'float32'"
        )
    return _NUMBER_TYPES[number]


def _set(stage: Any, item: Field[Any], value: Any) -> None:
    current = getattr(stage, item.name)
    if current not in (item.default, value):
        raise ConfigError(
            f"{item.name}={current!r} and transformers_init_kwargs, which means {item.name}={value!r}, "
            "contradict each other; pass one of them"
        )
    object.__setattr__(stage, item.name, value)
