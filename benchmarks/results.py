"""JSON lines of runs: written, read, grouped. Knows neither peers nor machine."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

FOLDER = Path(__file__).parent / "results"
Run = dict[str, Any]


def append(path: Path, run: Run) -> None:
    """Add one run to a file, at once: an interrupted measurement keeps what it has."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(run) + "\n")


def read(paths: Iterable[Path]) -> list[Run]:
    """All runs of some files."""
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def newest(kind: str) -> list[Path]:
    """The newest file of a kind in the results folder."""
    return sorted(FOLDER.glob(f"{kind}-*.jsonl"))[-1:]


def by(runs: Iterable[Run], *keys: str) -> dict[tuple[Any, ...], list[Run]]:
    """Runs grouped by some fields, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[tuple(run[key] for key in keys)].append(run)
    return dict(groups)


def middle(runs: Iterable[Run], key: str) -> float | None:
    """The median of a field over runs; None where none has it."""
    values = [run[key] for run in runs if run.get(key) is not None]
    return median(values) if values else None
