"""Plot a measurement: ``python -m benchmarks.plot [FILES] --out benchmarks/results/cpu.png``."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import click
import matplotlib as mpl

from . import results

mpl.use("Agg")
import matplotlib.pyplot as plt

COLORS = {"ours": "#1f6f4a", "others": "#9aa5b1"}


def draw(axes: plt.Axes, corpus: str, runs: list[results.Run]) -> None:
    """Draw a bar of the median tokens/s for each peer, slowest on top, with a line from minimum to maximum."""
    peers = {
        key[0]: [run["tokens_per_s"] for run in group] for key, group in results.group_by(runs, "peer").items()
    }
    names = sorted(peers, key=lambda name: -median(peers[name]))
    for place, name in enumerate(names):
        speeds = sorted(peers[name])
        middle = median(speeds)
        axes.barh(place, middle, color=COLORS["ours" if name.startswith("ours") else "others"], height=0.72)
        axes.plot([speeds[0], speeds[-1]], [place, place], color="black", linewidth=1.2, marker="|")
        axes.annotate(f"{middle:,.0f}", (speeds[-1], place), (6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(names)), names)
    axes.margins(x=0.14)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        f"{corpus}: {runs[0]['rows']:,} texts, {runs[0]['tokens']:,} tokens", loc="left", fontsize=11
    )
    axes.set_xlabel("tokens/s, padding not counted")


def picture(runs: list[results.Run], path: Path) -> None:
    """Save a figure with one panel per corpus, two in each row."""
    corpora = results.group_by(runs, "corpus")
    lines = (len(corpora) + 1) // 2
    figure, panels = plt.subplots(lines, min(2, len(corpora)), figsize=(15, 0.6 + 4.1 * lines), squeeze=False)
    for axes, ((corpus,), group) in zip(panels.flat, corpora.items(), strict=False):
        draw(axes, corpus, group)
    for axes in panels.flat[len(corpora) :]:
        axes.axis("off")
    host, rounds = runs[0]["machine"], len(results.group_by(runs, "round"))
    amx = "with" if host["amx_bf16"] else "without"
    figure.suptitle(
        f"all-MiniLM-L6-v2, {host['cores']} cores of {host['cpu']} {amx} AMX: "
        f"median of {rounds} interleaved rounds, line from minimum to maximum",
        x=0.01,
        ha="left",
        fontsize=12,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--out", default=results.FOLDER / "cpu.png", type=click.Path(path_type=Path))
def main(files: tuple[Path, ...], out: Path) -> None:
    """Plot FILES, or the newest results."""
    picture(results.read(files or results.newest("cpu")), out)
    click.echo(out)


if __name__ == "__main__":
    main()
