"""Measure the overhead of a job: milliseconds per part with a constant instead of a model, and memory.

    python benchmarks/bench_job_overhead.py                      # 100, 1,000 and 10,000 parts; table and fit
    python benchmarks/bench_job_overhead.py --bookkeeping 100000 # plan, manifest and restart only
    python benchmarks/bench_job_overhead.py --parts 100000 --scheduler-apart  # memory of scheduler and client

Each run is one JSON line in benchmarks/results/job_overhead.jsonl and a table on standard output. Inputs have
one row each, so that only the job is measured: plan, submission, read, write, fsync, commit, log and listing.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from distributed import Client, LocalCluster, Worker

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from nemo_embed_dask import EmbeddingCreatorStage, embed_parquet  # noqa: E402
from nemo_embed_dask.jobs import run  # noqa: E402
from nemo_embed_dask.jobs.clusters import plugin, preload  # noqa: E402
from nemo_embed_dask.jobs.files import inputs  # noqa: E402
from nemo_embed_dask.jobs.files.target import Target  # noqa: E402
from nemo_embed_dask.jobs.schema.inspection import inspect_inputs, plan_units  # noqa: E402
from nemo_embed_dask.jobs.units import manifest, records, work  # noqa: E402
from nemo_embed_dask.ragged import Ragged  # noqa: E402
from nemo_embed_dask.rows import (  # noqa: E402
    Embedded,
    Stats,
    Tokenized,
)
from nemo_embed_dask.stages.tasks import EmbedTask  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "job_overhead.jsonl"
STAGE = EmbeddingCreatorStage(model_identifier="constant")
DIGESTS = {"weights": "constant", "tokenizer_and_config": "constant"}


def constant(task, texts):
    """Return the same vector for every text: takes the place of `EmbedTask.embed`."""
    rows = len(texts)
    tokens = Tokenized.from_ids(Ragged.from_rows([[0]] * rows), np.ones(rows, np.bool_))
    return Embedded.from_tokens(tokens, torch.full((rows, 384), 0.05))


def replace_model() -> None:
    """Replace the model by a constant in this process: in the client, and in workers that are threads."""
    EmbedTask.embed = constant
    for module in (plugin, preload, run, work):
        module.model_digests = lambda _: DIGESTS


def write_files(folder: Path, count: int) -> Path:
    """Create a folder with this many Parquet files of one row."""
    folder.mkdir()
    pq.write_table(pa.table({"id": [0], "text": ["one row"]}), folder / "part-000000.parquet")
    data = (folder / "part-000000.parquet").read_bytes()
    for i in range(1, count):
        (folder / f"part-{i:06}.parquet").write_bytes(data)
    return folder


def peak_mb() -> float:
    """Return the peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def jobs(parts: int, client: Client | None, folder: Path) -> dict:
    """Run the same job twice and return the times of both: the second run has nothing to do."""
    source, target = write_files(folder / "in", parts), folder / "out"
    times = {}
    for name in ("first_run", "rerun"):
        start = time.perf_counter()
        report = embed_parquet(STAGE, str(source), str(target), client=client)
        times[f"{name}_s"] = round(time.perf_counter() - start, 3)
        assert report.complete
    return {
        "bench": "job_overhead",
        "parts": parts,
        "on": "cluster" if client else "process",
        **times,
        "ms_per_part": round(times["first_run_s"] / parts * 1e3, 2),
        "rerun_ms_per_part": round(times["rerun_s"] / parts * 1e3, 3),
        "manifest_mb": round((target / manifest.MANIFEST).stat().st_size / 1e6, 2),
        "peak_mb": round(peak_mb()),
        "scheduler_mb": round(client.run_on_scheduler(peak_mb)) if client else None,
    }


