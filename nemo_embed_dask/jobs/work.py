"""One unit's whole way on a worker: read, embed, commit. Knows no other unit and no cluster."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..engine import Embedded, embed_texts
from ..errors import EmbedError, JobError, RowError
from ..mapping import cores_per_task
from ..settings import Stats
from ..stages import EmbeddingCreatorStage
from .inputs import Unit
from .manifest import Record, examined, footer, read_footer, unit_key
from .readers import Rows, one_line, read_unit
from .storage import Store

Tick = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Job:
    """What all units of a job share. ``mark``: the fingerprint's hash; ``carried``: columns carried over."""

    target: Store
    stage: EmbeddingCreatorStage
    carried: pa.Schema
    mark: str
    options: dict[str, Any]
    compression: str = "zstd"


@dataclass(frozen=True)
class Outcome:
    """What became of a unit: its record, or why there is none.

    ``verdict``: "done"; "retry" where another attempt may help; "failed" where none does; "stop" where none
    of the job's other units would fare better.
    """

    unit: Unit
    verdict: Literal["done", "retry", "failed", "stop"]
    record: Record | None = None
    reason: str = ""


def attempt(unit: Unit, job: Job, tick: Tick) -> Outcome:
    """Do a unit; what goes wrong with it is told, not raised."""
    try:
        return Outcome(unit, "done", embed_unit(unit, job, tick))
    except JobError as error:
        if not str(error).startswith(unit.file.address):
            return Outcome(unit, "stop", reason=str(error))
        passing = isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError)
        return Outcome(unit, "retry" if passing else "failed", reason=str(error))
    except EmbedError as error:
        return Outcome(unit, "failed", reason=f"{unit.file.address}: {error}")
    except Exception as error:  # noqa: BLE001 - one unit's trouble must not end the job
        return Outcome(unit, "retry", reason=f"{unit.file.address} to {unit.name}: {one_line(error)}")


def final(outcome: Outcome) -> Outcome:
    """An outcome after which nothing more is tried."""
    return replace(outcome, verdict="failed") if outcome.verdict == "retry" else outcome


def embed_unit(unit: Unit, job: Job, tick: Tick) -> Record:
    """Embed a unit and commit its part, unless it is there already (of a worker that died after it).

    Raises
    ------
    EmbedError
        Its input cannot be read, a row cannot be embedded, or its target cannot be written.
    """
    key = unit_key(unit, job.mark)
    there = read_footer(job.target, unit.name)
    found = examined(job.target, there, job.target.identify(unit.name)) if there and there.key == key else None
    if found:
        return found
    record = Record(unit.name, key, unit.file.address, Stats(), worker=_worker_name())
    with job.target.whole_file(unit.name) as sink:
        summed = _Summed(sink)
        _write_part(summed, _embedded(unit, job, record, tick), job, record)
    return replace(record, checksum=summed.hash.hexdigest(), identity=job.target.identify(unit.name))


def _embedded(unit: Unit, job: Job, record: Record, tick: Tick) -> Iterator[pa.Table]:
    """The unit's chunks with their vectors; counts go into the record."""
    start = time.perf_counter()
    for rows in read_unit(unit, job.stage.text_field, job.carried, job.options):
        record.read_s += time.perf_counter() - start
        first = unit.first_row + record.stats.rows
        out = _vectors(rows, job, f"{unit.file.address}, row", first)
        record.stats += out.stats
        record.failures |= {first + i: why for i, why in out.failures.items()}
        tick(unit.name, record.stats.rows, record.stats.tokens)
        yield rows.table.append_column(job.stage.embedding_field, vector_array(out))
        start = time.perf_counter()


def _vectors(rows: Rows, job: Job, where: str, first: int) -> Embedded:
    if rows.broken and job.stage.on_error == "raise":
        row, why = next(iter(rows.broken.items()))
        raise JobError(f"{where} {first + row}: {why}. {_ADVICE}")
    try:
        out = embed_texts(rows.texts, job.stage.settings, n_threads=cores_per_task())
    except RowError as error:
        reason = str(error).partition(": ")[2]
        raise JobError(f"{where} {first + error.rows[0]}: {reason}") from error
    out.failures |= rows.broken
    out.stats.nulls -= len(rows.broken)
    return out


_ADVICE = "Mend or drop the row, or pass on_error='null' to give it a null vector"


def vector_array(out: Embedded) -> pa.FixedSizeListArray:
    """Vectors as an Arrow array of fixed-size lists over the same memory, null where not valid."""
    matrix = np.ascontiguousarray(out.matrix.cpu().numpy())
    mask = None if out.valid.all() else pa.array(~out.valid)
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1], mask=mask)


def _write_part(sink: _Summed, tables: Iterator[pa.Table], job: Job, record: Record) -> None:
    writer = None
    try:
        for table in tables:
            start = time.perf_counter()
            writer = writer or _writer(sink, table.schema, job)
            writer.write_table(table)
            record.write_s += time.perf_counter() - start
        if writer is None:  # an input without rows is a part without rows
            empty = vector_array(embed_texts([], job.stage.settings))
            schema = job.carried.append(pa.field(job.stage.embedding_field, empty.type))
            writer = _writer(sink, schema, job)
        writer.add_key_value_metadata(footer(record))
        writer.close()
    except BaseException:
        if writer is not None:
            writer.is_open = False  # a part given up is not to be finished by the garbage collector
        raise


def _writer(sink: _Summed, schema: pa.Schema, job: Job) -> pq.ParquetWriter:
    # Vectors are noise to a compressor and to a dictionary: both would cost time and save nothing.
    return pq.ParquetWriter(
        sink, schema, compression=dict.fromkeys(job.carried.names, job.compression),
        use_dictionary=[name for name in job.carried.names if name != job.stage.text_field],
    )  # fmt: skip


class _Summed:
    """A file to write into, and the SHA-256 of what was written."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self.hash = hashlib.sha256()
        self.closed = False

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return self._sink.write(data)

    def tell(self) -> int:
        return self._sink.tell()

    def flush(self) -> None:
        self._sink.flush()

    def close(self) -> None:
        """Closing is the caller's."""


def _worker_name() -> str:
    import sys

    if "distributed" in sys.modules:
        from distributed import get_worker

        try:
            return str(get_worker().address)
        except ValueError:
            pass
    return "here"
