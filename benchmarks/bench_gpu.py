"""Measure speed on one GPU: ``python -m benchmarks.bench_gpu PHASE --out FOLDER``, one JSON line per run.

Every phase embeds the same texts: the corpora in $NEMO_EMBED_DATA, or random words from a fixed seed if that
folder is missing. To separate host and device time, the model runs on prepared tokens ("model alone"), on texts
("engine"), and from Parquet to Parquet. ``device_idle`` is the fraction of time that is idle by the driver.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
from contextlib import suppress
from pathlib import Path

import torch

from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.locate import find_model

from .gpu import DEVICE, SETTINGS, Run
from .gpu.clusters import scaling
from .gpu.models import compilation, decoder
from .gpu.peers import REFERENCE, peers

PHASES = {"peers": peers, "scaling": scaling, "decoder": decoder, "compilation": compilation}
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "cudf-cu13",
    "dask",
    "dask-cuda",
    "sentence-transformers",
    "flash-attn",
    "crossfit",
    "numpy",
    "pandas",
)
# NeMo Curator's published documents/s on one GPU, and our goals.
CURATOR, TIMES_CURATOR, TIMES_PEER, MATMUL_FRACTION, IDLE = 2040.0, 10, 4, 0.35, 0.15


def describe() -> Run:
    """Return the GPU, the number of cores, and the versions of the packages that influence speed."""
    found: Run = {"cores": len(os.sched_getaffinity(0)), "cuda": torch.version.cuda}
    found["gpu"] = torch.cuda.get_device_name() if DEVICE.type == "cuda" else None
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def goals(runs: list[Run]) -> list[str]:
    """Compare the runs of MiniLM with the goals, one line per goal. A goal without its runs is left out."""
    done = [run for run in runs if "seconds" in run]
    ours = [r for r in done if r["peer"].startswith("ours, parquet") and r["corpus"] == "stories"]
    theirs = [r for r in done if r["peer"].startswith("sentence") and r["corpus"] == "stories"]
    alone = [r for r in done if r["peer"] == "ours, model alone" and r["corpus"] == "long"]
    lines = []
    if ours:
        best = max(ours, key=lambda run: run["documents_per_s"])
        speed = best["documents_per_s"]
        lines.append(
            f"end to end {speed / CURATOR:.1f} x Curator's {CURATOR:g} documents/s (goal: {TIMES_CURATOR} x)"
        )
        if theirs:
            peer = max(run["documents_per_s"] for run in theirs)
            lines.append(f"end to end {speed / peer:.1f} x sentence-transformers' best (goal: {TIMES_PEER} x)")
        if "device_idle" in best:
            lines.append(f"device idle {best['device_idle']:.0%} of that time (goal: under {IDLE:.0%})")
    fractions = [run["matmul_share"] for run in alone if "matmul_share" in run]
    if fractions:
        best_fraction = f"{max(fractions):.0%} of the matmul rate"
        lines.append(f"model alone, long text: {best_fraction} (goal: {MATMUL_FRACTION:.0%})")
    low = {run["peer"]: run["cosine_min"] for run in done if run.get("cosine_min", 1) < 0.995}
    return [*lines, f"peers with a cosine below 0.995 to {REFERENCE}: {low or 'none'}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=["all", "versions", *PHASES])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--scale", type=float, default=1.0, help="Fraction of the rows, for a quick test.")
    parser.add_argument("--minutes", type=float, default=9.0, help="Start no run after this time.")
    arguments = parser.parse_args()
    common = describe() | {"max_seq_length": read_card(find_model(SETTINGS.model)).max_seq_length}
    print(json.dumps(common), flush=True)
    if arguments.phase != "versions":
        measure(list(PHASES) if arguments.phase == "all" else [arguments.phase], arguments, common)


def measure(phases: list[str], arguments: argparse.Namespace, common: Run) -> None:
    """Run some phases, and write each run as soon as it is done."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    started, runs = dt.datetime.now(dt.UTC), []
    path = arguments.out / f"gpu-{started:%Y%m%dT%H%M%S}.jsonl"
    for name in phases:
        for run in PHASES[name](arguments.scale):
            now = dt.datetime.now(dt.UTC)
            line = {"date": now.isoformat(timespec="seconds"), "phase": name, **run, "machine": common}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps({key: run[key] for key in run if key != "flops"}), flush=True)
            runs.append(run)
            if (now - started).total_seconds() > arguments.minutes * 60:
                print(f"stopped after {arguments.minutes:g} minutes; the runs so far are in {path}")
                print(*goals(runs), sep="\n")
                return
    print(*goals(runs), sep="\n")


if __name__ == "__main__":
    main()
