"""How vectors are stored: width and number type. Pure torch: knows no model and no column.

Types have sentence-transformers' meaning: ``int8`` and ``uint8`` cut each dimension's range, known from a
calibration sample, into 255 steps; ``binary`` and ``ubinary`` keep a bit a dimension, eight to a byte.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from ..errors import ConfigError
from ..settings import Output, Range, Ranges


def _scaled(matrix: Tensor, ranges: Tensor) -> Tensor:
    low = ranges[0]
    step = (ranges[1] - low).div(255)
    return matrix.sub(low).div(step.where(step != 0, 1.0)).floor().clamp(0, 255)


def _bits(matrix: Tensor) -> Tensor:
    bits = pad((matrix > 0).to(torch.int16), (0, -matrix.shape[1] % 8))
    weights = 2 ** torch.arange(7, -1, -1, device=matrix.device, dtype=torch.int16)
    return bits.view(len(bits), bits.shape[1] // 8, 8).mul(weights).sum(2, dtype=torch.int16)


# dtype -> how a float32 matrix and its ranges become it.
DTYPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "float32": lambda matrix, _: matrix,
    "float16": lambda matrix, _: matrix.half(),
    "int8": lambda matrix, ranges: (_scaled(matrix, ranges) - 128).to(torch.int8),
    "uint8": lambda matrix, ranges: _scaled(matrix, ranges).to(torch.uint8),
    "binary": lambda matrix, _: (_bits(matrix) - 128).to(torch.int8),
    "ubinary": lambda matrix, _: _bits(matrix).to(torch.uint8),
}
CALIBRATED = ("int8", "uint8")
BITS = {"float32": 32, "float16": 16, "int8": 8, "uint8": 8, "binary": 1, "ubinary": 1}


def store(matrix: Tensor, output: Output, *, unit: bool, ranges: Ranges = ()) -> Tensor:
    """A float32 matrix as it is stored.

    Parameters
    ----------
    matrix : Tensor of float32, shape (n, d)
    output : Output
        ``dim``: how many leading dimensions are kept (Matryoshka); ``dtype``: a key of `DTYPES`.
    unit : bool
        Whether a shortened vector is scaled to unit length again.
    ranges : Ranges
        For int8 and uint8: lowest and highest value of each dimension, for vectors of that width.

    Returns
    -------
    Tensor of shape (n, dim); for binary and ubinary (n, ceil(dim / 8))
    """
    full = matrix.shape[1]
    dim = output.dim or full
    if dim > full:
        raise ConfigError(f"truncate_dim={dim} exceeds the model's {full} dimensions; pass at most that")
    if dim < full:
        matrix = normalize(matrix[:, :dim], dim=1) if unit else matrix[:, :dim].contiguous()
    return DTYPES[output.dtype](matrix, _ranges(output, dim, ranges, matrix.device))


def _ranges(output: Output, dim: int, ranges: Ranges, device: torch.device) -> Tensor:
    if output.dtype not in CALIBRATED:
        return torch.empty(0)
    found = next((pair for pair in ranges if len(pair[0]) == dim), None)
    if found is None:
        raise ConfigError(
            f"column {output.name!r} as {output.dtype} needs the ranges of its {dim} dimensions; make them "
            "from a sample with calibrate(stage, texts, path), and pass calibration=path"
        )
    return torch.tensor(found, dtype=torch.float32, device=device)


def find_ranges(matrix: Tensor) -> Range:
    """Lowest and highest value of each dimension of a float32 ``[n, d]`` sample; ``n`` at least 2."""
    if len(matrix) < 2:
        raise ConfigError(f"{len(matrix)} vectors have no range to calibrate from; pass at least 100 texts")
    return tuple(matrix.amin(0).tolist()), tuple(matrix.amax(0).tolist())


def parse_output(text: str) -> Output:
    """An extra output as users write it: ``name:dtype`` or ``name:dim:dtype``, "embeddings_256_int8:256:int8".

    Raises
    ------
    ConfigError
        It is written otherwise, or the dtype is unknown.
    """
    name, *rest = text.split(":")
    dim = rest[0] if len(rest) == 2 else None
    if not name or len(rest) not in (1, 2) or rest[-1] not in DTYPES or (dim and not dim.isdecimal()):
        raise ConfigError(
            f"extra_embeddings: {text!r} is not 'name:dtype' or 'name:dim:dtype'; "
            f"dtypes are {', '.join(DTYPES)}"
        )
    return Output(name, int(dim) if dim else None, rest[-1])


def save_ranges(path: str | Path, ranges: Ranges, *, rows: int, model: str) -> None:
    """Write a calibration: each dimension's range at each width, and which sample it is from."""
    record = {"model": model, "rows": rows, "ranges": ranges}
    Path(path).write_text(json.dumps(record), encoding="utf-8")


@dataclass(frozen=True, repr=False)
class Calibration:
    """The content of a calibration file: what a stage holds in place of the file's path.

    ``ranges``: one pair (lowest values, highest values) for each width.
    """

    ranges: Ranges

    def __repr__(self) -> str:
        return f"Calibration(widths={tuple(len(low) for low, _ in self.ranges)})"


def load_calibration(given: str | os.PathLike[str] | Calibration) -> Calibration:
    """Return a calibration as it is, or read it from its file.

    Raises
    ------
    ConfigError
        The file is missing or no calibration.
    """
    return given if isinstance(given, Calibration) else Calibration(load_ranges(given))


def load_ranges(path: str | os.PathLike[str]) -> Ranges:
    """Read what `save_ranges` wrote.

    Raises
    ------
    ConfigError
        The file is missing or no calibration.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        return tuple(_range(low, high) for low, high in record["ranges"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"calibration={str(path)!r} cannot be read ({type(error).__name__}: {error}); "
            "write it with calibrate(stage, texts, path)"
        ) from error


def _range(low: list[float], high: list[float]) -> Range:
    lowest, highest = tuple(map(float, low)), tuple(map(float, high))
    pairs = zip(lowest, highest, strict=True)
    if not all(math.isfinite(a) and math.isfinite(b) and a <= b for a, b in pairs):
        raise ValueError("a range is not finite, or its lowest value exceeds its highest")
    return lowest, highest
