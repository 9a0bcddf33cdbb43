"""Print a measurement as markdown tables: ``python -m benchmarks.summarize [FILES]``."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import click

from . import results
from .peers import REFERENCE

# Heading, field, format. None is printed as a dash.
COLUMNS = (
    ("tokens/s", "tokens_per_s", "{:,.0f}"),
    ("docs/s", "documents_per_s", "{:,.0f}"),
    ("padding", "padding_waste", "{:.0%}"),
    ("peak MiB", "peak_mib", "{:,.0f}"),
    ("tokenize", "share_tokenize", "{:.0%}"),
    ("model", "share_model", "{:.0%}"),
    ("rest", "share_rest", "{:.0%}"),
    ("of matmul", "matmul_share", "{:.0%}"),
    ("cosine mean", "cosine_mean", "{:.6f}"),
)


def ratios(runs: list[results.Run], base: list[results.Run]) -> list[float]:
    """Return each run's speed divided by the speed of ``base`` in the same round."""
    speed = {run["round"]: run["tokens_per_s"] for run in base}
    return [run["tokens_per_s"] / speed[run["round"]] for run in runs if run["round"] in speed]


def row(peer: str, runs: list[results.Run], base: list[results.Run]) -> list[str]:
    """Return the cells of one peer: medians, the ratio as median (min to max), and the smallest cosine."""
    medians = [(results.median_of(runs, key), style) for _, key, style in COLUMNS]
    cells = ["-" if value is None else style.format(value) for value, style in medians]
    speedups = ratios(runs, base)
    ratio = f"{median(speedups):.2f} ({min(speedups):.2f} to {max(speedups):.2f})" if speedups else "-"
    return [peer, cells[0], ratio, *cells[1:], f"{min(run['cosine_min'] for run in runs):.6f}"]


def table(runs: list[results.Run]) -> str:
    """Return the table of all peers on one corpus."""
    peers = {key[0]: group for key, group in results.group_by(runs, "peer").items()}
    heads = ["peer", COLUMNS[0][0], "x reference", *(name for name, *_ in COLUMNS[1:]), "cosine min"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    lines += [row(peer, group, peers.get(REFERENCE, [])) for peer, group in peers.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def heading(corpus: str, runs: list[results.Run]) -> str:
    """Return the heading of a table: corpus, date, machine, matmul rates and reference peer."""
    first, rates = runs[0], results.group_by(runs, "dtype")
    speed = ", ".join(
        f"{dtype} {results.median_of(group, 'matmul_gflops'):,.0f}" for (dtype,), group in rates.items()
    )
    rounds = len(results.group_by(runs, "round"))
    return (
        f"### {corpus}: {first['rows']:,} rows, {first['tokens']:,} tokens, {rounds} rounds\n\n"
        f"{first['date'][:10]}, {first['machine']['cpu']}, {first['machine']['cores']} cores, "
        f"AMX {'yes' if first['machine']['amx_bf16'] else 'no'}, "
        f"AVX512-bf16 {'yes' if first['machine']['avx512_bf16'] else 'no'}; "
        f"matmul GFLOP/s in this run: {speed}. Reference: {REFERENCE}.\n"
    )


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
def main(files: tuple[Path, ...]) -> None:
    """Print the tables of FILES, or of the newest results."""
    for (corpus,), runs in results.group_by(results.read(files or results.newest("cpu")), "corpus").items():
        click.echo(f"{heading(corpus, runs)}\n{table(runs)}\n")


if __name__ == "__main__":
    main()
