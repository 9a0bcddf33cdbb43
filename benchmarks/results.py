"""Runs as JSON lines: write, read and group them."""

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
    """Append one run to a file at once, so that an interrupted measurement keeps its earlier runs."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(run) + "\n")


def read(paths: Iterable[Path]) -> list[Run]:
    """Read all runs of some files."""
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def newest(kind: str) -> list[Path]:
    """Return the newest file of a kind in the results folder, as a list of at most one."""
    return sorted(FOLDER.glob(f"{kind}-*.jsonl"))[-1:]


def group_by(runs: Iterable[Run], *keys: str) -> dict[tuple[Any, ...], list[Run]]:
    """Group runs by some fields, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[tuple(run[key] for key in keys)].append(run)
    return dict(groups)


def median_of(runs: Iterable[Run], key: str) -> float | None:
    """Return the median of a field over runs, or None if no run has it."""
    values = [run[key] for run in runs if run.get(key) is not None]
    return median(values) if values else None
