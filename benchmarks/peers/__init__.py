"""The peers of the CPU benchmark. A peer loads its model once and then embeds lists of texts.

A new peer is one row in `PEERS`. All peers get the same texts in one call and return one vector of unit length
per text. The first row of the table is the reference for the others.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Output:
    """Vectors, float32 ``[n, d]``, and what the peer measured; None for what it does not measure.

    ``padded``: tokens given to the model, with padding. Times are in seconds. ``seconds``: the time to report,
    if the call also did other work.
    """

    vectors: np.ndarray
    padded: int | None = None
    tokenize_s: float | None = None
    model_s: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Peer:
    """A module of this package, options of its function ``load``, and the dtype of its matrix products."""

    module: str
    dtype: str
    options: dict[str, Any] = field(default_factory=dict)

    def load(self) -> Callable[[list[str]], Output]:
        """Load the model, and return the function that embeds texts."""
        load = importlib.import_module(f"{__name__}.{self.module}").load
        return load(dtype=self.dtype, **self.options)


REFERENCE = "sentence-transformers float32"
PEERS = {
    REFERENCE: Peer("sentence_transformers", "float32", {"batch_size": 32}),
    "sentence-transformers bfloat16": Peer("sentence_transformers", "bfloat16", {"batch_size": 16}),
    "openvino float32": Peer("openvino", "float32"),
    "openvino bfloat16": Peer("openvino", "bfloat16"),
    "curator's algorithm": Peer("curator", "bfloat16"),
    "ours float32, engine": Peer("ours", "float32", {"mode": "engine"}),
    "ours float32, dask threads": Peer("ours", "float32", {"mode": "threads"}),
    "ours float32, engine on openvino": Peer("ours", "float32", {"mode": "engine", "runtime": "openvino"}),
    "ours bfloat16, engine": Peer("ours", "bfloat16", {"mode": "engine"}),
    "ours bfloat16, engine on openvino": Peer("ours", "bfloat16", {"mode": "engine", "runtime": "openvino"}),
    "ours bfloat16, dask threads": Peer("ours", "bfloat16", {"mode": "threads"}),
    "ours bfloat16, dask cluster": Peer("ours", "bfloat16", {"mode": "cluster"}),
}
