"""Compare runs with the goals, and print them as markdown: ``python -m benchmarks.gpu.report FILES``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from .. import results
from . import Run
from .measure import REFERENCE

# NeMo Curator's published documents/s on one GPU, and our goals.
CURATOR, TIMES_CURATOR, TIMES_PEER, MATMUL_FRACTION, IDLE = 2040.0, 10, 4, 0.35, 0.15
# Heading, field, format.
COLUMNS = (
    ("docs/s", "documents_per_s", "{:,.0f}"),
    ("tokens/s", "tokens_per_s", "{:,.0f}"),
    ("ns/token", "ns_per_token", "{:.1f}"),
    ("of matmul", "matmul_share", "{:.0%}"),
    ("device idle", "device_idle", "{:.0%}"),
    ("peak MiB", "peak_mib", "{:,.0f}"),
    ("cosine min", "cosine_min", "{:.6f}"),
)


def goals(runs: list[Run]) -> list[str]:
    """Compare runs with the goals, one line per goal. A goal without its runs is left out."""
    done = [run for run in runs if "error" not in run]
    ours = _select(done, "ours, parquet", "stories")
    theirs = _select(done, "sentence", "stories")
    lines = []
    if ours:
        best = max(ours, key=lambda run: run["documents_per_s"])
        speed = best["documents_per_s"]
        lines.append(
            f"end to end {speed / CURATOR:.1f} x Curator's {CURATOR:g} documents/s (goal: {TIMES_CURATOR} x)"
        )
        # The defaults compute in float32 in batches of 32, which is far from the best.
        if any(run["peer"] != REFERENCE for run in theirs):
            peer = max(theirs, key=lambda run: run["documents_per_s"])
            times = speed / peer["documents_per_s"]
            lines.append(f"end to end {times:.1f} x {peer['peer']}, the best (goal: {TIMES_PEER} x)")
        if "device_idle" in best:
            lines.append(f"device idle {best['device_idle']:.0%} of that time (goal: under {IDLE:.0%})")
    fractions = [run["matmul_share"] for run in _select(done, "ours, model alone", "long")]
    if fractions:
        best_fraction = f"{max(fractions):.0%} of the matmul rate"
        lines.append(f"model alone, long text: {best_fraction} (goal: {MATMUL_FRACTION:.0%})")
    low = {run["peer"]: run["cosine_min"] for run in done if run.get("cosine_min", 1) < 0.995}
    return [*lines, f"peers with a cosine below 0.995 to {REFERENCE}: {low or 'none'}"]


def _select(runs: list[Run], peer: str, case: str) -> list[Run]:
    return [run for run in runs if run["peer"].startswith(peer) and run["case"] == case]


def line(run: Run) -> str:
    """Return a run in one short line, for a terminal."""
    found = [f"{head} {style.format(run[key])}" for head, key, style in COLUMNS if run.get(key) is not None]
    return f"{run['peer']}; {run['case']}: {run.get('error') or ', '.join(found)}"


def table(runs: Iterable[Run]) -> str:
    """Return the runs of one phase as a markdown table; a run that failed has its reason in the last column."""
    heads = ["peer", "case", "computed in", *(head for head, *_ in COLUMNS), "error"]
    lines = [heads, ["---"] * 3 + ["---:"] * len(COLUMNS) + ["---"]]
    return "\n".join(f"| {' | '.join(line)} |" for line in [*lines, *map(_row, runs)])


def _row(run: Run) -> list[str]:
    cells = [style.format(run[key]) if run.get(key) is not None else "-" for _, key, style in COLUMNS]
    error = run.get("error", "").replace("|", "\\|").replace("\n", " ")
    return [run["peer"], run["case"], ", ".join(run.get("computed_in", {})) or "-", *cells, error]


def heading(phase: str, run: Run) -> str:
    """Return the heading of a phase: date, card, matmul rate and versions."""
    found: dict[str, Any] = run["machine"]
    names = ("torch", "cuda", "transformers", "tokenizers", "cudf-cu13", "dask")
    versions = ", ".join(f"{name} {found[name]}" for name in names if found.get(name))
    device = found["gpu"] or f"no GPU, {found['cpu']}"
    rate = f" Measured matmul rate: {run['matmul_tflops']:,.0f} TFLOP/s." if "matmul_tflops" in run else ""
    return f"### {phase}\n\n{run['date'][:10]}, {device}, {found['cores']} cores; {versions}.{rate}\n"


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def main(files: tuple[Path, ...]) -> None:
    """Print the tables of FILES, and what their runs say about the goals."""
    runs = results.read(files)
    for (phase,), group in results.group_by(runs, "phase").items():
        first = next((run for run in group if "error" not in run), group[0])
        click.echo(f"{heading(phase, first)}\n{table(group)}\n")
    click.echo("\n".join(f"- {line}" for line in goals(runs)))


if __name__ == "__main__":
    main()
