"""Parquet to Parquet through Dask, with 1, 2 and 4 workers that share one device."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from nemo_embed_dask import EmbeddingCreatorStage, embed_cluster, to_matrix
from nemo_embed_dask.tokens.texts import tokenize_texts

from . import DEVICE, HEAD, SETTINGS, Result, Run, Work, clocked_with_idle, measured, texts
from .peers import PEERS, REFERENCE

PARTS = 16


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


def files_to_files(workers: int, tokenizer: str) -> Work:
    """Embed 16 files to 16 files. The start of the cluster and the first batches of workers are not timed."""
    stage = EmbeddingCreatorStage(embedding_pooling="auto", tokenizer=tokenizer)

    def work(data: list[str]) -> Result:
        with (
            tempfile.TemporaryDirectory() as folder,
            embed_cluster(stage, n_workers=workers, dashboard_address=":0") as client,
        ):
            warm = _write(data[: HEAD * workers], workers, Path(folder, "warm"))
            _read(warm).pipe(stage).to_parquet(Path(folder, "first"))
            source, target = _write(data, PARTS, Path(folder, "in")), Path(folder, "out")
            details: Run = {}
            seconds = clocked_with_idle(details, lambda: _read(source).pipe(stage).to_parquet(target))
            torch_bytes, used = zip(*client.run(_peaks).values(), strict=True)
            details |= {"worker_peak_mib": max(torch_bytes) / 2**20, "gpu_used_mib": max(used) / 2**20}
            parts = [pd.read_parquet(target / f"part.{i}.parquet") for i in range(PARTS)]
            return Result(torch.from_numpy(to_matrix(pd.concat(parts).embeddings).copy()), seconds, details)

    return work


def _write(data: list[str], parts: int, folder: Path) -> Path:
    folder.mkdir()
    for i, rows in enumerate(np.array_split(np.arange(len(data)), parts)):
        pd.DataFrame({"text": [data[k] for k in rows]}).to_parquet(folder / f"{i:02}.parquet")
    return folder


def scaling(scale: float) -> Iterator[Run]:
    """Measure each number of workers, on a GPU also with cuDF's tokenizer."""
    tokenizers = ("huggingface", "cudf") if DEVICE.type == "cuda" else ("huggingface",)
    for corpus in ("short", "stories"):
        data = texts(corpus, scale)
        tokens = int(tokenize_texts(data, SETTINGS).ids.lengths.sum())
        expected = PEERS[REFERENCE]()(data[:HEAD]).vectors
        for tokenizer in tokenizers:
            for workers in (1, 2, 4):
                run: Run = {
                    "peer": f"ours, parquet to parquet, {tokenizer}",
                    "corpus": corpus,
                    "rows": len(data),
                    "tokens": tokens,
                    "workers": workers,
                }
                load = partial(files_to_files, workers, tokenizer)
                yield measured(run, load, data, expected=expected, warm=False)
