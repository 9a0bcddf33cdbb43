"""This package: the engine alone, or through Dask with threads or a local cluster."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client, LocalCluster

from nemo_embed_dask import EmbeddingCreatorStage, to_matrix
from nemo_embed_dask.device import cpu_cores
from nemo_embed_dask.engine import embed_texts

from . import Output

PARTITIONS = 4


def load(*, dtype: str, mode: str, runtime: str = "torch") -> Callable[[list[str]], Output]:
    stage = EmbeddingCreatorStage(autocast=dtype == "bfloat16", runtime=runtime)
    if mode == "cluster":
        cluster = LocalCluster(n_workers=1, threads_per_worker=cpu_cores(), dashboard_address=None)
        return partial(_cluster, stage, Client(cluster))
    return partial({"engine": _engine, "threads": _threads}[mode], stage)


def _engine(stage: EmbeddingCreatorStage, texts: list[str]) -> Output:
    out = embed_texts(texts, stage.settings)
    return Output(out.matrix.numpy(), out.stats.padded, out.stats.tokenize_s, out.stats.model_s)


def _threads(stage: EmbeddingCreatorStage, texts: list[str]) -> Output:
    frame = dd.from_pandas(pd.DataFrame({"text": texts}), npartitions=PARTITIONS, sort=False)
    return Output(to_matrix(frame.pipe(stage)[stage.embedding_field].compute(scheduler="threads")))


def _cluster(stage: EmbeddingCreatorStage, client: Client, texts: list[str]) -> Output:
    """Embed Parquet to Parquet. Each call has a new folder and so new keys: nothing is cached."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        source.mkdir()
        for i, rows in enumerate(np.array_split(np.arange(len(texts)), PARTITIONS)):
            pd.DataFrame({"text": [texts[k] for k in rows]}).to_parquet(source / f"{i}.parquet")
        start = time.perf_counter()
        dd.read_parquet(source).pipe(stage).to_parquet(target, compute_kwargs={"scheduler": client})
        seconds = time.perf_counter() - start
        vectors = dd.read_parquet(target)[stage.embedding_field].compute(scheduler="threads")
        return Output(to_matrix(vectors), seconds=seconds)
