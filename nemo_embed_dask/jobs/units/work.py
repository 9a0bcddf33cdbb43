"""Embed one unit: read its input, compute the vectors, write its part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa

from ...engine.digests import model_digests
from ...errors import ROW_ADVICE, EmbedError, InputError, JobError, RowError
from ...rows import Embedded
from ...stages.tasks import EmbedTask
from ...stages.workers import current_worker
from ...stats import Stats
from ..files.errors import describe_error, is_temporary
from ..files.inputs import Unit
from ..files.open_input import check_unchanged
from ..files.target import Target
from ..schema.conversion import JobColumns, empty_table
from .manifest import unit_key
from .parts import verify_part
from .readers import Rows, read_unit
from .records import Record, read_footer
from .tables import part_tables
from .writer import Layout, write_part

# Most rows of a slab with a list each: a list of token vectors has hundreds of kilobytes.
_ROWS_WITH_LISTS = 1024
# Called with a unit's name and the documents and tokens that are embedded so far; may raise to end the work.
Tick = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Job:
    """What all units of a job share.

    The options of file systems may be secret: no Dask task and no repr contains them.

    Attributes
    ----------
    target : Target
    text_field : str
        The column to embed.
    task : EmbedTask
        What the stage computes, with its settings.
    copied_columns : pyarrow.Schema
        The input columns that are copied into the parts.
    fingerprint_hash : str
        A hash of the job's fingerprint and of the types of the copied columns.
    options : dict
        Options of the inputs' file system.
    compression : str
        Parquet codec of the copied columns.
    copy_all : bool
        Whether all columns of an input are copied, so that an unexpected column is an error.
    overwrite : bool
        Whether new columns may replace those of an input.
    model : dict
        Hashes of the model's files: see `model_digests`.
    """

    target: Target
    text_field: str
    task: EmbedTask
    copied_columns: pa.Schema
    fingerprint_hash: str
    options: dict[str, Any] = field(repr=False)
    compression: str = "zstd"
    copy_all: bool = True
    overwrite: bool = False
    model: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The result of one attempt at a unit: its record, or the reason why there is none.

    ``verdict`` is one of:

    - "done": the part is written.
    - "retry": another attempt may succeed.
    - "failed": this input cannot be embedded; the job continues with the others.
    - "stop": every other unit would fail the same way, for example on a full disk.
    """

    unit: Unit
    verdict: Literal["done", "retry", "failed", "stop"]
    record: Record | None = None
    reason: str = ""


def attempt(unit: Unit, job: Job, tick: Tick) -> Outcome:
    """Embed a unit once. An error becomes an outcome, by its type.

    A temporary error may be tried again. Otherwise a `JobError` stops the job, unless it is an `InputError`;
    any other error fails this input and no other.
    """
    try:
        return Outcome(unit, "done", embed_unit(unit, job, tick))
    except InputError as error:
        return Outcome(unit, "retry" if error.temporary else "failed", reason=str(error))
    except JobError as error:
        return Outcome(unit, "retry" if error.temporary else "stop", reason=str(error))
    except EmbedError as error:
        return Outcome(unit, "failed", reason=f"{unit.file.address}: {error}")
    except Exception as error:  # noqa: BLE001 - an unexpected error in one unit must not end the job
        temporary = is_temporary(error) or isinstance(error, MemoryError)
        why = f"{unit.file.address} to {unit.name}: {describe_error(error)}"
        return Outcome(unit, "retry" if temporary else "failed", reason=why)


def without_retry(outcome: Outcome) -> Outcome:
    """Return the outcome with "retry" replaced by "failed", after the last attempt."""
    return replace(outcome, verdict="failed") if outcome.verdict == "retry" else outcome


