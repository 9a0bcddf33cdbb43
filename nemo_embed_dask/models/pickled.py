"""Read pickled weights (``pytorch_model.bin``) without running the code that a pickle may name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError, type_and_message
from .names import model_file, model_name
from .notices import warn_once
from .weight_files import PICKLED_ADAPTER, is_pickled, weight_files

# The first version of torch whose weights_only=True resists crafted files: CVE-2025-32434 (code is run) is
# fixed in 2.6, and CVE-2026-24747 (memory is overwritten) in 2.10.
_SAFE_SINCE = "2.10"
_ADVICE = (
    "ask its authors for safetensors; or, if you trust the file, load the model with the program that wrote "
    "it, save it as safetensors (save_pretrained), and pass that directory"
)


def load_pickled(folder: Path) -> dict[str, Tensor]:
    """Load the pickled weights of a module's folder on the CPU, by name; raises as `load_files` does."""
    return load_files([folder / name for name in weight_files(folder)])


def load_files(files: Sequence[Path]) -> dict[str, Tensor]:
    """Load the weights in pickled files of one folder on the CPU, by name.

    Raises
    ------
    ModelError
        This version of torch cannot read them safely, a file is damaged, or it holds anything but weights.
    """
    if torch.__version__ < _SAFE_SINCE:  # compared as versions, not as text
        raise ModelError(
            f"{model_file(files[0])} is a pickled file, and torch {torch.__version__} cannot read it safely "
            f"(CVE-2026-24747): upgrade to torch 2.10 or later, or {_ADVICE}"
        )
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= _load_file(file)
    _warn(files[0])
    return tensors


def weight_arguments(folder: Path) -> dict[str, Any]:
    """Return the arguments of ``from_pretrained`` for the weights in a folder; pickled ones are loaded here."""
    if not is_pickled(folder):
        return {"pretrained_model_name_or_path": str(folder)}
    return {"pretrained_model_name_or_path": None, "state_dict": load_pickled(folder)}


def _load_file(file: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged file can raise any type
        raise ModelError(
            f"{model_file(file)} cannot be read as weights alone ({_reason(error)}), and nothing else in a "
            f"pickled file is ever loaded: if it is damaged, fetch the model again; otherwise {_ADVICE}"
        ) from error
    if not isinstance(loaded, dict) or not all(_is_weight(*item) for item in loaded.items()):
        raise ModelError(f"{model_file(file)} holds something other than weights by name: {_ADVICE}")
    return dict(loaded)


def _is_weight(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_complex()
    )


def _reason(error: Exception) -> str:
    """Return the first sentence of an error; of torch's own, which advises to load unsafely, of its context."""
    return re.split(r"\. |\n", type_and_message(error.__context__ or error, 300))[0].rstrip(" .")


def _warn(file: Path) -> None:
    folder = file.parent
    model = folder.parent if (folder.parent / "modules.json").is_file() else folder
    what = "adapter" if file.name == PICKLED_ADAPTER else "model"
    warn_once(
        model,
        what,
        "pickled",
        message=f"{what} {model_name(model)!r} has no safetensors: its pickled weights are read ({file.name}), "
        f"with torch.load(weights_only=True), which runs no code of the file",
    )