@contextmanager
def cluster_of(*, scheduler_apart: bool) -> Iterator[Client]:
    """Start a worker with two threads in this process, and a scheduler in this or in another process."""
    if not scheduler_apart:
        options = {"processes": False, "n_workers": 1, "threads_per_worker": 2}
        with LocalCluster(**options, dashboard_address="127.0.0.1:0") as made, Client(made) as client:
            yield client
        return
    with tempfile.TemporaryDirectory() as name:
        file = f"{name}/scheduler.json"
        flags = ["--scheduler-file", file, "--port", "0", "--host", "127.0.0.1", "--no-dashboard"]
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *flags]
        scheduler = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            with Client(scheduler_file=file) as client:
                worker = client.sync(_worker, client.scheduler.address)
                yield client
                client.sync(worker.close)
        finally:
            scheduler.terminate()
            scheduler.wait()


async def _worker(address: str) -> Worker:
    return await Worker(address, nthreads=2, dashboard_address="127.0.0.1:0")


def fit(results: list[dict]) -> str:
    """Fit a line through the seconds of the first runs, and return it with its largest relative error."""
    parts, seconds = (np.array([result[name] for result in results]) for name in ("parts", "first_run_s"))
    slope, start = np.polyfit(parts, seconds, 1, w=1 / seconds)
    error = np.abs(slope * parts + start - seconds) / seconds
    return f"{1e3 * slope:.2f} ms per part and {start:.2f} s once; error at most {error.max():.0%}"


def table(results: list[dict]) -> str:
    """Return runs as a markdown table."""
    names = list(results[0])[1:]
    rows = [names, ["---"] * len(names), *([str(result[name]) for name in names] for result in results)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def bookkeeping(parts: int, folder: Path) -> dict:
    """Time plan, manifest and log of many files, and reading them at a restart; nothing is embedded."""
    source, store = write_files(folder / "in", parts), Target(str(folder / "out"))
    before, start = peak_mb(), time.perf_counter()
    files, _ = inputs.find_inputs([str(source)], store, {})
    inspected = inspect_inputs(files, "text", None, {})
    units = plan_units(inspected, 100_000)
    planned = time.perf_counter()
    plan = manifest.Manifest({"model": "constant"}, units, inspected[0].schema)
    store.write(manifest.MANIFEST, plan.encoded())
    saved = time.perf_counter()
    log = records.Log(store)
    for unit in units:
        log.add(records.Record(unit.name, "0" * 32, unit.file.address, Stats(rows=1), checksum="0" * 64))
    log.flush()
    logged = time.perf_counter()
    manifest.reconcile(store, plan, force=False, update=False)
    assert len(log.records()) == parts
    size = sum(path.stat().st_size for path in (folder / "out" / records.LOG).iterdir())
    return {
        "bench": "job_bookkeeping",
        "parts": parts,
        "plan_s": round(planned - start, 2),
        "manifest_s": round(saved - planned, 2),
        "log_s": round(logged - saved, 2),
        "restart_s": round(time.perf_counter() - logged, 2),
        "log_mb": round(size / 1e6, 1),
        "manifest_mb": round((folder / "out" / manifest.MANIFEST).stat().st_size / 1e6, 1),
        "client_mb": round(peak_mb() - before),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument(
        "--bookkeeping", type=int, help="number of parts to plan and restart, without embedding"
    )
    parser.add_argument("--in-process", action="store_true", help="run without a cluster")
    parser.add_argument("--scheduler-apart", action="store_true", help="run the scheduler in another process")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of JSON lines that gets the results")
    arguments = parser.parse_args()
    replace_model()
    results = []
    for parts in [arguments.bookkeeping] if arguments.bookkeeping else arguments.parts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if arguments.bookkeeping:
                result = bookkeeping(parts, folder)
            elif arguments.in_process:
                result = jobs(parts, None, folder)
            else:
                with cluster_of(scheduler_apart=arguments.scheduler_apart) as client:
                    result = jobs(parts, client, folder)
        results.append({**result, "machine": platform.processor() or platform.machine()})
        with arguments.out.open("a") as file:
            file.write(json.dumps(results[-1]) + "\n")
        print(table(results[-1:]), flush=True)
    print(table(results))
    if len(results) > 1:
        print(fit(results))


if __name__ == "__main__":
    main()
