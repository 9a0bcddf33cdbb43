"""What a run will take, before it: from a sample of texts and a short timed run on this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dask
import numpy as np

from ..engine import Model, embed_texts, load_model
from ..errors import ConfigError
from ..frames import MAX_LEAVES
from ..settings import Settings
from ..stages import EmbeddingCreatorStage
from ..stages.base import stage_first
from ..stages.tasks import cores_per_task
from ..vectors.quantization import BITS
from .sampling import sample_texts

# Slices that the timed run is cut into: their spread is the uncertainty of the speed.
_SLICES = 5
Range = tuple[float, float]


@dataclass(frozen=True)
class Plan:
    """What a run will take. Ranges are 95 % intervals of what was sampled, on the machine that planned.

    ``tokens``: mean tokens a row. ``tokens_per_s``: of one process. ``hours``: over ``workers`` of them.
    ``memory``: peak bytes of this process in the timed run, and a partition's vectors at the rows a
    partition has now. ``device_memory``: bytes on a GPU by what takes them, the weights, one batch, and a
    partition's vectors; empty on a CPU. ``output``: bytes of all vectors, by storage type, uncompressed.
    ``rows_a_partition``: the most that a list column holds.
    """

    rows: int
    sample: int
    dimension: int
    workers: int
    tokens: Range
    truncated: Range
    tokens_per_s: Range
    hours: Range
    memory: int
    output: dict[str, int]
    rows_a_partition: int
    partition_rows: int
    device_memory: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        fits = "fits" if self.partition_rows <= self.rows_a_partition else "TOO LARGE: repartition"
        return "\n".join(
            [
                f"{self.rows:,} rows, from a sample of {self.sample:,}; ranges are 95 % intervals of it",
                f"tokens a row: {self.tokens[0]:.1f} to {self.tokens[1]:.1f}",
                f"rows truncated: {self.truncated[0]:.1%} to {self.truncated[1]:.1%}",
                f"tokens a second and process: {self.tokens_per_s[0]:,.0f} to {self.tokens_per_s[1]:,.0f}",
                f"hours with {self.workers} like this one: {self.hours[0]:.3g} to {self.hours[1]:.3g}",
                f"memory a process: {self.memory / 1e9:.2f} GB at least; some hundred MB more in a long run",
                *self._on_device(),
                *(f"output as {dtype}: {size / 1e9:.3f} GB" for dtype, size in self.output.items()),
                f"rows a partition: at most {self.rows_a_partition:,}; now {self.partition_rows:,} ({fits})",
            ]
        )

    def _on_device(self) -> list[str]:
        parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in self.device_memory.items())
        total = sum(self.device_memory.values())
        return [f"memory of a GPU: {total / 1e9:.2f} GB ({parts}), frames not counted"] if parts else []


@stage_first("plan(EmbeddingCreatorStage(...), ddf)")
def plan(
    stage: EmbeddingCreatorStage,
    ddf: Any,
    *,
    sample_rows: int = 1000,
    seconds: float = 20.0,
    workers: int = 1,
    rows: int | None = None,
) -> Plan:
    """Estimate hours, memory and output bytes of embedding a frame.

    Parameters
    ----------
    stage : EmbeddingCreatorStage
        What to embed, and how.
    ddf : Dask, pandas or cuDF DataFrame
    sample_rows : int
        Texts looked at, from up to four partitions.
    seconds : float
        About how long the timed run goes on, after one untimed slice.
    workers : int
        Processes like this one that the run will have; they are assumed not to slow each other.
    rows : int, optional
        Rows of the frame, where known; else they are counted.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        ``workers``, ``sample_rows`` or ``seconds`` is too small.
    """
    if workers < 1 or sample_rows < 2 * _SLICES or not seconds >= 0:
        raise ConfigError(f"plan needs workers >= 1, sample_rows >= {2 * _SLICES} and seconds >= 0")
    texts = sample_texts(ddf, stage.text_field, sample_rows)
    settings = replace(stage.settings, extra_outputs=(), embedding_dtype="float32", ranges=(), on_error="null",
                       long_documents="truncate", share_equal_texts=False)  # fmt: skip
    lengths, cut, speeds = _timed(texts, settings, seconds)
    count = len(ddf) if rows is None else rows
    tokens, speed = _interval(lengths), _interval(speeds)
    model = load_model(settings)
    width = stage.truncate_dim or model.head.default_dim
    partition = -(-count // ddf.npartitions) if dask.is_dask_collection(ddf) else count
    return Plan(
        rows=count, sample=len(texts), dimension=width, workers=workers, tokens=tokens,
        truncated=_share(int(cut.sum()), len(cut)), tokens_per_s=speed,
        hours=(count * tokens[0] / speed[1] / workers / 3600, count * tokens[1] / speed[0] / workers / 3600),
        memory=_peak() + 4 * width * partition,
        output={dtype: count * -(-width * bits // 8) for dtype, bits in BITS.items()},
        rows_a_partition=MAX_LEAVES // width, partition_rows=partition,
        device_memory=_device_memory(model, partition, 1 + len(stage.settings.extra_outputs)),
    )  # fmt: skip


def _device_memory(model: Model, rows: int, outputs: int) -> dict[str, int]:
    """Return the bytes that a GPU holds at once, by what takes them; empty on a CPU.

    The partition's whole matrix stays on the GPU, and so does each stored output.
    """
    runtime = model.runtime
    if runtime.device.type != "cuda":
        return {}
    vectors = 4 * model.head.dimension * rows * (1 + outputs)
    return {
        "weights": runtime.weight_bytes,
        "one batch": runtime.batch_memory(runtime.budget),
        "vectors": vectors,
    }


def _timed(texts: Sequence[str], settings: Settings, seconds: float) -> tuple[Any, Any, list[float]]:
    """Tokens of each text, which were cut, and the speeds of slices in tokens a second."""
    slices = [texts[k::_SLICES] for k in range(_SLICES)]
    outs = [embed_texts(part, settings, n_threads=cores_per_task()) for part in slices[:1]]
    start = time.perf_counter()
    speeds: list[float] = []
    while len(speeds) < _SLICES or time.perf_counter() - start < seconds:
        out = embed_texts(slices[len(speeds) % _SLICES], settings, n_threads=cores_per_task())
        speeds.append(out.stats.tokens / out.stats.total_s)
        outs.append(out)
    once = outs[1 : _SLICES + 1]
    return (
        np.concatenate([out.n_tokens for out in once]),
        np.concatenate([out.truncated for out in once]),
        speeds,
    )


def _interval(values: Any) -> Range:
    """The mean's 95 % interval, never under a tenth of the mean."""
    mean, error = float(np.mean(values)), 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return max(mean / 10, mean - error), mean + error


def _share(hits: int, count: int) -> Range:
    """Wilson's 95 % interval of a share, which is honest near 0 and 1."""
    z, p = 1.96, hits / count
    centre, spread = p + z * z / (2 * count), z * (p * (1 - p) / count + z * z / (4 * count * count)) ** 0.5
    scale = 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _peak() -> int:
    """Most memory that this process has held, in bytes; Linux counts it in KiB, macOS in bytes."""
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
