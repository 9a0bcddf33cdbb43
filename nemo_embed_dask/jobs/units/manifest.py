"""The manifest: the plan of a job and its fingerprint, as a JSON file in the target.

It is written once per run, before the first part.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from ...errors import JobError
from ..files.inputs import Unit
from ..files.target import BOOKKEEPING, Target
from .fingerprint import Fingerprint, differences, digest
from .records import read_footer

MANIFEST, SUCCESS = f"{BOOKKEEPING}/manifest.json", "_SUCCESS"
NO_JOB = "is not the target of a job; name the folder that a job writes to"
NO_REPORT = "has no report yet, because no run of its job has ended; nemo-embed errors shows the job's state"


def unit_key(unit: Unit, fingerprint_hash: str) -> str:
    """Return the key in the footer of a unit's part: a hash of its input file, row groups and fingerprint."""
    return _key(unit.file.address, asdict(unit.file.identity), unit.row_groups, fingerprint_hash)


def _key(address: str, identity: dict[str, Any], row_groups: Any, fingerprint_hash: str) -> str:
    return digest([address, identity, row_groups, fingerprint_hash])


def hash_fingerprint(fingerprint: Fingerprint, copied_columns: pa.Schema) -> str:
    """Return a hash of a job's fingerprint and of the types of the copied columns."""
    return digest([fingerprint, copied_columns.to_string(show_field_metadata=False)])


@dataclass(frozen=True)
class Manifest:
    """The plan of a job.

    Attributes
    ----------
    fingerprint : dict
    units : list of Unit
    copied_columns : pyarrow.Schema
        The input columns that are copied into the parts.
    generation : int
        How often ``force`` has replaced the parts of the target.
    """

    fingerprint: Fingerprint
    units: list[Unit]
    copied_columns: pa.Schema
    generation: int = 0

    def encoded(self) -> bytes:
        """Return the content of the file; the same for the same plan."""
        units = [[u.name, u.file.address, u.row_groups, u.first_row, u.rows] for u in self.units]
        content = {
            "generation": self.generation,
            "fingerprint": self.fingerprint,
            "inputs": self.inputs(),
            "parts": {"columns": ["name", "input", "row_groups", "first_row", "rows"], "rows": units},
            "schema": base64.b64encode(self.copied_columns.serialize()).decode(),
        }
        return json.dumps(content).encode()

    def inputs(self) -> dict[str, Any]:
        """Return the identity of each input as JSON, by address."""
        return {unit.file.address: asdict(unit.file.identity) for unit in self.units}


@dataclass(frozen=True)
class PlannedUnit:
    """A unit as a manifest in a target has it; see `Unit`. ``key``: see `unit_key`."""

    name: str
    address: str
    row_groups: tuple[int, int] | None
    first_row: int
    rows: int | None
    key: str


def planned_units(content: dict[str, Any]) -> Iterator[PlannedUnit]:
    """Yield the units of a manifest that `load_manifest` has read."""
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(content["schema"])))
    fingerprint_hash = hash_fingerprint(content["fingerprint"], schema)
    for name, address, row_groups, first_row, rows in content["parts"]["rows"]:
        key = _key(address, content["inputs"][address], row_groups, fingerprint_hash)
        groups = tuple(row_groups) if row_groups else None
        yield PlannedUnit(name, address, groups, first_row, rows, key)


def load_manifest(target: Target) -> dict[str, Any] | None:
    """Return the content of the target's manifest; None if the target is new.

    Raises
    ------
    JobError
        The manifest is damaged, or the target holds files that no job wrote.
    """
    raw = target.read(MANIFEST)
    if raw is None:
        _check_no_foreign_files(target)
        return None
    with suppress(ValueError):
        content = json.loads(raw)
        if _is_manifest(content):
            return dict(content)
    raise JobError(
        f"{target.path(MANIFEST)} is damaged; remove that one file and run again: whole parts are kept"
    )


def _check_no_foreign_files(target: Target) -> None:
    names = sorted(name for name in target.list_files() if not name.startswith((".", "_")))[:20]
    foreign = [name for name in names if read_footer(target, name) is None]
    if foreign:
        raise JobError(
            f"{target.address} holds files that no job wrote, such as {foreign[0]!r}; "
            "choose an empty or a new folder"
        )


def _is_manifest(content: Any) -> bool:
    """Return whether parsed JSON has all values that `reconcile` reads, of the right types."""
    match content:
        case {"generation": int(), "fingerprint": dict(), "inputs": dict(), "parts": {"rows": list(rows)}}:
            return all(isinstance(row, list) and [*map(type, row[:2])] == [str, str] for row in rows)
    return False


def earlier_columns(target: Target) -> pa.Schema | None:
    """Return the copied columns of the target's last run; None if there was none or its manifest is damaged."""
    try:
        encoded = json.loads(target.read(MANIFEST) or "{}").get("schema", "")
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded))) if encoded else None
    except (ValueError, AttributeError, TypeError):
        return None


def reconcile(target: Target, manifest: Manifest, *, force: bool, update: bool) -> tuple[Manifest, list[str]]:
    """Compare a new plan with the last run in the target, and check that the plan may continue it.

    Returns
    -------
    manifest : Manifest
        The plan with the target's generation; the next one if ``force`` replaces parts.
    notes : list of str
        Inputs that were added, changed or removed.

    Raises
    ------
    JobError
        The fingerprint differs without ``force``, or inputs changed or were removed without ``update``.
    """
    before = load_manifest(target)
    if before is None:
        return manifest, []
    manifest = replace(manifest, generation=before["generation"])
    present = target.list_files()
    rows = before["parts"]["rows"]
    missing = [(name, address) for name, address, *_ in rows if name not in present]
    if len(missing) == len(rows):
        return manifest, []  # the last run was stopped before its first part
    differing = differences(before["fingerprint"], manifest.fingerprint)
    if differing and not force:
        raise JobError(
            f"{target.address} was made with other settings: {'; '.join(differing)}. Pass --force (force=True) "
            "to replace its parts with a new generation, or choose another target"
        )
    if differing:
        manifest = replace(manifest, generation=manifest.generation + 1)
    unfinished = {address for _, address in missing}
    finished = {address: old for address, old in before["inputs"].items() if address not in unfinished}
    changes = _changes(finished, manifest.inputs(), allowed=force or update)
    added = [address for address in manifest.inputs() if address not in before["inputs"]]
    return manifest, [*changes, *_note(added, "added")]


def _changes(finished: dict[str, Any], inputs: dict[str, Any], *, allowed: bool) -> list[str]:
    """Return notes on inputs that were changed or removed after all their parts were written.

    Raises
    ------
    JobError
        There are such inputs, and that is not allowed.
    """
    changed = [name for name, identity in finished.items() if inputs.get(name, identity) != identity]
    removed = [name for name in finished if name not in inputs]
    notes = [*_note(changed, "changed"), *_note(removed, "removed")]
    if notes and not allowed:
        raise JobError(
            f"since the last run: {'; '.join(notes)}. Pass --update (update=True) to embed changed files again "
            "and to remove the parts of removed ones, or choose another target"
        )
    return notes


def _note(inputs: list[str], change: str) -> list[str]:
    return [f"{len(inputs)} inputs {change}, such as {inputs[0]}"] if inputs else []
