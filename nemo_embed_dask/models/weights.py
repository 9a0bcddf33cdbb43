"""Load the weights in a model's directory as a transformers model on the CPU."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..errors import ModelError
from .adapter import merge_adapter
from .ignored_settings import find_ignored_settings
from .json_files import read_json
from .kinds import load_failure
from .limits import POSITIONS_AFTER_PADDING
from .load_failures import class_in_transformers, damaged_model, other_ways, unknown_model
from .names import model_name
from .pickled import weight_arguments
from .remote_code import CustomCode, custom_class, is_custom, rebuild
from .renamed import rename_settings
from .unused_weights import unused_weights
from .weight_files import check_weights, is_pickled

# Encoder-decoder models, of which only the encoder is loaded, as in sentence-transformers.
_ENCODERS = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "longt5": "LongT5EncoderModel",
    "switch_transformers": "SwitchTransformersEncoderModel",
}


def load_weights(
    path: Path, dtype: torch.dtype, adapter: Path | None = None, *, code: CustomCode = ()
) -> nn.Module:
    """Load the transformer in a model's directory, on the CPU; of an encoder-decoder only the encoder.

    Parameters
    ----------
    path : Path
        A directory with config.json and weights.
    dtype : torch.dtype
    adapter : Path, optional
        A directory with a PEFT adapter. It is merged into the weights in float32, before they are converted.
    code : CustomCode
        The classes of the model's own code, if the user trusts it.

    Raises
    ------
    ModelError
        Weights are missing, left over, quantized or not only weights, transformers does not know or cannot load
        the model, the model needs custom code, or the adapter does not fit.
    """
    if adapter is not None:
        return merge_adapter(load_weights(path, torch.float32, code=code), adapter).to(dtype)
    config = load_config(path, code)
    model, report = _load_model(path, config, dtype, code)
    if not is_custom(model):
        _check_settings(path, config, model, code)
    _check_report(path, model, report, code)
    model.config.use_cache = False
    return cast("nn.Module", model.eval())


def _load_model(path: Path, config: Any, dtype: torch.dtype, code: CustomCode) -> tuple[Any, dict[str, Any]]:
    """Return the model, and transformers' report of the weights that it lacks or does not use."""
    loader, model_class = find_classes(path, config, code)
    # The pooler computes a vector that is not used here.
    has_pooler = "add_pooling_layer" in inspect.signature(model_class).parameters
    without_pooler = {"add_pooling_layer": False} if has_pooler else {}
    loader = model_class if is_pickled(path) else loader  # AutoModel needs a directory
    try:
        with silent_transformers():
            model, report = loader.from_pretrained(
                config=config,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # the report lists them, and `_check_report` refuses them
                **weight_arguments(path),
                **without_pooler,
            )
            model = rebuild(model, dtype, **without_pooler) if is_custom(model) else model
    except (ModelError, MemoryError, torch.OutOfMemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # any class can fail at a wrong value, and a model's own code can exit
        raise damaged_model(path, error, code) from error
    model.name_or_path = str(path)
    return model, report


def _check_settings(path: Path, config: Any, model: nn.Module, code: CustomCode) -> None:
    ignored = find_ignored_settings(config, model)
    if ignored:
        raise ModelError(
            f"model {model_name(path)!r} has {ignored[0]} in its config.json, which "
            f"{class_in_transformers(model)} ignores, so its vectors would be wrong: {other_ways(path, code)}"
        )


def _check_report(path: Path, model: Any, report: dict[str, Any], code: CustomCode) -> None:
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelError(
            f"model {model_name(path)!r} lacks weights that {type(model).__name__} needs, such as "
            f"{missing[:3]}; they would be random: {other_ways(path, code, 'fetch the model again')}"
        )
    mismatched = sorted(str(key) for key, *_shapes in report["mismatched_keys"])
    if mismatched:
        raise ModelError(
            f"model {model_name(path)!r} has weights whose shapes differ from its config.json, such as "
            f"{mismatched[:3]}: the two belong to different models; fetch the model again"
        )
    unused = unused_weights(path, model, report["unexpected_keys"])
    if unused:
        raise ModelError(
            f"model {model_name(path)!r} has weights that {class_in_transformers(model)} does not use, such "
            f"as {unused[:3]}: without them its vectors would be wrong. Use a model of a known architecture"
        )


def load_config(path: Path, code: CustomCode = ()) -> Any:
    """Load the configuration of a model that this package can run; raises ModelError for others."""
    import transformers

    check_weights(path)
    loader = custom_class(code, "AutoConfig") or transformers.AutoConfig
    renamed = rename_settings(read_json(path / "config.json")) if loader is transformers.AutoConfig else None
    try:
        if renamed is not None:
            config: Any = transformers.AutoConfig.for_model(**renamed)
        else:
            # Without trust_remote_code transformers asks on standard input whether to run the model's code.
            config = loader.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except (ModelError, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # any class can fail at a wrong value, and a model's own code can exit
        if isinstance(error, ValueError) and loader is transformers.AutoConfig:
            raise unknown_model(path, load_failure(error, path / "config.json"), code) from error
        raise damaged_model(path, error, code) from error
    _check_architecture(path, config)
    attention = str(config._attn_implementation)
    if "/" in attention:
        raise ModelError(
            f"model {model_name(path)!r} names an attention kernel on the hub ({attention!r}), and such code "
            "is never run: remove attn_implementation from its config.json"
        )
    if getattr(config, "quantization_config", None):
        raise ModelError(
            f"model {model_name(path)!r} has quantized weights, which are not supported; use its full weights"
        )
    return config


def _check_architecture(path: Path, config: Any) -> None:
    """Refuse a type that contradicts the class of the weights, if positions are counted differently in the two.

    The weights of BERT and RoBERTa have the same names and shapes.
    """
    import transformers

    name = next(iter(config.architectures or []), "")
    saved_type = getattr(getattr(getattr(transformers, name, None), "config_class", None), "model_type", None)
    types = {saved_type or config.model_type, config.model_type}
    if 0 < len(types & POSITIONS_AFTER_PADDING) < len(types):
        raise ModelError(
            f"model {model_name(path)!r} has model_type={config.model_type!r} in its config.json, but its "
            f"weights are those of {name}, which counts positions in another way: correct the file"
        )


def find_classes(path: Path, config: Any, code: CustomCode = ()) -> tuple[Any, Any]:
    """Return the class that loads a model with this configuration, and the class of the loaded model."""
    import transformers

    own_class = custom_class(code, "AutoModel")
    if own_class is not None:
        return own_class, own_class
    if config.model_type in _ENCODERS:
        encoder = getattr(transformers, _ENCODERS[config.model_type])
        return encoder, encoder
    model_class: Any = transformers.MODEL_MAPPING.get(type(config), None)
    if model_class is None:
        raise unknown_model(path, f"it has no model for the type {config.model_type!r}", code)
    if isinstance(model_class, tuple):  # Funnel has two: AutoModel takes the one that the configuration names
        named = [one for one in model_class if one.__name__ in (config.architectures or [])]
        model_class = (named or model_class)[0]
    return transformers.AutoModel, model_class


@contextmanager
def silent_transformers() -> Iterator[None]:
    """Turn off the progress bar and the report that transformers prints at every load."""
    from transformers.utils import logging

    level, bar_enabled = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar_enabled:
            logging.enable_progress_bar()
