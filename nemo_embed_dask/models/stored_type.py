"""The number type in which a transformer's weights are stored."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .json_files import read_json
from .weight_files import weight_files

_TYPES = {"BF16": torch.bfloat16, "F16": torch.float16}


def stored_type(folder: Path) -> torch.dtype:
    """Return bfloat16 or float16 if most weights are stored in it, else float32.

    Only the header of the first weight file is read. For pickled weights it is the type that config.json
    states.
    """
    file = folder / weight_files(folder)[0]
    if file.suffix == ".safetensors":
        return _most_common(file)
    config = read_json(folder / "config.json")
    stated = str(config.get("dtype") or config.get("torch_dtype"))
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(stated, torch.float32)


def _most_common(file: Path) -> torch.dtype:
    values: Counter[str] = Counter()
    try:
        with safe_open(file, framework="np") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no dictionary
                tensor: Any = opened.get_slice(name)
                values[str(tensor.get_dtype())] += math.prod(tensor.get_shape())
    except (SafetensorError, OSError):  # loading the weights reports it
        return torch.float32
    return _TYPES.get(max(values, key=values.__getitem__, default=""), torch.float32)
