"""What a target says of itself: the plan, the fingerprint, and which parts are whole. Embeds nothing.

The manifest is written once a run, before its first part. A part's own footer carries its record; the log
repeats it with the file's identity and checksum, so that a rerun needs one listing and a few small reads.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import JobError
from ..settings import Stats
from .fingerprint import Fingerprint, differences, digest
from .inputs import Unit
from .storage import BOOKKEEPING, Identity, Store

MANIFEST, SUCCESS, LOG = f"{BOOKKEEPING}/manifest.json", "_SUCCESS", f"{BOOKKEEPING}/log"
_FOOTER_KEY = b"nemo_embed_dask"
_LOG_RECORDS, _LOG_SECONDS = 1000, 15.0


@dataclass
class Record:
    """What is known of a whole part. ``failures``: row of the input file -> reason. Times in seconds."""

    name: str
    key: str
    input: str
    stats: Stats
    failures: dict[int, str] = field(default_factory=dict)
    worker: str = ""
    read_s: float = 0.0
    write_s: float = 0.0
    checksum: str = ""
    identity: Identity = field(default_factory=lambda: Identity(-1, ""))


def encode_record(record: Record) -> str:
    """A record as one line of JSON."""
    return json.dumps(asdict(record), separators=(",", ":"))


def decode_record(line: str | bytes) -> Record:
    """The inverse of `encode_record`."""
    raw = json.loads(line)
    raw["stats"] = Stats(**{f.name: raw["stats"][f.name] for f in fields(Stats) if f.name in raw["stats"]})
    raw["failures"] = {int(row): why for row, why in raw["failures"].items()}
    raw["identity"] = Identity(**raw["identity"])
    return Record(**raw)


def unit_key(unit: Unit, mark: str) -> str:
    """What a part must say of itself to be this unit's: of this input, under this fingerprint."""
    return digest([unit.file.address, asdict(unit.file.identity), unit.groups, mark])


def footer(record: Record) -> dict[bytes, bytes]:
    """The record as Parquet key-value metadata."""
    return {_FOOTER_KEY: encode_record(record).encode()}


