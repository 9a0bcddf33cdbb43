"""The GPU benchmark: phases, and what they share.

A phase is a module with

- ``jobs()``: each peer with its default cases, such as the names of corpora;
- ``load(peer, options)``: load a peer, and return a function that measures one case and returns its `Run`;
- ``START_S`` and ``case_s(options)``: about how long a process needs to load a peer, and to measure a case.

Each peer runs in a process of its own (`processes`, `worker`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.names import MINILM
from nemo_embed_dask.settings import Settings

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SETTINGS = Settings(ModelRef(MINILM))
Run = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What all phases of a measurement share.

    ``scale``: fraction of the rows. ``seconds``: the least time of a measured run. ``folder``: where the
    processes of one measurement exchange files.
    """

    scale: float
    seconds: float
    folder: Path

    def to_json(self) -> Run:
        """Return the fields as values of JSON."""
        return asdict(self) | {"folder": str(self.folder)}
