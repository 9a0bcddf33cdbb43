"""What a target says of itself: its plan, and the fingerprint of what made it. Reads no part but its footer.

The manifest is written once a run, before its first part.
"""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from ...errors import JobError
from ..files.inputs import Unit
from ..files.target import BOOKKEEPING, Target
from .fingerprint import Fingerprint, differences, digest
from .records import read_footer

MANIFEST, SUCCESS = f"{BOOKKEEPING}/manifest.json", "_SUCCESS"


def unit_key(unit: Unit, mark: str) -> str:
    """What a part must say of itself to be this unit's: of this input, under this fingerprint."""
    return digest([unit.file.address, asdict(unit.file.identity), unit.row_groups, mark])


@dataclass
class Manifest:
    """The plan of a job: its units and their fingerprint."""

    fingerprint: Fingerprint
    units: list[Unit]
    columns: pa.Schema
    generation: int = 0

    def encoded(self) -> bytes:
        """Its file's content, the same for the same plan."""
        files = {unit.file.address: asdict(unit.file.identity) for unit in self.units}
        plan = [[u.name, u.file.address, u.row_groups, u.first_row, u.rows] for u in self.units]
        content = {
            "generation": self.generation, "fingerprint": self.fingerprint, "inputs": files,
            "parts": {"columns": ["name", "input", "row_groups", "first_row", "rows"], "rows": plan},
            "schema": base64.b64encode(self.columns.serialize()).decode(),
        }  # fmt: skip
        return json.dumps(content).encode()


def load_manifest(store: Target) -> dict[str, Any] | None:
    """The target's manifest; None where there is none.

    Raises
    ------
    JobError
        It is damaged, or the target is not a job's.
    """
    raw = store.read(MANIFEST)
    if raw is None:
        names = sorted(name for name in store.list_files() if not name.startswith((".", "_")))[:20]
        strangers = [name for name in names if read_footer(store, name) is None]
        if strangers:
            raise JobError(
                f"{store.address} holds files that no job wrote, such as {strangers[0]!r}; "
                "choose an empty or a new folder"
            )
        return None
    with suppress(ValueError):
        content = json.loads(raw)
        if _is_manifest(content):
            return dict(content)
    raise JobError(
        f"{store.path(MANIFEST)} is damaged; remove that one file and run again: whole parts are kept"
    )


def _is_manifest(content: Any) -> bool:
    """Whether parsed JSON has all the values, of the right types, that `reconcile` reads."""
    match content:
        case {"generation": int(), "fingerprint": dict(), "inputs": dict(), "parts": {"rows": list(rows)}}:
            return all(isinstance(row, list) and [*map(type, row[:2])] == [str, str] for row in rows)
    return False


def earlier_columns(store: Target) -> pa.Schema | None:
    """The columns that a target's parts carry over; None where no job has run, or what it says is damaged."""
    try:
        encoded = json.loads(store.read(MANIFEST) or "{}").get("schema", "")
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded))) if encoded else None
    except (ValueError, AttributeError, TypeError):
        return None


def reconcile(store: Target, now: Manifest, *, force: bool, update: bool) -> list[str]:
    """Hold a plan against the target's manifest; say what a rerun changes.

    Returns
    -------
    list of str
        What is to be told: inputs added, changed, removed.

    Raises
    ------
    JobError
        The fingerprint differs and ``force`` is not given, or inputs changed or went without ``update``.
    """
    before = load_manifest(store)
    if before is None:
        return []
    now.generation = before["generation"]
    there = store.list_files()
    rows = before["parts"]["rows"]
    if all(row[0] not in there for row in rows):
        return []  # it was stopped before its first part
    unfinished = {row[1] for row in rows if row[0] not in there}
    differing = differences(before["fingerprint"], now.fingerprint)
    if differing:
        if not force:
            raise JobError(
                f"{store.address} was made with other settings: {'; '.join(differing)}. Two ways on: --force "
                "(force=True) replaces its parts by a new generation, or choose another target"
            )
        now.generation += 1
    return _changed_inputs(before["inputs"], unfinished, now, allowed=force or update)


def _changed_inputs(before: dict[str, Any], free: set[str], now: Manifest, *, allowed: bool) -> list[str]:
    """Inputs of the last run against those of this one; ``free`` are those that may change or go."""
    bound = {name: seen for name, seen in before.items() if name not in free}
    inputs = {unit.file.address: asdict(unit.file.identity) for unit in now.units}
    changed = {
        "changed": [name for name, seen in bound.items() if inputs.get(name, seen) != seen],
        "removed": [name for name in bound if name not in inputs],
    }
    said = [f"{len(names)} inputs {how}, such as {names[0]}" for how, names in changed.items() if names]
    if said and not allowed:
        raise JobError(
            f"since the last run: {'; '.join(said)}. Two ways on: --update (update=True) embeds changed files "
            "again and drops the parts of removed ones, or choose another target"
        )
    added = [name for name in inputs if name not in before]
    return [*said, *([f"{len(added)} inputs added, such as {added[0]}"] if added else [])]
