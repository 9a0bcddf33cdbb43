"""Medians and ratios of a measurement as markdown: ``python -m benchmarks.summarize [FILES]``."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import click

from . import results
from .peers import REFERENCE

# Heading, field, format; None prints as a dash.
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
    """Speed over the base's in the same round."""
    speed = {run["round"]: run["tokens_per_s"] for run in base}
    return [run["tokens_per_s"] / speed[run["round"]] for run in runs if run["round"] in speed]


def row(peer: str, runs: list[results.Run], base: list[results.Run]) -> list[str]:
    """One peer's line: medians over rounds; the least cosine; the ratio as median (least to greatest)."""
    cells = [style.format(value) if (value := results.middle(runs, key)) is not None else "-"
             for _, key, style in COLUMNS]  # fmt: skip
    times = ratios(runs, base)
    ratio = f"{median(times):.2f} ({min(times):.2f} to {max(times):.2f})" if times else "-"
    return [peer, cells[0], ratio, *cells[1:], f"{min(run['cosine_min'] for run in runs):.6f}"]


def table(runs: list[results.Run]) -> str:
    """All peers on one corpus."""
    peers = {key[0]: group for key, group in results.by(runs, "peer").items()}
    heads = ["peer", COLUMNS[0][0], "x reference", *(name for name, *_ in COLUMNS[1:]), "cosine min"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    lines += [row(peer, group, peers.get(REFERENCE, [])) for peer, group in peers.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def heading(corpus: str, runs: list[results.Run]) -> str:
    """What the table under it was measured on; the ratios' reference."""
    first, rates = runs[0], results.by(runs, "dtype")
    speed = ", ".join(
        f"{dtype} {results.middle(group, 'matmul_gflops'):,.0f}" for (dtype,), group in rates.items()
    )
    rounds = len(results.by(runs, "round"))
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
    for (corpus,), runs in results.by(results.read(files or results.newest("cpu")), "corpus").items():
        click.echo(f"{heading(corpus, runs)}\n{table(runs)}\n")


if __name__ == "__main__":
    main()
