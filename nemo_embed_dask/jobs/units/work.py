"""One unit's whole way on a worker: read, embed, commit. Knows no other unit and no cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa

from ...errors import EmbedError, InputError, JobError, RowError
from ...rows import Embedded
from ...settings import Stats
from ...stages.tasks import EmbedTask
from ..files.errors import is_temporary, reason
from ..files.inputs import Unit
from ..files.opening import check_unchanged
from ..files.store import Store
from ..schema.fitting import Wanted, empty_table
from .manifest import unit_key
from .parts import examined
from .readers import Rows, read_unit
from .records import Record, read_footer
from .tables import part_tables
from .writer import Layout, write_part

Tick = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Job:
    """What all units of a job share. The options of file systems may be secret: it is in no task, and no repr.

    ``task``: the stage's own, with its settings; ``carried``: columns carried over; ``everything``: whether
    these are to be all that the inputs have; ``mark``: the fingerprint's hash; ``options``: of the inputs'
    file system; ``overwrite``: whether the stage's columns may replace an input's.
    """

    target: Store
    text_field: str
    task: EmbedTask
    carried: pa.Schema
    mark: str
    options: dict[str, Any] = field(repr=False)
    compression: str = "zstd"
    everything: bool = True
    overwrite: bool = False


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
    except InputError as error:
        return Outcome(unit, "retry" if error.temporary else "failed", reason=str(error))
    except JobError as error:
        return Outcome(unit, "retry" if error.temporary else "stop", reason=str(error))
    except EmbedError as error:
        return Outcome(unit, "failed", reason=f"{unit.file.address}: {error}")
    except Exception as error:  # noqa: BLE001 - one unit's trouble must not end the job
        again = is_temporary(error) or isinstance(error, MemoryError)
        told = f"{unit.file.address} to {unit.name}: {reason(error)}"
        return Outcome(unit, "retry" if again else "failed", reason=told)


def final(outcome: Outcome) -> Outcome:
    """An outcome after which nothing more is tried."""
    return replace(outcome, verdict="failed") if outcome.verdict == "retry" else outcome


def embed_unit(unit: Unit, job: Job, tick: Tick) -> Record:
    """Embed a unit and commit its part, unless it is there already (of a worker that died after it).

    ``tick`` is told how far it has come, last before the commit; it may raise to end the work.

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
    check_unchanged(unit.file, job.options)
    record = Record(unit.name, key, unit.file.address, Stats(), worker=_worker_name())
    with job.target.whole_file(unit.name) as sink:
        try:
            checksum = write_part(sink, _embedded(unit, job, record, tick), record, layout(job))
        except EmbedError:
            check_unchanged(unit.file, job.options)  # which would be why it cannot be read
            raise
        check_unchanged(unit.file, job.options)
        tick(unit.name, record.stats.rows, record.stats.tokens)
    return replace(record, checksum=checksum, identity=job.target.identify(unit.name))


def layout(job: Job) -> Layout:
    """How a job's parts store their columns."""
    vectors = (job.task.name, *(output.name for output in job.task.settings.extra_outputs))
    return Layout(job.compression, vectors, () if job.task.explodes else (job.text_field,))


def _embedded(unit: Unit, job: Job, record: Record, tick: Tick) -> Iterator[pa.Table]:
    """The unit's chunks with their vectors; counts go into the record."""
    start = time.perf_counter()
    for rows in _chunks(unit, job):
        record.read_s += time.perf_counter() - start
        first = unit.first_row + record.stats.rows
        out = _vectors(rows, job, f"{unit.file.address}, row", first)
        record.stats += out.stats
        record.rows += len(out.valid)
        record.failures |= {first + i: why for i, why in out.failures.items()}
        tick(unit.name, record.stats.rows, record.stats.tokens)
        yield from part_tables(rows, out, job.task)
        start = time.perf_counter()


def _chunks(unit: Unit, job: Job) -> Iterator[Rows]:
    """The unit's rows; of an input without rows one chunk without rows, so that its part has all columns."""
    rows = None
    made = frozenset(job.task.all_names)
    wanted = Wanted(job.text_field, job.carried, job.everything, made, job.overwrite)
    for rows in read_unit(unit, wanted, job.options):
        yield rows
    if rows is None:
        yield Rows(empty_table(job.carried), [])


def _vectors(rows: Rows, job: Job, where: str, first: int) -> Embedded:
    if rows.broken and job.task.settings.on_error == "raise":
        row, why = next(iter(rows.broken.items()))
        raise InputError(f"{where} {first + row}: {why}. {_ADVICE}")
    try:
        out = job.task.embed(rows.texts)
    except RowError as error:
        raise InputError(f"{where} {first + error.rows[0]}: {error.reason}") from error
    out.failures |= rows.broken
    out.stats.nulls -= len(rows.broken)
    return out


_ADVICE = "Mend or drop the row, or pass on_error='null' to give it a null vector"


def _worker_name() -> str:
    import sys

    if "distributed" in sys.modules:
        from distributed import get_worker

        try:
            return str(get_worker().address)
        except ValueError:
            pass
    return "here"