def read_footer(store: Store, name: str) -> Record | None:
    """The record in a part's footer; None if it is not there, not whole, or not ours."""
    try:
        with store.fs.open(store.path(name), "rb") as handle:
            metadata = pq.read_metadata(handle).metadata or {}
        return decode_record(metadata[_FOOTER_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None


@dataclass
class Manifest:
    """The plan of a job: its units and their fingerprint."""

    fingerprint: Fingerprint
    units: list[Unit]
    generation: int = 0

    def save(self, store: Store) -> None:
        """Write it whole."""
        files = {unit.file.address: asdict(unit.file.identity) for unit in self.units}
        plan = [[u.name, u.file.address, u.groups, u.first_row, u.rows] for u in self.units]
        content = {
            "generation": self.generation, "fingerprint": self.fingerprint, "inputs": files,
            "parts": {"columns": ["name", "input", "row_groups", "first_row", "rows"], "rows": plan},
        }  # fmt: skip
        store.write(MANIFEST, json.dumps(content).encode())


def load_manifest(store: Store) -> dict[str, Any] | None:
    """The target's manifest; None where there is none.

    Raises
    ------
    JobError
        It is damaged, or the target is not a job's.
    """
    raw = store.read(MANIFEST)
    if raw is None:
        names = sorted(name for name in store.listing() if not name.startswith((".", "_")))[:20]
        strangers = [name for name in names if read_footer(store, name) is None]
        if strangers:
            raise JobError(
                f"{store.address} holds files that no job wrote, such as {strangers[0]!r}; "
                "choose an empty or a new folder"
            )
        return None
    try:
        content: dict[str, Any] = json.loads(raw)
        if {"fingerprint", "inputs", "parts", "generation"} <= content.keys():
            return content
    except ValueError:
        pass
    raise JobError(
        f"{store.path(MANIFEST)} is damaged; remove that one file and run again: whole parts are kept"
    )


def settle(store: Store, now: Manifest, *, force: bool, update: bool) -> list[str]:
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
    differing = differences(before["fingerprint"], now.fingerprint)
    if differing:
        if not force:
            raise JobError(
                f"{store.address} was made with other settings: {'; '.join(differing)}. Two ways on: --force "
                "(force=True) replaces its parts by a new generation, or choose another target"
            )
        now.generation += 1
    there = store.listing()
    embedded = {row[1] for row in before["parts"]["rows"] if row[0] in there}
    inputs = {name: seen for name, seen in before["inputs"].items() if name in embedded}
    return _changed_inputs(inputs, now, allowed=force or update)


def _changed_inputs(before: dict[str, Any], now: Manifest, *, allowed: bool) -> list[str]:
    """Inputs that have parts, against those of this run; one that never got a part may change or go."""
    inputs = {unit.file.address: asdict(unit.file.identity) for unit in now.units}
    changed = {
        "changed": [name for name in before if name in inputs and before[name] != inputs[name]],
        "removed": [name for name in before if name not in inputs],
    }
    said = [f"{len(names)} inputs {how}, such as {names[0]}" for how, names in changed.items() if names]
    if said and not allowed:
        raise JobError(
            f"since the last run: {'; '.join(said)}. Two ways on: --update (update=True) embeds changed files "
            "again and drops the parts of removed ones, or choose another target"
        )
    added = [name for name in inputs if name not in before]
    return [*said, *([f"{len(added)} inputs added, such as {added[0]}"] if added else [])]


class Log:
    """Records of whole parts, in small files, each written whole. Its tail may be lost: footers have it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[str] = []
        self._written = time.monotonic()

    def add(self, record: Record) -> None:
        """Note a part; written out now and then."""
        self._waiting.append(encode_record(record))
        if len(self._waiting) >= _LOG_RECORDS or time.monotonic() - self._written > _LOG_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write out what waits."""
        if self._waiting:
            name = f"{LOG}/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"
            self._store.write(name, "\n".join(self._waiting).encode())
            self._waiting.clear()
        self._written = time.monotonic()

    def records(self) -> dict[str, Record]:
        """The latest record of each part."""
        latest: dict[str, Record] = {}
        for name in sorted(self._store.listing(LOG)):
            for line in (self._store.read(f"{LOG}/{name}") or b"").splitlines():
                record = _decoded(line)
                if record:
                    latest[record.name] = record
        return latest


def _decoded(line: bytes) -> Record | None:
    try:
        return decode_record(line)
    except (ValueError, KeyError, TypeError):
        return None


def whole_parts(store: Store, wanted: dict[str, str], known: dict[str, Record]) -> Iterator[Record]:
    """The parts that are there and whole, under the keys wanted (name -> key).

    A part whose identity is the logged one is taken at that; any other is read through. A damaged part is
    removed, so that it is made again.
    """
    listed = store.listing()
    for name in sorted(wanted.keys() & listed.keys()):
        record = known.get(name)
        if record and record.key == wanted[name] and record.identity == listed[name]:
            yield record
            continue
        read = read_footer(store, name)
        if read and read.key != wanted[name]:
            continue  # of an older generation or input: replaced when its unit is done
        found = examined(store, read, listed[name]) if read else None
        if found is None or (record and record.key == found.key and record.checksum != found.checksum):
            store.remove(name)
        else:
            yield found


def examined(store: Store, read: Record, seen: Identity) -> Record | None:
    """A part's full record, from reading every byte of it; None if it is damaged."""
    data = store.read(read.name)
    if data is None or not _readable(store, read.name):
        return None
    return replace(read, checksum=hashlib.sha256(data).hexdigest(), identity=seen)


def _readable(store: Store, name: str) -> bool:
    """Whether every page of a part can be read, for a part that no log vouches for."""
    try:
        with store.fs.open(store.path(name), "rb") as handle, pq.ParquetFile(handle) as part:
            rows = sum(batch.num_rows for batch in part.iter_batches(4096))
            return bool(rows == part.metadata.num_rows)
    except (OSError, pa.ArrowException):
        return False


def drop_strangers(store: Store, names: Iterable[str], listed: Iterable[str]) -> int:
    """Remove parts that the plan does not have (of removed inputs, or of an older plan)."""
    extra = [name for name in set(listed) - set(names) if name.endswith(".parquet")]
    for name in extra:
        store.remove(name)
    return len(extra)
