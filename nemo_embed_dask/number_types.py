"""The number types, widths and ranges of stored vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# The lowest and the highest value of every dimension; one such pair for each width of vectors.
Range = tuple[tuple[float, ...], tuple[float, ...]]
Ranges = tuple[Range, ...]
NumberType = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]


@dataclass(frozen=True, repr=False)
class Calibration:
    """The content of a calibration file, which a stage holds instead of the file's path.

    Attributes
    ----------
    ranges : tuple
        One pair (lowest values, highest values) per width.
    made_for : tuple of (str, str)
        What decides the vectors that they were found in, as pairs of a name and its value: see
        `engine.calibrated.vector_source`.
    """

    ranges: Ranges
    made_for: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"Calibration(widths={tuple(len(low) for low, _ in self.ranges)})"


@dataclass(frozen=True)
class Output:
    """A column of vectors: its name, width (None: the model's) and number type (a key of `DTYPES`)."""

    name: str
    dim: int | None = None
    dtype: str = "float32"
