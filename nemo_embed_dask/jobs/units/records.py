"""Records of parts: one in each part's footer, and all of them in a log.

The log adds each part's identity and checksum, its worker and its times, so that a rerun needs one listing of
the target and a few small files instead of the footers of all parts. It also has the units that failed.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace

import pyarrow as pa
import pyarrow.parquet as pq

from ...stats import Stats
from ..files.file_identity import FileIdentity
from ..files.target import BOOKKEEPING, Target

LOG = f"{BOOKKEEPING}/log"
_FOOTER_KEY = b"nemo_embed_dask"
# A log file is written after this many records or seconds, and for each of the first failures.
_LOG_RECORDS, _LOG_SECONDS, _LOG_FAILURES = 1000, 15.0, 100


@dataclass
class Record:
    """What is known about one whole part.

    Attributes
    ----------
    name : str
        The part's file name.
    key : str
        Hash of the unit and the job that it belongs to: see `unit_key`.
    input : str
        Address of the input file.
    stats : Stats
        Counts and times; ``stats.rows`` is the number of rows read.
    rows : int
        Number of rows in the part; larger than ``stats.rows`` with one row per window.
    failures : dict
        Rows that could not be embedded: row of the input file -> reason.
    worker : str
        Address of the Dask worker, or "here".
    read_s, write_s : float
        Seconds for reading the input and for writing the part.
    checksum : str
        SHA-256 of the file.
    identity : FileIdentity
        Size and version of the file.
    """

    name: str
    key: str
    input: str
    stats: Stats
    rows: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    worker: str = ""
    read_s: float = 0.0
    write_s: float = 0.0
    checksum: str = ""
    identity: FileIdentity = field(default_factory=lambda: FileIdentity(-1, ""))


@dataclass(frozen=True)
class FailedUnit:
    """Why a unit has no part: the name and the key that the part would have, and the reason."""

    name: str
    key: str
    failed: str


# Name of a part -> all its records in the log.
Records = dict[str, list[Record]]


def encode_record(record: Record) -> str:
    """Return a record as one line of JSON."""
    return json.dumps(asdict(record), separators=(",", ":"))


def decode_record(line: str | bytes) -> Record:
    """Return the record that `encode_record` made a line of JSON from."""
    raw = json.loads(line)
    raw["stats"] = Stats(**{f.name: raw["stats"][f.name] for f in fields(Stats) if f.name in raw["stats"]})
    raw["failures"] = {int(row): why for row, why in raw["failures"].items()}
    raw["identity"] = FileIdentity(**raw["identity"])
    return Record(**raw)


def footer_metadata(record: Record) -> dict[bytes, bytes]:
    """Return the record as Parquet key-value metadata, without worker and times.

    So a part has the same bytes whichever worker writes it.
    """
    stats = replace(record.stats, tokenize_s=0.0, model_s=0.0, total_s=0.0)
    reproducible = replace(record, stats=stats, worker="", read_s=0.0, write_s=0.0)
    return {_FOOTER_KEY: encode_record(reproducible).encode()}


def read_footer(target: Target, name: str) -> Record | None:
    """Return the record in a part's footer; None if the file is missing, damaged, or not a part of a job.

    Raises
    ------
    TargetError
        The target cannot be read, so that nothing is known about the part.
    """
    try:
        with target.open_file(name) as handle:
            metadata = pq.read_metadata(handle).metadata or {}
        return decode_record(metadata[_FOOTER_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None


class Log:
    """The records of whole parts, in files that are each written in one step.

    The last records may be lost in a crash; the footers of the parts have them.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._unwritten: list[str] = []
        self._last_write = time.monotonic()
        self._failures = 0

    def add(self, record: Record) -> None:
        """Add a record; it is written with others, or after some seconds."""
        self._unwritten.append(encode_record(record))
        if len(self._unwritten) >= _LOG_RECORDS or time.monotonic() - self._last_write > _LOG_SECONDS:
            self.flush()

    def add_failure(self, failure: FailedUnit) -> None:
        """Add a unit that failed; the first ones are written at once, to be seen while the job runs."""
        self._unwritten.append(json.dumps(asdict(failure)))
        self._failures += 1
        if self._failures <= _LOG_FAILURES or len(self._unwritten) >= _LOG_RECORDS:
            self.flush()

    def flush(self) -> None:
        """Write the records that are not written yet."""
        if self._unwritten:
            name = f"{LOG}/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"
            self._target.write(name, "\n".join(self._unwritten).encode())
            self._unwritten.clear()
        self._last_write = time.monotonic()

    def records(self) -> Records:
        """Return all records of each part. Clocks of machines may differ, so none counts as the latest."""
        return group_records(self.entries())

    def entries(self) -> Iterator[Record | FailedUnit]:
        """Yield all records and failures, in the order in which their files were written."""
        for name in sorted(self._target.list_files(LOG)):
            for line in (self._target.read(f"{LOG}/{name}") or b"").splitlines():
                entry = _decode_or_none(line)
                if entry:
                    yield entry


def group_records(entries: Iterable[Record | FailedUnit]) -> Records:
    """Return the records among the entries of a log, by part."""
    records: Records = {}
    for entry in entries:
        if isinstance(entry, Record):
            records.setdefault(entry.name, []).append(entry)
    return records


def _decode_or_none(line: bytes) -> Record | FailedUnit | None:
    """Return a line's record or failure; None if the line is damaged."""
    try:
        return decode_record(line)
    except KeyError:  # a failure has no counts
        return _decode_failure(line)
    except (ValueError, TypeError):
        return None


def _decode_failure(line: bytes) -> FailedUnit | None:
    content = json.loads(line)
    has_all = isinstance(content, dict) and {*content} == {item.name for item in fields(FailedUnit)}
    return FailedUnit(**content) if has_all else None
