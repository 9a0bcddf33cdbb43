"""Measure speed on one GPU: ``python -m benchmarks.bench_gpu PHASE --out FOLDER``, one JSON line per run.

All peers embed the same texts: the corpora in $NEMO_EMBED_DATA, or random words from a fixed seed if that
folder is missing. Each peer runs in a process of its own. It embeds as many rows as take about a second (from
Parquet to Parquet, five), once to warm up, and then again for at least ``--seconds``. ``device_idle`` is the
fraction of that time in which the device does not run the model, from events on its stream. At the end the runs
of the day on this machine are compared with the goals.
"""

from __future__ import annotations

import datetime as dt
import json
import signal
import tempfile
import time
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import torch

from . import machine, results
from .gpu import DEVICE, Options, Run
from .gpu.processes import run_peer, stop
from .gpu.report import goals, line

PHASES = {
    "peers": "benchmarks.gpu.peers",
    "scaling": "benchmarks.gpu.clusters",
    "decoder": "benchmarks.gpu.models",
    "ways": "benchmarks.gpu.ways",
}
PACKAGES = ("cudf-cu13", "dask-cuda", "flash-attn", "crossfit", "triton")


def describe() -> Run:
    """Return the machine, its GPU, and the versions of the packages that influence speed."""
    found = machine.describe() | machine.versions() | {"cuda": torch.version.cuda, "gpu": None}
    if DEVICE.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def measure(
    phase: str, jobs: dict[str, tuple[str, ...]], options: Options, *, path: Path, minutes: float, common: Run
) -> None:
    """Run the peers of a phase one after the other, and write each run as soon as it is measured."""
    module, end = import_module(PHASES[phase]), time.monotonic() + minutes * 60
    for peer, cases in jobs.items():
        expected, left = estimate(module, {peer: cases}, options), end - time.monotonic()
        if expected > left:
            click.echo(f"{phase}, {peer}: not started, because {max(0, left):.0f} s are left of {expected:.0f}")
            continue
        for run in run_peer(PHASES[phase], peer, cases, options, timeout=min(left, 60 + 2 * expected)):
            date = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            results.append(path, {"date": date, "phase": phase, **run, "machine": common})
            click.echo(line(run))


def estimate(module: Any, jobs: dict[str, tuple[str, ...]], options: Options) -> float:
    """Return about how many seconds these peers take."""
    return sum(module.START_S + len(cases) * module.case_s(options) for cases in jobs.values())


def chosen(jobs: dict[str, tuple[str, ...]], peers: tuple[str, ...], cases: tuple[str, ...]) -> dict[str, Any]:
    """Return the jobs of peers whose name contains one of ``peers``, on ``cases`` if any are given."""
    names = [name for name in jobs if not peers or any(part in name for part in peers)]
    return {name: cases or jobs[name] for name in names}


def runs_today(folder: Path, common: Run) -> list[Run]:
    """Return today's runs in the folder on this machine with these versions."""
    runs = results.read(sorted(folder.glob("gpu-*.jsonl")))
    today = dt.datetime.now(dt.UTC).date().isoformat()
    return [run for run in runs if run["machine"] == common and run["date"].startswith(today)]


@click.command(context_settings={"show_default": True})
@click.argument("phase", type=click.Choice(["versions", *PHASES]))
@click.option("--out", default=results.FOLDER, type=click.Path(path_type=Path, file_okay=False))
@click.option("--scale", default=1.0, help="Fraction of the rows, for a quick test.")
@click.option("--seconds", default=5.0, help="Least time of a measured run.")
@click.option("--minutes", default=9.0, help="Start no peer that would not end in this time.")
@click.option("--peer", "peers", multiple=True, help="Only peers with this in their name; repeatable.")
@click.option("--case", "cases", multiple=True, help="Another corpus, or other case; repeatable.")
def main(
    phase: str, out: Path, scale: float, seconds: float, minutes: float, peers: Any, cases: tuple[str, ...]
) -> None:
    """Measure one phase."""
    # So that a measurement that is stopped from outside ends the process of its peer.
    signal.signal(signal.SIGTERM, stop)
    common = describe()
    click.echo(json.dumps(common))
    if phase == "versions":
        return
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"gpu-{phase}-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}.jsonl"
    module = import_module(PHASES[phase])
    jobs = chosen(module.jobs(), peers, cases)
    with tempfile.TemporaryDirectory() as folder:
        options = Options(scale, seconds, Path(folder))
        click.echo(f"{len(jobs)} peers, about {estimate(module, jobs, options) / 60:.1f} minutes")
        measure(phase, jobs, options, path=path, minutes=minutes, common=common)
    click.echo("\n".join([*goals(runs_today(out, common)), f"results: {path}"]))


if __name__ == "__main__":
    main()
