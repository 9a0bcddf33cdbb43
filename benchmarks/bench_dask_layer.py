"""Measure what the Dask layer adds to the engine: ``python -m benchmarks.bench_dask_layer``.

There are three measurements: one partition through Dask compared with the engine alone, two Dask threads
compared with one, and peak memory by number of partitions. The first two are paired and interleaved, and the
result is the median of the ratios. Texts are cut to a few characters, so that Dask's fraction of the time is
largest.
"""

from __future__ import annotations

import datetime as dt
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import dask.dataframe as dd
import pandas as pd

from nemo_embed_dask import EmbeddingCreatorStage, to_matrix
from nemo_embed_dask.engine import embed_texts

from . import corpora, machine, results

STAGE = EmbeddingCreatorStage(max_chars=16)
_salts = iter(range(1 << 30))


def clock(work: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def paired(one: Callable[[], Any], other: Callable[[], Any], rounds: int) -> list[float]:
    """Return the time of ``one`` divided by the time of ``other`` for each round; the order alternates."""
    one()
    other()
    ratios = []
    for turn in range(rounds):
        order = (one, other) if turn % 2 else (other, one)
        times = {work: clock(work) for work in order}
        ratios.append(times[one] / times[other])
    return ratios


def through_dask(frame: pd.DataFrame, partitions: int, threads: int) -> None:
    """Embed all rows through Dask. A new index name in each call gives new keys, so that nothing is cached."""
    salted = frame.rename_axis(index=f"salt{next(_salts)}")
    lazy = dd.from_pandas(salted, npartitions=partitions, sort=False).pipe(STAGE)
    to_matrix(lazy[STAGE.embedding_field].compute(scheduler="threads", num_workers=threads))


def engine_only(frame: pd.DataFrame) -> None:
    """Embed the same rows with the engine, without Dask."""
    embed_texts(frame.text.tolist(), STAGE.settings)


def peak_memory(frame: pd.DataFrame, partitions: int) -> float:
    """Return the peak in MiB of a run from Parquet to Parquet, where each partition has these rows."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.parquet")
        frame.to_parquet(source)
        machine.reset_peak()
        lazy = dd.from_map(pd.read_parquet, [source] * partitions, meta=frame.iloc[:0])
        lazy.pipe(STAGE).to_parquet(Path(folder, "out"), compute_kwargs={"scheduler": "threads"})
        return machine.peak_mib()


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=7)
@click.option("--rows", default=10_000, help="Rows per partition.")
@click.option("--out", default=results.FOLDER, type=click.Path(path_type=Path, file_okay=False))
def main(rounds: int, rows: int, out: Path) -> None:
    """Print each measurement and write it as one JSON line."""
    frame = pd.DataFrame({"text": corpora.texts("short_wordnet", rows)})
    part = frame.iloc[: max(1, rows // 5)]
    layer = paired(partial(through_dask, frame, 1, 1), partial(engine_only, frame), rounds)
    threads = paired(partial(through_dask, frame, 4, 2), partial(through_dask, frame, 4, 1), rounds)
    peak_memory(part, 2)  # warms up
    peaks = {count: peak_memory(part, count) for count in (2, 8, 32)}
    measurements = {
        "dask over engine, one partition": {"ratio": median(layer), "ratios": layer},
        "2 threads over 1, 4 partitions": {"ratio": median(threads), "ratios": threads},
        "peak MiB by partitions": {"peaks": peaks, "ratio": peaks[32] / peaks[2]},
    }
    now = dt.datetime.now(dt.UTC)
    common = {
        "date": now.isoformat(timespec="seconds"),
        "rows": rows,
        "machine": machine.describe(),
        "versions": machine.versions(),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, result in measurements.items():
        results.append(out / f"dask-{now:%Y%m%dT%H%M%S}.jsonl", {"measurement": name, **result, **common})
        details = result.get("peaks") or [round(ratio, 3) for ratio in result["ratios"]]
        click.echo(f"{name:34} {result['ratio']:.3f}  {details}")


if __name__ == "__main__":
    main()
