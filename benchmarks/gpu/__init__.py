"""What all GPU benchmarks share: texts, clocks, what a card can do, and one run put together."""

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
from nemo_embed_dask.device import release_memory, settle
from nemo_embed_dask.models.locate import MINILM, ModelRef
from nemo_embed_dask.settings import Settings

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SETTINGS = Settings(ModelRef(MINILM))
# Corpus -> (file of real text, words of made-up text, rows, rows of the file to one). "stories" are two package
# descriptions: about 190 tokens, the length of TinyStories, on which Curator's speed was published.
CORPORA = {
    "short": ("short_wordnet", 20, 150_000, 1),
    "medium": ("medium_debian", 75, 60_000, 1),
    "stories": ("medium_debian", 150, 40_000, 2),
    "long": ("long_mix", 400, 15_000, 1),
}
Run = dict[str, Any]
# Rows that a run warms up with, and on which its vectors are compared.
HEAD = 500


@dataclass
class Result:
    """What one call made: vectors or states ``[n, d]``, seconds if not all of the call counts, and the rest."""

    vectors: torch.Tensor
    seconds: float | None = None
    about: Run = field(default_factory=dict)


Work = Callable[[list[str]], Result]


def texts(name: str, scale: float) -> list[str]:
    """A corpus, drawn with a fixed seed and with repeats; rows of 20,000 characters at most."""
    file, words, rows, joined = CORPORA[name]
    rows, path = int(rows * scale), Path(os.environ.get("NEMO_EMBED_DATA", "../shared/data"), f"{file}.parquet")
    if path.is_file():
        drawn = pd.read_parquet(path, columns=["text"]).text.sample(rows * joined, replace=True, random_state=7)
        cut = drawn.str[:20_000].tolist()
        # Numbered, for equal texts are embedded once, and that is not what is measured.
        return [f"{i} {' '.join(cut[joined * i : joined * (i + 1)])}" for i in range(rows)]
    pick, some = random.Random(7), ["time", "year", "people", "way", "day", "man", "thing", "woman", "life"]
    return [" ".join(pick.choices(some, k=pick.randint(1, 2 * words))) for _ in range(rows)]


def flops(config: Any, lengths: np.ndarray) -> float:
    """Multiply-adds (times 2) of linear layers and attention, without padding."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    width = getattr(config, "head_dim", None) or hidden // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    gates = 3 if config.model_type == "qwen3" else 2
    linear = 2 * hidden * (2 * heads * width + 2 * groups * width + gates * inner)
    pairs = 4 * heads * width * float((lengths.astype(np.float64) ** 2).sum())
    return config.num_hidden_layers * (linear * float(lengths.sum()) + pairs)


def matmul_rate(passes: int = 10) -> float:
    """FLOP/s of one bf16 matrix product on random data: this card's own ceiling."""
    size = 8192 if DEVICE.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * size**3 * passes / clocked(lambda: [a @ b for _ in range(passes)])


def clocked(work: Callable[[], Any]) -> float:
    """Seconds that the work takes, the device's share included."""
    settle(DEVICE)
    start = time.perf_counter()
    work()
    settle(DEVICE)
    return time.perf_counter() - start


def watched(about: Run, work: Callable[[], Any]) -> float:
    """`clocked`, with `idle_share` of just that time."""
    with idle_share(about):
        return clocked(work)


def device_seconds(work: Callable[[], Any]) -> float | None:
    """Seconds of kernels and copies on the card while the work runs, by torch's profiler; on one stream."""
    if DEVICE.type != "cuda":
        work()
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        work()
        settle(DEVICE)
    return sum(event.self_device_time_total for event in seen.key_averages()) / 1e6


def _watchable() -> bool:
    """Whether the driver's library tells how busy the card is."""
    try:
        return DEVICE.type == "cuda" and torch.cuda.utilization() >= 0
    except Exception as error:  # noqa: BLE001 - of a library that may be missing, its own kinds
        print(f"device_idle is not measured: {error}")
        return False


@contextmanager
def idle_share(run: Run, every: float = 0.02) -> Iterator[None]:
    """Write ``device_idle``: the share of the time in which the driver saw no kernel, of any process, run."""
    if not _watchable():
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
    """How near vectors are to those expected, row by row."""
    near = torch.nn.functional.cosine_similarity(found.cpu().double(), expected.cpu().double(), dim=1)
    return {"cosine_min": round(float(near.min()), 6), "cosine_mean": round(float(near.mean()), 6)}


def measured(
    run: Run, load: Callable[[], Work], data: list[str], *, rate: float | None = None,
    expected: torch.Tensor | None = None, warm: bool = True,
) -> Run:  # fmt: skip
    """One run and what follows from it: load, warm up, run, compare; an error is a result too.

    ``expected``: vectors of the first rows. ``warm``: whether these are run before the clock starts.
    """
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        work = load()
        if warm:
            work(data[:HEAD])
        made: list[Result] = []
        seconds = watched(run, lambda: made.append(work(data)))
        if expected is not None:
            run |= cosines(made[0].vectors[: len(expected)], expected)
    except Exception as error:  # noqa: BLE001 - whatever a peer raises, the others are measured
        return run | {"error": f"{type(error).__name__}: {error}"[:300]}
    finally:
        runtimes.unload()
        release_memory(DEVICE)
    seconds = made[0].seconds or seconds
    run |= made[0].about | {"seconds": seconds}
    if rate and "flops" in run:
        run |= {"matmul_share": run["flops"] / seconds / rate, "matmul_tflops": rate / 1e12}
    peak = torch.cuda.max_memory_allocated() / 2**20 if DEVICE.type == "cuda" else None
    return run | {
        "tokens_per_s": run["tokens"] / seconds, "documents_per_s": run["rows"] / seconds, "peak_mib": peak,
    }  # fmt: skip
