"""Number types and widths of stored vectors, and the calibration that int8 and uint8 need.

The types are those of sentence-transformers. ``int8`` and ``uint8`` divide each dimension's range, known from
a calibration sample, into 255 steps; ``binary`` and ``ubinary`` keep one bit per dimension, eight per byte.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ConfigError
from ..number_types import Calibration, Output, Range, Ranges


def _range_steps(matrix: Tensor, ranges: Tensor) -> Tensor:
    """Return the step of its dimension's range that each value lies in, 0 to 255, as float32."""
    low = ranges[0]
    step = (ranges[1] - low).div(255)
    return matrix.sub(low).div(step.where(step != 0, 1.0)).floor().clamp(0, 255)


def _packed_signs(matrix: Tensor) -> Tensor:
    """Return one bit per value, set if it is positive, eight to a byte, as int16 from 0 to 255."""
    bits = functional.pad((matrix > 0).to(torch.int16), (0, -matrix.shape[1] % 8))
    weights = 2 ** torch.arange(7, -1, -1, device=matrix.device, dtype=torch.int16)
    return bits.view(len(bits), bits.shape[1] // 8, 8).mul(weights).sum(2, dtype=torch.int16)


# Number type -> function of a float32 matrix and its ranges, ``[2, d]``, which only int8 and uint8 use.
DTYPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "float32": lambda matrix, _: matrix,
    "float16": lambda matrix, _: matrix.half(),
    "int8": lambda matrix, ranges: (_range_steps(matrix, ranges) - 128).to(torch.int8),
    "uint8": lambda matrix, ranges: _range_steps(matrix, ranges).to(torch.uint8),
    "binary": lambda matrix, _: (_packed_signs(matrix) - 128).to(torch.int8),
    "ubinary": lambda matrix, _: _packed_signs(matrix).to(torch.uint8),
}
# If the largest value of a vector is smaller, float16 rounds it by more than 0.2 %, and at 3e-8 to zero.
_SMALLEST_FLOAT16 = 2**-16
CALIBRATED = ("int8", "uint8")
# Bits per dimension.
BITS = {"float32": 32, "float16": 16, "int8": 8, "uint8": 8, "binary": 1, "ubinary": 1}


def quantize(matrix: Tensor, output: Output, *, normalize: bool, ranges: Ranges = ()) -> Tensor:
    """Shorten vectors and convert them to the number type in which they are stored.

    Parameters
    ----------
    matrix : Tensor of float32, shape (n, d)
    output : Output
        ``dim``: how many leading dimensions to keep (Matryoshka); ``dtype``: a key of `DTYPES`.
    normalize : bool
        Scale shortened vectors to unit length again.
    ranges : Ranges
        For int8 and uint8: the lowest and highest value of each dimension of vectors of that width.

    Returns
    -------
    Tensor of shape (n, dim); for binary and ubinary (n, ceil(dim / 8))

    Raises
    ------
    ConfigError
        The vectors have fewer dimensions than ``dim``, or there are no ranges for vectors of this width.
    """
    full = matrix.shape[1]
    dim = output.dim or full
    if dim > full:
        raise ConfigError(f"truncate_dim={dim} exceeds the model's {full} dimensions; pass at most {full}")
    if dim < full:
        matrix = matrix[:, :dim]
        matrix = functional.normalize(matrix, dim=1) if normalize else matrix.contiguous()
    return DTYPES[output.dtype](matrix, _ranges_of_width(output, dim, ranges, matrix.device))


def lost_vectors(
    matrix: Tensor, stored: Tensor, advice: str = "store float32, or pass normalize=True"
) -> dict[int, str]:
    """Return the rows that float16 cannot hold, and the reason for each; empty for other number types.

    Parameters
    ----------
    matrix : Tensor of float32, shape (n, d)
    stored : Tensor, shape (n, dim)
        What `quantize` returned for it. If it is float16, this waits for the device.
    advice : str
        What to do, for the reasons.
    """
    if stored.dtype != torch.float16 or not stored.numel():
        return {}
    # As a norm, the largest value needs no copy of the matrix.
    exact = torch.linalg.vector_norm(matrix[:, : stored.shape[1]], math.inf, dim=1)
    largest = torch.linalg.vector_norm(stored, math.inf, dim=1)
    lost = largest.isinf() | ((largest < _SMALLEST_FLOAT16) & (exact > 0))
    return {
        row: f"float16 cannot hold a vector whose largest value is {exact[row]:.3g}; {advice}"
        for row in lost.nonzero()[:, 0].tolist()
    }


