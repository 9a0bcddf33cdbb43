"""Merge a PEFT adapter into a model. An adapter that does not fit it exactly raises an error."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..errors import ConfigError, ModelError
from .files import ADAPTER_CONFIG, ADAPTER_FILES, adapter_files
from .json_files import JsonObject, read_json
from .kinds import load_failure
from .names import adapter_name, model_file
from .pickled import load_files
from .remote_code import CODE_PACKAGE
from .token_states import token_states
from .unused_weights import is_head
from .weight_files import PICKLED_ADAPTER

_ADVICE = "use an adapter that peft can merge into this model, such as a LoRA trained on it"
_PREFIX = "base_model.model."  # peft writes it before each weight's name


def merge_adapter(model: nn.Module, path: Path) -> nn.Module:
    """Return the model with the adapter merged into its weights.

    Raises
    ------
    ConfigError
        peft is not installed.
    ModelError
        The adapter's files are incomplete, it is of a kind that cannot be merged, or it was trained on another
        model.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ConfigError("an adapter needs peft: pip install 'nemo-embed-dask[peft]'") from error
    adapter = adapter_name(path)
    values = _read_options(adapter, path)
    _check_origin(adapter, values, type(model).__module__)
    try:
        weights = _load_weights(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what peft warns of is checked here
            return _merge(model, adapter, path, values, weights)
    except (ModelError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"adapter={adapter!r} cannot be read and merged ({load_failure(error)}): {_ADVICE}"
        ) from error


def _read_options(adapter: str, path: Path) -> JsonObject:
    """Return the content of adapter_config.json, and check that the adapter's files are complete."""
    for name in adapter_files(path):
        if not (path / name).is_file():
            raise ModelError(f"adapter={adapter!r} has no {name}; pass one with {' and '.join(ADAPTER_FILES)}")
    values = read_json(path / ADAPTER_CONFIG)
    if values.get("megatron_config"):
        raise ModelError(
            f"adapter={adapter!r} names a module to import (megatron_core), and such code is never run: "
            "remove megatron_config from its adapter_config.json"
        )
    return values


def _check_origin(adapter: str, values: JsonObject, module: str) -> None:
    """Compare the model's class with the one that the adapter was trained on; peft does not always name it."""
    trained_on = values.section("auto_mapping").text("parent_library")
    if trained_on in (None, module) or module.startswith(CODE_PACKAGE):
        return
    if trained_on.startswith("transformers."):
        raise ModelError(
            f"adapter={adapter!r} was trained on a model of {trained_on}, not of {module}: {_ADVICE}"
        )
    warnings.warn(
        f"adapter={adapter!r} was trained on a model with custom code ({trained_on}), which is not run; "
        f"{module} is used instead. Compare some vectors with those of its authors",
        stacklevel=2,
    )


def _load_weights(path: Path) -> dict[str, torch.Tensor]:
    from peft import load_peft_weights

    if PICKLED_ADAPTER in adapter_files(path):
        return load_files([path / PICKLED_ADAPTER])
    weights: dict[str, torch.Tensor] = load_peft_weights(str(path), device="cpu")
    return weights


def _merge(
    model: nn.Module, adapter: str, path: Path, values: JsonObject, weights: dict[str, torch.Tensor]
) -> nn.Module:
    from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

    config = _load_config(adapter, path, values)
    fitting = _rename_weights(weights, model)
    if fitting.keys() != weights.keys() and getattr(config, "alpha_pattern", None):
        raise ModelError(
            f"adapter={adapter!r} was trained on a model with a head, and its alpha_pattern names that model's "
            f"modules: {_ADVICE}"
        )
    adapted = PeftModel(cast("Any", model), config)
    missing = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys() - fitting.keys()
    report: Any = set_peft_model_state_dict(adapted, fitting)
    wrong = sorted({*missing, *report.unexpected_keys})
    if wrong:
        raise ModelError(
            f"adapter={adapter!r} does not fit {type(model).__name__}: {len(missing)} weights are missing and "
            f"{len(report.unexpected_keys)} have no place, such as {wrong[:3]}; {_ADVICE}"
        )
    return _merge_exactly(adapted.eval(), adapter)


def _merge_exactly(adapted: Any, adapter: str) -> nn.Module:
    """Merge the weights, and check that the token states stay the same; with replicated layers they do not."""
    before = _probe(adapted.base_model.model)
    merged = cast("nn.Module", adapted.merge_and_unload(safe_merge=True).eval())
    error = (_probe(merged) - before).abs().max()
    if not error <= 1e-3 * before.abs().max():
        raise ModelError(
            f"adapter={adapter!r} gives different token states after merging (by up to {error:.2g}): {_ADVICE}"
        )
    return merged


def _probe(model: nn.Module) -> torch.Tensor:
    ids = torch.arange(2, 10)[None]
    with torch.inference_mode():
        return token_states(model(input_ids=ids, attention_mask=torch.ones_like(ids)))


def _load_config(adapter: str, path: Path, values: JsonObject) -> Any:
    from peft import PeftConfig

    values.require("peft_type", *(("r", "lora_alpha") if values.get("peft_type") == "LORA" else ()))
    config: Any = PeftConfig.from_pretrained(str(path), trust_remote_code=False)
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise ModelError(
            f"adapter={adapter!r} is of the kind {values['peft_type']}, which adds tokens or layers and cannot "
            f"be merged into weights: {_ADVICE}"
        )
    _check_keys(values, config)
    config.inference_mode = True
    return config


def _check_keys(values: JsonObject, config: Any) -> None:
    """Refuse options that this version of peft would ignore, unless they are off."""
    import peft

    known = {field.name for field in dataclasses.fields(config)}
    unknown = sorted(key for key, value in values.items() if value and key not in known)
    if unknown:
        raise ModelError(
            f"{model_file(values.path)} has the option {unknown[0]!r}, which peft {peft.__version__} does not "
            "know and which may change the vectors; install a newer peft"
        )


def _rename_weights(weights: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the adapter's weights with the names that they have without a head, and none of the head's."""
    with_head = f"{_PREFIX}{model.base_model_prefix}."
    if any(name.startswith(with_head) for name in weights) and not hasattr(model, str(model.base_model_prefix)):
        return {
            _PREFIX + name.removeprefix(with_head): weight
            for name, weight in weights.items()
            if name.startswith(with_head)
        }
    return {name: weight for name, weight in weights.items() if not is_head(model, name.removeprefix(_PREFIX))}
