"""Which parts of a target are whole, and which are no part of it. Reads parts; writes none."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import pyarrow as pa

from ..files.identity import Identity
from ..files.store import Store
from ..files.streams import Source
from ..formats.parquet import read_pieces, open_parquet
from .records import Record, Records, read_footer


def whole_parts(store: Store, wanted: dict[str, str], known: Records) -> Iterator[Record]:
    """The parts that are there and whole, under the keys wanted (name -> key).

    A part whose identity is a logged one is taken at that; any other is read through. A damaged part is
    removed, so that it is made again.
    """
    listed = store.listing()
    for name in sorted(wanted.keys() & listed.keys()):
        logged = [record for record in known.get(name, ()) if record.key == wanted[name]]
        sure = next((record for record in logged if record.identity == listed[name]), None)
        if sure is None:
            read = read_footer(store, name)
            if read and read.key != wanted[name]:
                continue  # of an older generation or input: replaced when its unit is done
            sure = examined(store, read, listed[name], logged) if read else None
        if sure is None:
            store.remove(name)
        else:
            yield sure


def examined(store: Store, read: Record, seen: Identity, logged: Sequence[Record] = ()) -> Record | None:
    """A part's full record, from reading every byte of it; None if it is damaged, or none of those logged."""
    data = store.read(read.name)
    if data is None or not _readable(data):
        return None
    checksum = hashlib.sha256(data).hexdigest()
    same = next((record for record in logged if record.checksum == checksum), None)
    if logged and same is None:
        return None
    return replace(same or read, checksum=checksum, identity=seen)


def _readable(data: bytes) -> bool:
    """Whether every page of a part can be read and has its checksum, for a part that no log vouches for."""
    try:
        handle = Source(io.BytesIO(data), nullcontext)
        with open_parquet(handle) as part:
            batches = read_pieces(part, handle, range(part.num_row_groups), part.schema_arrow.names)
            return bool(sum(batch.num_rows for batch in batches) == part.metadata.num_rows)
    except (OSError, pa.ArrowException):
        return False


def drop_strangers(store: Store, wanted: dict[str, str], names: Iterable[str]) -> list[str]:
    """Remove those parts that are not under the keys wanted (name -> key).

    They are of removed inputs, of an older plan, or of older versions of inputs that fail now.

    Returns
    -------
    list of str
        Parquet files that no job wrote; they are left alone.
    """
    others = []
    for name in sorted(name for name in names if name.endswith(".parquet")):
        read = read_footer(store, name)
        if read and read.key != wanted.get(name):
            store.remove(name)
        elif read is None and name not in wanted:
            others.append(name)
    return others
