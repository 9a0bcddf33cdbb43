"""The picture of a report: where the workers' time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import JobError
from .files.errors import describe_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Largest number of workers in a picture.
_MAX_BARS = 40
_PICTURES = (".png", ".svg", ".pdf", ".jpg")


def draw_steps(workers: Mapping[str, Mapping[str, float]], steps: Sequence[str], title: str) -> Figure:
    """Draw the seconds per worker and step.

    Raises
    ------
    JobError
        matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise JobError("drawing needs matplotlib: pip install 'nemo-embed-dask[plot]'") from None
    figure = Figure(figsize=(8, 1.6 + 0.4 * min(_MAX_BARS, max(1, len(workers)))), layout="constrained")
    _draw_bars(figure, workers, steps)
    figure.axes[0].set_title(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _draw_bars(figure: Figure, workers: Mapping[str, Mapping[str, float]], steps: Sequence[str]) -> None:
    """Draw one horizontal bar per worker, for the workers that were busy longest."""
    seconds = {name: sum(times.values()) for name, times in workers.items()}
    names = sorted(seconds, key=lambda name: seconds[name])[-_MAX_BARS:]
    labels = [name.rpartition("://")[2] for name in names]
    axes = figure.subplots()
    left = [0.0] * len(names)
    for step in steps:
        times = [workers[name][step] for name in names]
        axes.barh(labels, times, left=left, label=step)
        left = [a + b for a, b in zip(left, times, strict=True)]
    axes.margins(y=0.02)
    if len(seconds) > len(names):
        axes.set_ylabel(f"the {len(names)} busiest of {len(seconds)} workers")
    axes.set_xlabel("seconds")


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure to a file, in the format that the ending of the path names.

    Raises
    ------
    JobError
        The ending is unknown, or the file cannot be written.
    """
    if path.suffix.lower() not in _PICTURES:
        raise JobError(f"{path} cannot be drawn: the name of a picture must end in {', '.join(_PICTURES)}")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise JobError(
            f"{path} cannot be written ({describe_error(error)}); choose another place with --picture"
        ) from error
