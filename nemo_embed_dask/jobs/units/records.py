"""What is known of a part: in its own footer, and again in a log. Reads no vectors.

The log repeats the footers with the parts' identities and checksums, and who made them, so that a rerun needs
one listing and a few small reads.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict, dataclass, field, fields, replace

import pyarrow as pa
import pyarrow.parquet as pq

from ...settings import Stats
from ..files.file_identity import FileIdentity
from ..files.target import BOOKKEEPING, Target

LOG = f"{BOOKKEEPING}/log"
_FOOTER_KEY = b"nemo_embed_dask"
_LOG_RECORDS, _LOG_SECONDS = 1000, 15.0


@dataclass
class Record:
    """What is known of a whole part. Times in seconds.

    ``stats.rows``: rows read; ``rows``: rows in the part, more where long documents have a row a window.
    ``failures``: row of the input file -> reason.
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


# Part -> what logs say of it.
Records = dict[str, list[Record]]


def encode_record(record: Record) -> str:
    """A record as one line of JSON."""
    return json.dumps(asdict(record), separators=(",", ":"))


def decode_record(line: str | bytes) -> Record:
    """The inverse of `encode_record`."""
    raw = json.loads(line)
    raw["stats"] = Stats(**{f.name: raw["stats"][f.name] for f in fields(Stats) if f.name in raw["stats"]})
    raw["failures"] = {int(row): why for row, why in raw["failures"].items()}
    raw["identity"] = FileIdentity(**raw["identity"])
    return Record(**raw)


def footer(record: Record) -> dict[bytes, bytes]:
    """The record as Parquet key-value metadata, without who made it and how long it took.

    So that a part has the same bytes whoever makes it.
    """
    stats = replace(record.stats, tokenize_s=0.0, model_s=0.0, total_s=0.0)
    lasting = replace(record, stats=stats, worker="", read_s=0.0, write_s=0.0)
    return {_FOOTER_KEY: encode_record(lasting).encode()}


def read_footer(store: Target, name: str) -> Record | None:
    """The record in a part's footer; None if it is not there, not whole, or not ours.

    Raises
    ------
    TargetError
        The store cannot be read: that says nothing of the part.
    """
    try:
        with store.open_file(name) as handle:
            metadata = pq.read_metadata(handle).metadata or {}
        return decode_record(metadata[_FOOTER_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None


class Log:
    """Records of whole parts, in small files, each written whole. Its tail may be lost: footers have it."""

    def __init__(self, store: Target) -> None:
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

    def records(self) -> Records:
        """All records of each part: clocks may differ, so that none is the latest."""
        found: Records = {}
        for name in self._store.list_files(LOG):
            for line in (self._store.read(f"{LOG}/{name}") or b"").splitlines():
                record = _decoded(line)
                if record:
                    found.setdefault(record.name, []).append(record)
        return found


def _decoded(line: bytes) -> Record | None:
    try:
        return decode_record(line)
    except (ValueError, KeyError, TypeError):
        return None
