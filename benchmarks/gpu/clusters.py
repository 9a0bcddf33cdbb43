"""Parquet to Parquet through Dask, with 1, 4 and 2 workers that share one device."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from distributed import Client

from nemo_embed_dask import EmbeddingCreatorStage, embed_cluster, to_matrix

from . import DEVICE, Options, Run, clock, peers
from .measure import HEAD, REFERENCE, Prepare, Result, Work, measure_texts

PARTS = 16
# The most important ones first, because a measurement may be stopped.
WORKERS = ((1, 4), (2,))
TOKENIZERS = ("huggingface", "cudf")
# Also the start of a cluster.
START_S = 25.0


def case_s(options: Options) -> float:
    """Return about how long a cluster takes: texts, choice of rows, and two long passes."""
    return 1 + 2.8 * options.seconds


class _Recorders:
    """The recorders of all workers, used like one `clock.Recorder`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def start(self) -> None:
        self._client.run(clock.start)

    def intervals(self) -> list[clock.Interval]:
        return [interval for found in self._client.run(clock.intervals).values() for interval in found]


def _read(path: Path) -> Any:
    if DEVICE.type == "cuda":
        import dask_cudf

        return dask_cudf.read_parquet(path, blocksize=None)
    import dask.dataframe as dd

    return dd.read_parquet(path)


def _peaks() -> tuple[int, int]:
    """Return the peak bytes of torch in this worker, and the bytes in use on its GPU now."""
    if DEVICE.type != "cuda":
        return 0, 0
    free, total = torch.cuda.mem_get_info()
    return torch.cuda.max_memory_allocated(), total - free


def _write(data: list[str], folder: Path) -> Path:
    folder.mkdir()
    for i, rows in enumerate(np.array_split(np.arange(len(data)), PARTS)):
        pd.DataFrame({"text": [data[k] for k in rows]}).to_parquet(folder / f"{i:02}.parquet")
    return folder


def files_to_files(stage: EmbeddingCreatorStage, client: Client, folder: Path) -> Prepare:
    """Embed 16 files to 16 files. Writing the input, and reading the first rows of the output, is not timed."""

    def prepare(data: list[str]) -> Work:
        place = Path(tempfile.mkdtemp(dir=folder))
        source, target = _write(data, place / "in"), place / "out"

        def work() -> Result:
            _read(source).pipe(stage).to_parquet(target)
            return Result(partial(_first_vectors, target))

        return work

    return prepare


def _first_vectors(target: Path) -> torch.Tensor:
    """Return the vectors of at least `HEAD` rows, if there are as many, in the order of the parts."""
    parts: list[pd.DataFrame] = []
    while sum(map(len, parts)) < HEAD and len(parts) < PARTS:
        parts.append(pd.read_parquet(target / f"part.{len(parts)}.parquet"))
    return torch.from_numpy(to_matrix(pd.concat(parts).embeddings).copy())


def _measure(peer: str, workers: int, tokenizer: str, options: Options, corpus: str) -> Run:
    stage = EmbeddingCreatorStage(embedding_pooling="auto", tokenizer=tokenizer)
    # "auto" would limit workers to the memory that the machine has now, and rented ones may grow later.
    settings: Run = {"n_workers": workers, "memory_limit": 0, "dashboard_address": ":0"}
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        embed_cluster(stage, **settings) as client,
    ):
        client.run(clock.watch_engine)
        prepare = files_to_files(stage, client, Path(folder))
        # One long pass, so that a partition has several slabs and the start of its tasks counts little.
        run = measure_texts(peer, prepare, corpus, options, _Recorders(client), passes=1)
        torch_bytes, used = zip(*client.run(_peaks).values(), strict=True)
        peaks = {"peak_mib": max(torch_bytes) / 2**20, "gpu_used_mib": max(used) / 2**20}
        return run | {"workers": workers, **peaks}


_OURS = {
    f"ours, parquet to parquet, {name}, {n} workers": (n, name)
    for group in WORKERS
    for name in TOKENIZERS
    for n in group
}


def jobs(device: str = DEVICE.type) -> dict[str, tuple[str, ...]]:
    """Return the reference, and each number of workers with each tokenizer of a type of device."""
    ours = [peer for peer, (_, tokenizer) in _OURS.items() if tokenizer != "cudf" or device == "cuda"]
    return dict.fromkeys((REFERENCE, *ours), ("stories",))


def load(peer: str, options: Options) -> Callable[[str], Run]:
    """Return a function that measures a peer on a corpus, with a cluster of its own."""
    if peer == REFERENCE:
        return peers.load(peer, options)
    workers, tokenizer = _OURS[peer]
    return partial(_measure, peer, workers, tokenizer, options)
