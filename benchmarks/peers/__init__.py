"""Who is measured. A peer is a function made once (model loaded), then called with texts.

A new peer is one row in `PEERS`. All of them get the same texts, in one call, and return one vector a
text, of unit length; the first row of the table is the reference that the others are compared with.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Output:
    """Vectors float32 ``[n, d]``; what the peer tells of itself, None where it tells nothing.

    ``padded``: tokens given to the model, padding included. Times in seconds; ``seconds``: the whole, where
    not all of the call is the peer's work.
    """

    vectors: np.ndarray
    padded: int | None = None
    tokenize_s: float | None = None
    model_s: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Peer:
    """``module`` here, whose ``load(**options)`` gives the function; ``dtype`` of its matmuls."""

    module: str
    dtype: str
    options: dict[str, Any] = field(default_factory=dict)

    def load(self) -> Callable[[list[str]], Output]:
        """Load the model; the function that embeds texts."""
        load = importlib.import_module(f"{__name__}.{self.module}").load
        return load(dtype=self.dtype, **self.options)


REFERENCE = "sentence-transformers float32"
PEERS = {
    REFERENCE: Peer("sentence_transformers", "float32", {"batch_size": 32}),
    "sentence-transformers bfloat16": Peer("sentence_transformers", "bfloat16", {"batch_size": 16}),
    "openvino float32": Peer("openvino", "float32"),
    "openvino bfloat16": Peer("openvino", "bfloat16"),
    "curator's algorithm": Peer("curator", "bfloat16"),
    "ours float32, engine": Peer("ours", "float32", {"way": "engine"}),
    "ours float32, dask threads": Peer("ours", "float32", {"way": "threads"}),
    "ours float32, engine on openvino": Peer("ours", "float32", {"way": "engine", "runtime": "openvino"}),
    "ours bfloat16, engine": Peer("ours", "bfloat16", {"way": "engine"}),
    "ours bfloat16, engine on openvino": Peer("ours", "bfloat16", {"way": "engine", "runtime": "openvino"}),
    "ours bfloat16, dask threads": Peer("ours", "bfloat16", {"way": "threads"}),
    "ours bfloat16, dask cluster": Peer("ours", "bfloat16", {"way": "cluster"}),
}
