"""Which parts of a target are whole and up to date, and which are stale."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import pyarrow as pa

from ..files.file_identity import FileIdentity
from ..files.streams import ReadStream
from ..files.target import Target
from ..formats.parquet import open_parquet, read_pieces
from .records import Record, Records, read_footer


def whole_parts(target: Target, keys: dict[str, str], logged: Records) -> Iterator[Record]:
    """Yield the records of the parts that are whole and belong to the current plan.

    A part is trusted if its size and version are those in the log; any other part is read completely. Damaged
    parts are removed, so that they are written again.

    Parameters
    ----------
    target : Target
        The target.
    keys : dict
        The parts of the plan: name -> key.
    logged : dict
        The records in the log.
    """
    listed = target.list_files()
    for name in sorted(keys.keys() & listed.keys()):
        candidates = [record for record in logged.get(name, ()) if record.key == keys[name]]
        record = next((record for record in candidates if record.identity == listed[name]), None)
        if record is None:
            footer = read_footer(target, name)
            if footer and footer.key != keys[name]:
                continue  # of an earlier generation or input: replaced when its unit is done
            record = verify_part(target, footer, listed[name], candidates) if footer else None
        if record is None:
            target.remove(name)
        else:
            yield record


def verify_part(
    target: Target, footer: Record, identity: FileIdentity, logged: Sequence[Record] = ()
) -> Record | None:
    """Read a whole part and return its record; None if it is damaged or matches none of the logged records.

    Parameters
    ----------
    target : Target
        The target.
    footer : Record
        The record in the part's footer.
    identity : FileIdentity
        The part's current size and version.
    logged : sequence of Record
        The part's records in the log, if there are any.
    """
    data = target.read(footer.name)
    if data is None or not _readable(data):
        return None
    checksum = hashlib.sha256(data).hexdigest()
    same = next((record for record in logged if record.checksum == checksum), None)
    if logged and same is None:
        return None
    return replace(same or footer, checksum=checksum, identity=identity)


def _readable(data: bytes) -> bool:
    """Return whether every page of a Parquet file can be read and matches its checksum."""
    try:
        handle = ReadStream(io.BytesIO(data), nullcontext)
        with open_parquet(handle) as part:
            batches = read_pieces(part, handle, range(part.num_row_groups), part.schema_arrow.names)
            return bool(sum(batch.num_rows for batch in batches) == part.metadata.num_rows)
    except (OSError, pa.ArrowException):
        return False


def remove_stale_parts(target: Target, keys: dict[str, str], names: Iterable[str]) -> list[str]:
    """Remove parts that do not belong to the current plan.

    These are parts of removed inputs, of an earlier plan, or of earlier versions of inputs that fail now.

    Parameters
    ----------
    target : Target
        The target.
    keys : dict
        The parts of the plan: name -> key.
    names : iterable of str
        The files to check.

    Returns
    -------
    list of str
        Parquet files that no job wrote; they are kept.
    """
    foreign = []
    for name in sorted(name for name in names if name.endswith(".parquet")):
        footer = read_footer(target, name)
        if footer and footer.key != keys.get(name):
            target.remove(name)
        elif footer is None and name not in keys:
            foreign.append(name)
    return foreign