def embed_unit(unit: Unit, job: Job, tick: Tick) -> Record:
    """Embed a unit and write its part, unless another worker has already written it.

    ``tick`` is called after each slab, and once more before the part becomes visible.

    Raises
    ------
    EmbedError
        The input cannot be read, a row cannot be embedded, or the target cannot be written.
    """
    key = unit_key(unit, job.fingerprint_hash)
    existing = _existing_part(unit, key, job)
    if existing:
        return existing
    check_unchanged(unit.file, job.options)
    _check_model(job)
    record = Record(unit.name, key, unit.file.address, Stats(), worker=_worker_name())
    with job.target.atomic_file(unit.name) as sink:
        try:
            checksum = write_part(sink, _embedded_tables(unit, job, record, tick), record, layout(job))
        except EmbedError:
            check_unchanged(unit.file, job.options)  # a changed file is the better explanation
            raise
        check_unchanged(unit.file, job.options)
        _check_model(job)
        tick(unit.name, record.stats.rows, record.stats.tokens)
    return replace(record, checksum=checksum, identity=job.target.identity_of(unit.name))


def _check_model(job: Job) -> None:
    """Raise JobError if the model's files have changed since the job was planned."""
    if job.model and model_digests(job.task.settings) != job.model:
        raise JobError(
            f"the files of model {job.task.settings.model.identifier!r} or of its adapter were changed while "
            "the job ran, and its parts must have one model: put the old files back, or pass another target"
        )


def _existing_part(unit: Unit, key: str, job: Job) -> Record | None:
    """Return the record of the unit's part if a worker that died has written it; None otherwise."""
    footer = read_footer(job.target, unit.name)
    if footer is None or footer.key != key:
        return None
    return verify_part(job.target, footer, job.target.identity_of(unit.name))


def layout(job: Job) -> Layout:
    """Return how the parts of a job store their columns."""
    return Layout(job.compression, job.task.vector_names, () if job.task.explodes else (job.text_field,))


def _embedded_tables(unit: Unit, job: Job, record: Record, tick: Tick) -> Iterator[pa.Table]:
    """Yield the tables of the unit's part; add counts and times to the record."""
    start = time.perf_counter()
    for slab in _slabs(unit, job):
        record.read_s += time.perf_counter() - start
        first = unit.first_row + record.stats.rows
        embedded = _embed_slab(slab, job, unit.file.address, first)
        record.stats += embedded.stats
        record.rows += len(embedded.valid)
        record.failures |= {first + row: why for row, why in embedded.failures.items()}
        tick(unit.name, record.stats.rows, record.stats.tokens)
        yield from part_tables(slab, embedded, job.task)
        start = time.perf_counter()


def _slabs(unit: Unit, job: Job) -> Iterator[Rows]:
    """Yield the unit's slabs; for an input without rows one empty slab, so that its part has all columns."""
    slab = None
    columns = JobColumns(job.text_field, job.copied_columns, job.copy_all, job.task.all_names, job.overwrite)
    for slab in read_unit(unit, columns, job.options):
        if job.task.settings.gives_lists:
            yield from slab.divide(_ROWS_WITH_LISTS)
        else:
            yield slab
    if slab is None:
        yield Rows(empty_table(job.copied_columns), [])


def _embed_slab(slab: Rows, job: Job, address: str, first: int) -> Embedded:
    """Embed a slab whose first row is row ``first`` of its input.

    Raises
    ------
    InputError
        A row cannot be embedded, and the stage has ``on_error="raise"``.
    """
    if slab.bad_rows and job.task.settings.on_error == "raise":
        row, why = next(iter(slab.bad_rows.items()))
        raise InputError(f"{address}, row {first + row}: {why}. {ROW_ADVICE}")
    try:
        embedded = job.task.embed(slab.texts)
    except RowError as error:
        raise InputError(f"{address}, row {first + error.rows[0]}: {error.reason}") from error
    embedded.failures |= slab.bad_rows
    embedded.stats.nulls -= len(slab.bad_rows)  # bad rows were passed on as nulls
    return embedded


def _worker_name() -> str:
    """Return the address of this Dask worker; "here" if this process is not a Dask worker."""
    worker = current_worker()
    return str(worker.address) if worker else "here"
