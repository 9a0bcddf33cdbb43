"""Estimate a run's hours, memory and output from a sample of texts and a short timed run on this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import dask
import numpy as np

from ..engine import Model, embed_texts, load_model
from ..errors import ConfigError
from ..frames import MAX_LIST_VALUES
from ..rows import Embedded
from ..settings import Settings
from ..stages import EmbeddingCreatorStage
from ..stages.base import stage_first
from ..stages.workers import cores_per_task
from ..summaries import Summary
from ..vectors.quantization import BITS
from .intervals import Interval, fraction_interval, mean_interval
from .sampling import MIN_TEXTS, check_enough, sample_texts

# Slices of the sample that are timed one by one; the spread of their speeds is the speed's uncertainty.
_SLICES = 5


@dataclass(frozen=True)
class Plan(Summary):
    """The estimate of a run, for processes like the one that made it.

    Pairs are 95 % intervals: the lowest and the highest value that agree with the sample.

    Attributes
    ----------
    rows, sample : int
        Rows of the frame, and texts in the sample.
    dimension : int
        Dimensions of a vector.
    workers : int
        Processes of the run.
    tokens : (float, float)
        Mean tokens per row.
    truncated : (float, float)
        Fraction of the rows that will be truncated.
    tokens_per_s : (float, float)
        Tokens per second of one process.
    hours : (float, float)
        Hours of the run with all ``workers``.
    memory : int
        Bytes per process: the peak of the timed run, and the vectors of one partition.
    output : dict
        Bytes of all vectors by number type, uncompressed.
    max_rows_per_partition : int
        The most rows that a list column can hold.
    partition_rows : int
        Mean rows per partition of the frame now, rounded up.
    device_memory : dict
        Bytes on a GPU by what takes them: the weights, one batch, and a partition's vectors. Empty on a CPU.
    """

    rows: int
    sample: int
    dimension: int
    workers: int
    tokens: Interval
    truncated: Interval
    tokens_per_s: Interval
    hours: Interval
    memory: int
    output: dict[str, int]
    max_rows_per_partition: int
    partition_rows: int
    device_memory: dict[str, int] = field(default_factory=dict)

    @property
    def _caption(self) -> str:
        return f"{self.rows:,} rows, from a sample of {self.sample:,}; ranges are 95 % intervals of it"

    @property
    def _rows(self) -> dict[str, str]:
        most, now = self.max_rows_per_partition, self.partition_rows
        fits = "fits" if now <= most else "TOO LARGE: repartition"
        parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in self.device_memory.items())
        gpu = f"{sum(self.device_memory.values()) / 1e9:.2f} GB ({parts}), without the frames' own"
        return {
            "tokens per row": f"{self.tokens[0]:.1f} to {self.tokens[1]:.1f}",
            "rows truncated": f"{self.truncated[0]:.1%} to {self.truncated[1]:.1%}",
            "tokens per second and process": f"{self.tokens_per_s[0]:,.0f} to {self.tokens_per_s[1]:,.0f}",
            f"hours with {self.workers} such processes": f"{self.hours[0]:.3g} to {self.hours[1]:.3g}",
            "memory per process": f"at least {self.memory / 1e9:.2f} GB; a long run takes some hundred MB more",
            **({"GPU memory": gpu} if self.device_memory else {}),
            **{f"output as {dtype}": f"{size / 1e9:.3f} GB" for dtype, size in self.output.items()},
            "rows per partition": f"at most {most:,}; now {now:,} ({fits})",
        }


class _Measurement(NamedTuple):
    """The tokens and truncation of each text, the tokens/s of each slice, and a row's mean number of values."""

    n_tokens: Any
    truncated: Any
    speeds: list[float]
    values_per_row: float


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
        What the run will embed.
    sample_rows : int
        Texts to sample, from up to four partitions.
    seconds : float
        Approximate length of the timed run, which follows one untimed slice.
    workers : int
        Processes that the run will have. They are assumed to be as fast as this one and not to slow each other.
    rows : int, optional
        Rows of the frame, if known; else they are counted.

    Returns
    -------
    Plan
        Print it for all figures.

    Raises
    ------
    ConfigError
        ``workers``, ``sample_rows`` or ``seconds`` is too small, or the frame has fewer than 10 texts.
    """
    if workers < 1 or sample_rows < MIN_TEXTS or not seconds >= 0:
        raise ConfigError(
            f"plan needs workers >= 1, sample_rows >= {MIN_TEXTS} and seconds >= 0; it got "
            f"workers={workers}, sample_rows={sample_rows} and seconds={seconds}"
        )
    texts = check_enough(sample_texts(ddf, stage.text_field, sample_rows))
    settings = _timed_settings(stage)
    measured = _measure(texts, settings, seconds)
    count = len(ddf) if rows is None else rows
    tokens, speed = mean_interval(measured.n_tokens), mean_interval(measured.speeds)
    model = load_model(settings)
    dimension = stage.truncate_dim or model.head.default_dim
    values = measured.values_per_row if settings.gives_lists else dimension
    partition_rows = -(-count // ddf.npartitions) if dask.is_dask_collection(ddf) else count
    return Plan(
        rows=count,
        sample=len(texts),
        dimension=dimension,
        workers=workers,
        tokens=tokens,
        truncated=fraction_interval(int(measured.truncated.sum()), len(measured.truncated)),
        tokens_per_s=speed,
        hours=(_hours(count, tokens[0], speed[1], workers), _hours(count, tokens[1], speed[0], workers)),
        memory=_peak_memory() + int(4 * values * partition_rows),
        output={dtype: count * -int(-values * bits // 8) for dtype, bits in _stored_types(settings).items()},
        max_rows_per_partition=int(MAX_LIST_VALUES / values),
        partition_rows=partition_rows,
        device_memory=_device_memory(model, partition_rows, 1 + len(stage.settings.extra_outputs)),
    )


def _timed_settings(stage: EmbeddingCreatorStage) -> Settings:
    """Return the stage's settings for the timed run, which embeds every text once and stores nothing."""
    return replace(
        stage.settings,
        extra_outputs=(),
        embedding_dtype="float32",
        ranges=(),
        on_error="null",
        long_documents="truncate",
        share_equal_texts=False,
    )


