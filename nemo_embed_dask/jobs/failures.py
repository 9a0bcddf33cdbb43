"""What a job could not embed, read from its target: also while it runs, and after it was interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from ..errors import JobError
from .files.masking import make_printable, mask_secrets
from .files.target import Target
from .units.manifest import MANIFEST, NO_JOB, SUCCESS, PlannedUnit, load_manifest, planned_units
from .units.records import FailedUnit, Log, Record, group_records, read_footer
from .units.state import count

# Number of rows with the same reason whose positions are shown.
_MAX_ROWS = 10


def _without_address(reason: str, address: str) -> str:
    """Return a reason without the file's address, where it starts with it."""
    return reason.removeprefix(address).lstrip(":, ")


@dataclass(frozen=True)
class Failure:
    """A file, a piece of a file or a row that has no vectors.

    Attributes
    ----------
    unit : PlannedUnit
        The work that failed.
    reason : str
    row : int, optional
        The row of the file, counted from 0, if only one row failed.
    """

    unit: PlannedUnit
    reason: str
    row: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the failure as JSON: ``row`` is null if more than one row failed.

        ``row_groups`` are the first one and the one after the last.
        """
        unit = asdict(self.unit)
        known = {name: unit[name] for name in ("row_groups", "first_row", "rows")}
        return {
            "file": self.unit.address,
            "part": self.unit.name,
            **known,
            "row": self.row,
            "reason": _without_address(self.reason, self.unit.address),
        }

    @property
    def place(self) -> str:
        """The file, and the rows if they are only some of it."""
        unit, place = self.unit, make_printable(self.unit.address)
        if unit.row_groups is None or unit.rows is None:
            return place
        first, end = unit.row_groups
        last_row = unit.first_row + unit.rows - 1
        groups = f"row group {first}" if end - first == 1 else f"row groups {first} to {end - 1}"
        return f"{place}, rows {unit.first_row:,} to {last_row:,} ({groups})"

    @property
    def explanation(self) -> str:
        """The reason without the file's address, where it starts with it."""
        return make_printable(_without_address(self.reason, self.unit.address))


@dataclass(frozen=True)
class Failures:
    """All failures of a job so far, in the order of its plan.

    ``files``: units without a part. ``rows``: rows with a null vector. ``parts``, ``whole``: number of parts of
    the job, and of those that are in the target. ``complete``: whether the job has ended without failed files.
    """

    target: str
    files: list[Failure]
    rows: list[Failure]
    parts: int
    whole: int
    complete: bool


def find_failures(target: str, options: dict[str, Any] | None = None) -> Failures:
    """Read the failures of a job from its target.

    Raises
    ------
    JobError
        No job has written to the target, or its manifest is damaged.
    """
    folder = Target(target, options or {})
    folder.check_reachable()
    content = load_manifest(folder) if folder.read(MANIFEST) is not None else None
    if content is None:
        raise JobError(f"{mask_secrets(target)} {NO_JOB}")
    try:
        units = list(planned_units(content))
    except (KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise JobError(
            f"{mask_secrets(folder.path(MANIFEST))} is damaged; remove that one file and run the job again"
        ) from error
    failed, records = _read_log(folder)
    whole = dict(_whole_parts(folder, units, records))
    return Failures(
        mask_secrets(folder.address),
        [Failure(unit, failed[unit.key]) for unit in units if unit.name not in whole and unit.key in failed],
        [
            Failure(unit, why, row)
            for unit in units
            if unit.name in whole
            for row, why in sorted(whole[unit.name].failures.items())
        ],
        len(units),
        len(whole),
        folder.read(SUCCESS) is not None,
    )


def _read_log(folder: Target) -> tuple[dict[str, str], dict[str, list[Record]]]:
    """Return the reasons of the units that failed in their last attempt, by key; and all records."""
    failed: dict[str, str] = {}
    entries = list(Log(folder).entries())
    for entry in entries:
        if isinstance(entry, FailedUnit):
            failed[entry.key] = entry.failed
        else:
            failed.pop(entry.key, None)
    return failed, group_records(entries)


def _whole_parts(
    folder: Target, units: list[PlannedUnit], records: dict[str, list[Record]]
) -> Iterator[tuple[str, Record]]:
    """Yield the names and records of the parts in the target that belong to the plan; read only footers."""
    listed = folder.list_files()
    for unit in units:
        if unit.name not in listed:
            continue
        known = (record for record in records.get(unit.name, ()) if record.identity == listed[unit.name])
        record = next(known, None) or read_footer(folder, unit.name)
        if record and record.key == unit.key:
            yield unit.name, record


def describe_failures(found: Failures) -> Iterator[str]:
    """Yield lines of text: files first, then rows, then the state of the job. Explanations are indented."""
    if found.files:
        yield f"{count(len({failure.unit.address for failure in found.files}), 'file', 'files')} failed:"
        for failure in found.files:
            yield from (failure.place, f"    {failure.explanation}")
        yield "Correct or remove these files, or correct the flags, then run the job's command again.\n"
    if found.rows:
        yield f"{count(len(found.rows), 'row', 'rows')} could not be embedded, and got null vectors:"
        yield from _describe_rows(found.rows)
        yield "Correct these rows, then run the job's command again with --update.\n"
    yield _state(found)


def _describe_rows(failures: list[Failure]) -> Iterator[str]:
    for (address, reason), group in groupby(failures, key=lambda each: (each.unit.address, each.reason)):
        rows = [failure.row for failure in group]
        shown = ", ".join(f"{row:,}" for row in rows[:_MAX_ROWS])
        more = f" and {len(rows) - _MAX_ROWS:,} more (--json lists all)" if len(rows) > _MAX_ROWS else ""
        yield make_printable(f"{address}, {'row' if len(rows) == 1 else 'rows'} {shown}{more}")
        yield f"    {make_printable(reason)}"


def _state(found: Failures) -> str:
    parts = f"{found.whole:,} of {count(found.parts, 'part is', 'parts are')} whole"
    if found.complete:
        return f"{parts}; the job has ended." if found.rows else f"{parts}; the job has ended without errors."
    if found.whole + len(found.files) == found.parts:
        return f"{parts}."
    return f"{parts}: the job runs, or was interrupted and continues if you run its command again."