def _ranges_of_width(output: Output, dim: int, ranges: Ranges, device: torch.device) -> Tensor:
    """Return the ranges of vectors with ``dim`` dimensions, ``[2, dim]``; empty for types that need none."""
    if output.dtype not in CALIBRATED:
        return torch.empty(0)
    for lowest, highest in ranges:
        if len(lowest) == dim:
            return torch.tensor((lowest, highest), dtype=torch.float32, device=device)
    raise ConfigError(
        f"column {output.name!r} as {output.dtype} needs the ranges of its {dim} dimensions{_widths(ranges)}; "
        "make them from a sample with calibrate(stage, texts, path), and pass calibration=path"
    )


def _widths(ranges: Ranges) -> str:
    widths = ", ".join(str(len(lowest)) for lowest, _ in ranges)
    return f", and the calibration has those of {widths}" if ranges else ""


def find_ranges(matrix: Tensor) -> Range:
    """Return the lowest and highest values of each dimension of a float32 ``[n, d]`` sample.

    Raises
    ------
    ConfigError
        The sample has fewer than two vectors.
    """
    if len(matrix) < 2:
        raise ConfigError(
            f"calibration needs at least 2 vectors and the sample has {len(matrix)}; pass at least 100 texts"
        )
    return tuple(matrix.amin(0).tolist()), tuple(matrix.amax(0).tolist())


def parse_output(text: str) -> Output:
    """Parse an item of ``extra_embeddings``.

    ``name:dtype`` or ``name:dim:dtype``, such as "embeddings_256_int8:256:int8".

    Raises
    ------
    ConfigError
        The text has another form, or the dtype is unknown.
    """
    name, *rest = text.split(":")
    dim = rest[0] if len(rest) == 2 else None
    if not name or len(rest) not in (1, 2) or rest[-1] not in DTYPES or (dim and not dim.isdecimal()):
        raise ConfigError(
            f"extra_embeddings: {text!r} is not 'name:dtype' or 'name:dim:dtype'; "
            f"dtypes are {', '.join(DTYPES)}"
        )
    return Output(name, int(dim) if dim else None, rest[-1])


def save_calibration(path: str | Path, calibration: Calibration, *, rows: int, model: str) -> None:
    """Write a calibration file, with the name of the model and the size of the sample for its reader."""
    record = {
        "model": model,
        "rows": rows,
        "made_for": dict(calibration.made_for),
        "ranges": calibration.ranges,
    }
    Path(path).write_text(json.dumps(record), encoding="utf-8")


def load_calibration(given: str | os.PathLike[str] | Calibration) -> Calibration:
    """Return a calibration as it is, or read it from its file.

    Raises
    ------
    ConfigError
        The file is missing, is not a calibration file, or does not say what it is for.
    """
    if isinstance(given, Calibration):
        return given
    try:
        record = json.loads(Path(given).read_text(encoding="utf-8"))
        ranges = tuple(_checked_range(low, high) for low, high in record["ranges"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"calibration={str(given)!r} cannot be read ({type(error).__name__}: {error}); "
            "write it with calibrate(stage, texts, path)"
        ) from error
    made_for = record.get("made_for")
    if not isinstance(made_for, dict):
        raise ConfigError(
            f"calibration={str(given)!r} does not say which model and settings it is for, as files of older "
            "versions, and cannot be checked; write it again with calibrate(stage, texts, path)"
        )
    return Calibration(ranges, tuple((str(name), str(value)) for name, value in made_for.items()))


def _checked_range(low: list[float], high: list[float]) -> Range:
    """Return a range as tuples of floats, or raise ValueError if it is not one."""
    lowest, highest = tuple(map(float, low)), tuple(map(float, high))
    pairs = zip(lowest, highest, strict=True)
    if not all(math.isfinite(a) and math.isfinite(b) and a <= b for a, b in pairs):
        raise ValueError("a range is not finite, or its lowest value is greater than its highest")
    return lowest, highest
