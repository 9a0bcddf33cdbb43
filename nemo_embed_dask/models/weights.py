"""Load the weights in a model's directory as a transformers model on the CPU."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..errors import ConfigError, ModelError
from .files import check_weights
from .json_files import read_json
from .sentence_transformers import load_failure

# Encoder-decoder models, of which only the encoder is loaded, as in sentence-transformers.
_ENCODERS = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "longt5": "LongT5EncoderModel",
    "switch_transformers": "SwitchTransformersEncoderModel",
}


def load_weights(path: Path, dtype: torch.dtype, adapter: str | None = None) -> nn.Module:
    """Load the transformer in a model's directory, on the CPU; of an encoder-decoder only the encoder.

    Parameters
    ----------
    path : Path
        A directory with config.json and safetensors files.
    dtype : torch.dtype
    adapter : str, optional
        A directory with a PEFT adapter. It is merged into the weights in float32, before they are converted.

    Raises
    ------
    ModelError
        Weights are missing, pickled or quantized, transformers does not know the model, the model needs
        custom code, or the adapter cannot be read.
    """
    if adapter is not None:
        return _merge_adapter(load_weights(path, torch.float32), adapter).to(dtype)
    config = load_config(path)
    loader, model_class = find_classes(path, config)
    # The pooler computes a vector that is not used here.
    has_pooler = "add_pooling_layer" in inspect.signature(model_class).parameters
    options = {"add_pooling_layer": False} if has_pooler else {}
    with _silent_transformers():
        model, report = loader.from_pretrained(
            str(path),
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise ModelError(
            f"{path} lacks weights that {type(model).__name__} needs, such as {missing[:3]}; "
            "they would be random: fetch the model again"
        )
    model.config.use_cache = False
    return cast("nn.Module", model.eval())


def load_config(path: Path) -> Any:
    """Load the configuration of a model that this package can run; raises ModelError for others."""
    import transformers

    check_weights(path)
    try:
        # Without trust_remote_code transformers asks on standard input whether to run the model's code.
        config = transformers.AutoConfig.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
    except ValueError as error:
        raise _unknown_model(path, load_failure(error, path / "config.json")) from error
    attention = str(config._attn_implementation)
    if "/" in attention:
        raise ModelError(
            f"{path} names an attention kernel on the hub ({attention!r}), and such code is never run: remove "
            "attn_implementation from its config.json"
        )
    if getattr(config, "quantization_config", None):
        raise ModelError(f"{path} has quantized weights, which are not supported; use the model's full weights")
    return config


def find_classes(path: Path, config: Any) -> tuple[Any, Any]:
    """Return the class that loads a model with this configuration, and the class of the loaded model."""
    import transformers

    if config.model_type in _ENCODERS:
        encoder = getattr(transformers, _ENCODERS[config.model_type])
        return encoder, encoder
    model_class = transformers.MODEL_MAPPING.get(type(config), None)
    if model_class is None:
        raise _unknown_model(path, f"it has no model for the type {config.model_type!r}")
    return transformers.AutoModel, model_class


def _unknown_model(path: Path, why: str) -> ModelError:
    import transformers

    return ModelError(
        f"transformers {transformers.__version__} does not know the model in {path}, and a model's own code is "
        f"never run: use a model that transformers knows, or a newer transformers ({why})"
    )


def _merge_adapter(model: nn.Module, adapter: str) -> nn.Module:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ConfigError("adapter= needs peft: pip install 'nemo-embed-dask[peft]'") from error
    _check_adapter(adapter)
    try:
        adapted = PeftModel.from_pretrained(cast("Any", model), adapter, trust_remote_code=False)
        return cast("nn.Module", adapted.merge_and_unload().eval())
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ModelError(
            f"adapter={adapter!r} cannot be read and merged ({load_failure(error)}): use an adapter that peft "
            "can merge into this model, such as LoRA"
        ) from error


def _check_adapter(adapter: str) -> None:
    if not (Path(adapter) / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"adapter={adapter!r} has no adapter_model.safetensors; pass a directory with adapter_config.json "
            "and adapter_model.safetensors"
        )
    if read_json(Path(adapter) / "adapter_config.json").get("megatron_config"):
        raise ModelError(
            f"adapter={adapter!r} names a module to import (megatron_core), and such code is never run: "
            "remove megatron_config from its adapter_config.json"
        )


@contextmanager
def _silent_transformers() -> Iterator[None]:
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