def _stored_types(settings: Settings) -> dict[str, int]:
    """Return the bits of a value by number type; each weight of a token is stored with its id."""
    if not settings.gives_lists:
        return BITS
    extra = 32 if settings.pooling == "splade" else 0
    return {dtype: BITS[dtype] + extra for dtype in ("float32", "float16")}


def _hours(rows: int, tokens_per_row: float, tokens_per_s: float, workers: int) -> float:
    return rows * tokens_per_row / tokens_per_s / workers / 3600


def _device_memory(model: Model, rows: int, outputs: int) -> dict[str, int]:
    """Return the bytes that a GPU holds at once, by what takes them; empty on a CPU.

    The partition's whole matrix stays on the GPU, and so does each stored output.
    """
    runtime = model.runtime
    if runtime.device.type != "cuda":
        return {}
    vectors = 4 * model.width * rows * (1 + outputs)  # lists are moved to the host
    return {
        "weights": runtime.weight_bytes,
        "one batch": runtime.batch_memory(runtime.budget),
        "vectors": vectors,
    }


def _measure(texts: Sequence[str], settings: Settings, seconds: float) -> _Measurement:
    """Embed the sample slice by slice, again and again until the time is over."""
    slices = [texts[k::_SLICES] for k in range(_SLICES)]
    threads = cores_per_task()
    embed_texts(slices[0], settings, n_threads=threads)  # loads the model; not timed
    start = time.perf_counter()
    outs: list[Embedded] = []
    speeds: list[float] = []
    while len(speeds) < _SLICES or time.perf_counter() - start < seconds:
        out = embed_texts(slices[len(speeds) % _SLICES], settings, n_threads=threads)
        speeds.append(out.stats.tokens / out.stats.total_s)
        outs.append(out)
    each_slice_once = outs[:_SLICES]
    return _Measurement(
        np.concatenate([out.n_tokens for out in each_slice_once]),
        np.concatenate([out.truncated for out in each_slice_once]),
        speeds,
        float(np.mean([_values_per_row(out) for out in each_slice_once])),
    )


def _values_per_row(out: Embedded) -> float:
    values = out.matrix if out.lists is None else out.lists.columns[""]
    return max(1.0, values.numel() / len(out.valid))


def _peak_memory() -> int:
    """Return the most bytes that this process has held; the system counts KiB on Linux and bytes on macOS."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
