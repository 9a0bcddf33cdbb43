"""What the Dask layer costs over the bare engine: ``python -m benchmarks.bench_dask_layer``.

Three measurements, each paired and interleaved, the median of the ratios: one partition through Dask against
the engine alone; two of Dask's threads against one; and the peak of memory against the number of partitions.
Texts are cut short, so that the layer's share is as large as it gets.
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
    """Seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def paired(one: Callable[[], Any], other: Callable[[], Any], rounds: int) -> list[float]:
    """Time of ``one`` over time of ``other``, round by round, the order turning."""
    one(), other()
    found = []
    for turn in range(rounds):
        times = {work: clock(work) for work in ((one, other) if turn % 2 else (other, one))}
        found.append(times[one] / times[other])
    return found


def through_dask(frame: pd.DataFrame, partitions: int, threads: int) -> None:
    """All rows through Dask on so many threads; a salted index name makes keys new in every call."""
    salted = frame.rename_axis(index=f"salt{next(_salts)}")
    lazy = dd.from_pandas(salted, npartitions=partitions, sort=False).pipe(STAGE)
    to_matrix(lazy[STAGE.embedding_field].compute(scheduler="threads", num_workers=threads))


def bare(frame: pd.DataFrame) -> None:
    """The same rows through the engine."""
    embed_texts(frame.text.tolist(), STAGE.settings)


def memory(frame: pd.DataFrame, partitions: int) -> float:
    """Peak MiB of a run from files to files, each partition a file of these rows."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.parquet")
        frame.to_parquet(source)
        machine.reset_peak()
        lazy = dd.from_map(pd.read_parquet, [source] * partitions, meta=frame.iloc[:0])
        lazy.pipe(STAGE).to_parquet(Path(folder, "out"), compute_kwargs={"scheduler": "threads"})
        return machine.peak_mib()


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=7)
@click.option("--rows", default=10_000, help="Rows a partition.")
@click.option("--out", default=results.FOLDER, type=click.Path(path_type=Path, file_okay=False))
def main(rounds: int, rows: int, out: Path) -> None:
    """Measure, print, and write one JSON line a measurement."""
    frame = pd.DataFrame({"text": corpora.texts("short_wordnet", rows)})
    part = frame.iloc[: max(1, rows // 5)]
    layer = paired(partial(through_dask, frame, 1, 1), partial(bare, frame), rounds)
    threads = paired(partial(through_dask, frame, 4, 2), partial(through_dask, frame, 4, 1), rounds)
    memory(part, 2)
    peaks = {count: memory(part, count) for count in (2, 8, 32)}
    found = {
        "dask over engine, one partition": {"ratio": median(layer), "ratios": layer},
        "2 threads over 1, 4 partitions": {"ratio": median(threads), "ratios": threads},
        "peak MiB by partitions": {"peaks": peaks, "ratio": peaks[32] / peaks[2]},
    }
    now = dt.datetime.now(dt.UTC)
    common = {"date": now.isoformat(timespec="seconds"), "rows": rows,
              "machine": machine.describe(), "versions": machine.versions()}  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    for name, result in found.items():
        results.append(out / f"dask-{now:%Y%m%dT%H%M%S}.jsonl", {"measurement": name, **result, **common})
        click.echo(
            f"{name:34} {result['ratio']:.3f}  {result.get('peaks') or [round(x, 3) for x in result['ratios']]}"
        )


if __name__ == "__main__":
    main()
