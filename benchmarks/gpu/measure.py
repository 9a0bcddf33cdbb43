"""Measure one peer: choose its rows, warm up with all of them, repeat, and compare its vectors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import transformers

from nemo_embed_dask.models.locate import find_model
from nemo_embed_dask.tokens.texts import tokenize_texts

from . import DEVICE, SETTINGS, Options, Run
from .clock import RECORDER, clocked, idle_fraction, wait_for_device
from .rates import flops, matmul_rate
from .texts import texts

# sentence-transformers in float32. Its vectors of the first rows of a corpus are those that others should have.
REFERENCE = "sentence-transformers, defaults"
HEAD = 500


@dataclass
class Result:
    """Vectors or token states ``[n, d]``, and more fields of the run.

    ``vectors``: a function if they have to be read first, which is not timed; None for work that gives none.
    """

    vectors: torch.Tensor | Callable[[], torch.Tensor] | None = None
    details: Run = field(default_factory=dict)


Work = Callable[[], Result]
# A loaded peer: it gets texts, prepares what is not timed, and returns the work that is.
Prepare = Callable[[list[str]], Work]


def measure_texts(
    peer: str, prepare: Prepare, corpus: str, options: Options, recorder: Any = RECORDER, *, passes: int = 4
) -> Run:
    """Measure a loaded peer on one corpus, of which about ``passes`` runs take ``options.seconds``."""
    data = texts(corpus, options.scale)
    data = data[: choose_rows(prepare, data, options.seconds / passes)]
    lengths = tokenize_texts(data, SETTINGS).ids.lengths
    run, result = repeat(prepare(data), options.seconds, recorder)
    path = options.folder / f"{corpus}.npy"
    if result.vectors is not None:
        vectors = result.vectors() if callable(result.vectors) else result.vectors
        vectors = vectors[:HEAD].float().cpu().numpy()
        if peer == REFERENCE:
            np.save(path, vectors)
        if path.is_file():
            run |= cosines(vectors, np.load(path))
    config = transformers.AutoConfig.from_pretrained(find_model(SETTINGS.model), trust_remote_code=False)
    # What gives no vectors did not run the model.
    operations = flops(config, lengths) if result.vectors is not None else None
    return run | speeds(len(data), int(lengths.sum()), run["seconds"], operations)


def choose_rows(prepare: Prepare, data: list[str], seconds: float) -> int:
    """Return how many of the rows take about ``seconds``, at least `HEAD` and at most all."""
    rows = least = min(HEAD, len(data))
    prepare(data[:least])()  # also loads what is loaded late
    first = took = clocked(prepare(data[:least]))
    # Some work, such as a graph of Dask, takes long for any rows, so the time of a row is that of more rows.
    while took < seconds and took - first < seconds / 4 and rows < len(data):
        rows = min(len(data), 4 * rows)
        took = clocked(prepare(data[:rows]))
    if took <= first:
        return rows
    more = (seconds - first) * (rows - least) / (took - first)
    return min(len(data), least + max(0, int(more)))


def repeat(work: Work, seconds: float, recorder: Any = RECORDER) -> tuple[Run, Result]:
    """Run the work once to warm up, then for at least ``seconds``; return the mean time and the last result."""
    work()
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    recorder.start()
    wait_for_device()
    first, passes, result = time.perf_counter(), 0, Result()
    while passes == 0 or time.perf_counter() - first < seconds:
        del result  # so that two results never take memory at the same time
        result = work()
        wait_for_device()
        passes += 1
    last = time.perf_counter()
    run: Run = {"passes": passes, "seconds": (last - first) / passes, **result.details}
    if intervals := recorder.intervals():
        run["device_idle"] = round(idle_fraction(intervals, first, last), 4)
    if DEVICE.type == "cuda":
        run["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return run, result


def cosines(found: np.ndarray, expected: np.ndarray) -> Run:
    """Return the smallest and the mean cosine between vectors and the expected ones, row by row."""
    rows = min(len(found), len(expected))
    a, b = (torch.from_numpy(x[:rows]).double() for x in (found, expected))
    similarity = torch.nn.functional.cosine_similarity(a, b, dim=1)
    return {"cosine_min": round(float(similarity.min()), 6), "cosine_mean": round(float(similarity.mean()), 6)}


def speeds(rows: int, tokens: int, seconds: float, operations: float | None) -> Run:
    """Return the speeds of a run, and the fraction of the matrix product rate if it ran the model."""
    run: Run = {
        "rows": rows,
        "tokens": tokens,
        "documents_per_s": rows / seconds,
        "tokens_per_s": tokens / seconds,
        "ns_per_token": seconds / tokens * 1e9,
    }
    if operations is not None:
        rate = matmul_rate()
        run |= {"matmul_share": operations / seconds / rate, "matmul_tflops": rate / 1e12}
    return run
