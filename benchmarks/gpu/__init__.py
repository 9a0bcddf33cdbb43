"""Shared code of the GPU benchmarks: texts, timing, the matmul rate of the GPU, and one measured run."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from nemo_embed_dask import runtimes
from nemo_embed_dask.device import release_memory, wait_for_stream
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.names import MINILM
from nemo_embed_dask.settings import Settings

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SETTINGS = Settings(ModelRef(MINILM))
# Corpus -> (file of real text, mean words of a random text, rows, rows of the file per text). A text of
# "stories" is two package descriptions: about 190 tokens, the length of TinyStories, for which Curator's speed
# was published.
CORPORA = {
    "short": ("short_wordnet", 20, 150_000, 1),
    "medium": ("medium_debian", 75, 60_000, 1),
    "stories": ("medium_debian", 150, 40_000, 2),
    "long": ("long_mix", 400, 15_000, 1),
}
Run = dict[str, Any]
# The first rows: a run warms up with them, and their vectors are compared.
HEAD = 500


@dataclass
class Result:
    """Vectors or token states ``[n, d]``, the seconds if only part of the call counts, and more fields."""

    vectors: torch.Tensor
    seconds: float | None = None
    details: Run = field(default_factory=dict)


Work = Callable[[list[str]], Result]


def texts(name: str, scale: float) -> list[str]:
    """Return a corpus, sampled with replacement and a fixed seed; texts have at most 20,000 characters."""
    file, words, rows, joined = CORPORA[name]
    rows, path = int(rows * scale), Path(os.environ.get("NEMO_EMBED_DATA", "../shared/data"), f"{file}.parquet")
    if not path.is_file():
        rng = random.Random(7)
        vocabulary = ["time", "year", "people", "way", "day", "man", "thing", "woman", "life"]
        return [" ".join(rng.choices(vocabulary, k=rng.randint(1, 2 * words))) for _ in range(rows)]
    column = pd.read_parquet(path, columns=["text"]).text
    sample = column.sample(rows * joined, replace=True, random_state=7).str[:20_000].tolist()
    # A number makes each text distinct: equal texts would be embedded once.
    return [f"{i} {' '.join(sample[joined * i : joined * (i + 1)])}" for i in range(rows)]


def flops(config: Any, lengths: np.ndarray) -> float:
    """Return the FLOPs of linear layers and attention for rows of these lengths, without padding."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    width = getattr(config, "head_dim", None) or hidden // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    gates = 3 if config.model_type == "qwen3" else 2
    linear = 2 * hidden * (2 * heads * width + 2 * groups * width + gates * inner)
    pairs = 4 * heads * width * float((lengths.astype(np.float64) ** 2).sum())
    return config.num_hidden_layers * (linear * float(lengths.sum()) + pairs)


def matmul_rate(passes: int = 10) -> float:
    """Return the FLOP/s of a bf16 matrix product on random data, the upper bound of this GPU."""
    size = 8192 if DEVICE.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * size**3 * passes / clocked(lambda: [a @ b for _ in range(passes)])


def clocked(work: Callable[[], Any]) -> float:
    """Return the seconds that the work takes, until the device is done."""
    wait_for_stream(DEVICE)
    start = time.perf_counter()
    work()
    wait_for_stream(DEVICE)
    return time.perf_counter() - start


def clocked_with_idle(details: Run, work: Callable[[], Any]) -> float:
    """Return the seconds that the work takes, and record `idle_fraction` during that time."""
    with idle_fraction(details):
        return clocked(work)


def device_seconds(work: Callable[[], Any]) -> float | None:
    """Return the seconds of kernels and copies on the GPU, by torch's profiler, for work on one stream."""
    if DEVICE.type != "cuda":
        work()
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
        work()
        wait_for_stream(DEVICE)
    return sum(event.self_device_time_total for event in profiled.key_averages()) / 1e6


def _reports_utilization() -> bool:
    """Return whether the driver's library reports how busy the GPU is."""
    try:
        return DEVICE.type == "cuda" and torch.cuda.utilization() >= 0
    except Exception as error:  # noqa: BLE001 - the library may be missing, and has error types that cannot be named
        print(f"device_idle is not measured: {error}")
        return False


@contextmanager
def idle_fraction(run: Run, every: float = 0.02) -> Iterator[None]:
    """Set ``device_idle``: the fraction of time in which the driver saw no kernel of any process."""
    if not _reports_utilization():
        yield
        return
    busy: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every):
            busy.append(torch.cuda.utilization())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        if busy:
            run["device_idle"] = round(1 - float(np.mean(busy)) / 100, 4)


def cosines(found: torch.Tensor, expected: torch.Tensor) -> Run:
    """Return the smallest and the mean cosine between vectors and the expected ones, row by row."""
    similarity = torch.nn.functional.cosine_similarity(found.cpu().double(), expected.cpu().double(), dim=1)
    return {"cosine_min": round(float(similarity.min()), 6), "cosine_mean": round(float(similarity.mean()), 6)}


def measured(
    run: Run,
    load: Callable[[], Work],
    data: list[str],
    *,
    rate: float | None = None,
    expected: torch.Tensor | None = None,
    warm: bool = True,
) -> Run:
    """Load a peer, warm it up, run it, compare its vectors, and return ``run`` with the measurements.

    ``expected``: vectors of the first rows. ``warm``: whether the first rows are embedded once before the run.
    An error of a peer is returned as the field ``error``.
    """
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        work = load()
        if warm:
            work(data[:HEAD])
        results: list[Result] = []
        seconds = clocked_with_idle(run, lambda: results.append(work(data)))
        result = results[0]
        if expected is not None:
            run |= cosines(result.vectors[: len(expected)], expected)
    except Exception as error:  # noqa: BLE001 - whatever a peer raises, the other peers are still measured
        return run | {"error": f"{type(error).__name__}: {error}"[:300]}
    finally:
        runtimes.unload()
        release_memory(DEVICE)
    seconds = result.seconds or seconds
    run |= result.details | {"seconds": seconds}
    if rate and "flops" in run:
        run |= {"matmul_share": run["flops"] / seconds / rate, "matmul_tflops": rate / 1e12}
    peak = torch.cuda.max_memory_allocated() / 2**20 if DEVICE.type == "cuda" else None
    return run | {
        "tokens_per_s": run["tokens"] / seconds,
        "documents_per_s": run["rows"] / seconds,
        "peak_mib": peak,
    }
