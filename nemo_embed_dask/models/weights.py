"""A model directory's weights as a transformers model on the CPU. Knows no tokens and no batch."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..errors import ConfigError, ModelError
from .sentence_transformers import read_json, reason

# Encoder halves of encoder-decoders, as sentence-transformers picks them.
_ENCODERS = {
    "t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel",
    "longt5": "LongT5EncoderModel", "switch_transformers": "SwitchTransformersEncoderModel",
}  # fmt: skip


def load_weights(path: Path, dtype: torch.dtype, adapter: str | None = None) -> nn.Module:
    """Load a model directory's transformer in ``dtype``, on the CPU; an encoder-decoder's encoder only.

    Parameters
    ----------
    path : Path
        A directory with config.json and safetensors.
    dtype : torch.dtype
    adapter : str, optional
        A directory with a PEFT adapter, which is merged into the weights in float32 first.

    Raises
    ------
    ModelError
        Weights are missing, pickled or quantized, transformers does not know the model, it needs code of its
        own, or the adapter cannot be read.
    """
    if adapter is not None:
        return _merged(load_weights(path, torch.float32), adapter).to(dtype)

    import transformers

    config = _config(path)
    name = _ENCODERS.get(config.model_type)
    factory = getattr(transformers, name) if name else transformers.AutoModel
    target = factory if name else transformers.MODEL_MAPPING.get(type(config), None)
    if target is None:
        raise _unknown(path, f"it has no model for the type {config.model_type!r}")
    pooler = "add_pooling_layer" in inspect.signature(cast("Any", target)).parameters
    with _quiet():
        model, report = factory.from_pretrained(
            str(path), dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False,
            output_loading_info=True, **({"add_pooling_layer": False} if pooler else {}),
        )  # fmt: skip
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise ModelError(
            f"{path} lacks weights that {type(model).__name__} needs, such as {missing[:3]}; "
            "they would be random: fetch the model again"
        )
    model.config.use_cache = False
    return cast("nn.Module", model.eval())


def _config(path: Path) -> Any:
    import transformers

    try:
        # Without this keyword transformers asks on standard input whether to run the model's code.
        config = transformers.AutoConfig.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
    except ValueError as error:
        raise _unknown(path, reason(error, path / "config.json")) from error
    attention = str(config._attn_implementation)
    if "/" in attention:
        raise ModelError(
            f"{path} names an attention kernel to fetch from the hub ({attention!r}), and such code is never "
            "run: remove attn_implementation from its config.json"
        )
    if getattr(config, "quantization_config", None):
        raise ModelError(
            f"{path} has quantized weights, which are not supported; take the model's full weights"
        )
    if not any(path.glob("*.safetensors")):
        raise ModelError(
            f"{path} has no safetensors weights, and pickled ones are never loaded: ask its authors for "
            "safetensors, or convert it and pass that directory"
        )
    return config


def _unknown(path: Path, why: str) -> ModelError:
    import transformers

    return ModelError(
        f"transformers {transformers.__version__} does not know the model in {path}, and a model's own code is "
        f"never run: use a model that transformers has, or a newer transformers ({why})"
    )


def _merged(model: nn.Module, adapter: str) -> nn.Module:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ConfigError("adapter= needs peft: pip install 'nemo-embed-dask[peft]'") from error
    if not (Path(adapter) / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"adapter={adapter!r} is no directory with adapter_config.json and adapter_model.safetensors"
        )
    if read_json(Path(adapter) / "adapter_config.json").get("megatron_config"):
        raise ModelError(
            f"adapter={adapter!r} names a module to import (megatron_core), which is never done: remove "
            "megatron_config from its adapter_config.json"
        )
    try:
        adapted = PeftModel.from_pretrained(cast("Any", model), adapter, trust_remote_code=False)
        return cast("nn.Module", adapted.merge_and_unload().eval())
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ModelError(
            f"adapter={adapter!r} cannot be read and merged ({reason(error)}): use an adapter that peft can "
            "merge into this model, such as LoRA"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Transformers prints a progress bar and a report for every load; what matters of it we check."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
