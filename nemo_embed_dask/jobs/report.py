"""The report of a job: its figures as JSON, as text and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import JobError
from ..stats import Stats
from ..summaries import Summary, html_table
from .files.errors import describe_error
from .files.masking import make_printable, mask_secrets
from .files.target import BOOKKEEPING, Target
from .picture import draw_steps, save_picture
from .units.manifest import MANIFEST, NO_JOB, NO_REPORT
from .units.records import Record
from .units.state import JobState, describe_failed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT = f"{BOOKKEEPING}/report.json"
# A Parquet file. Its name does not end in .parquet, because Dask, DuckDB and polars would read it as a part.
ERRORS = f"{BOOKKEEPING}/errors.parquet.log"
STEPS = ("read", "tokenize", "model", "write")
_MAX_FAILED = 20  # inputs without parts that a notebook shows; nemo-embed errors lists all


@dataclass
class Report(Summary):
    """The figures of a job.

    Attributes
    ----------
    target : str
        Address of the target, without secrets.
    parts, parts_whole, parts_this_run : int
        Number of parts of the job, of those that are whole, and of those that the last run wrote.
    seconds : float
        Duration of the last run, without loading the model.
    total, run : Stats
        Sums over all whole parts, and over the parts of the last run.
    rows, null_rows : int
        Rows in all parts (more than ``total.rows`` with one row per window); rows that could not be embedded.
    failed : dict
        Inputs that have no part, or not all: address -> reason.
    workers : dict
        Seconds per step, for each worker.
    notes : list of str
        Such as files that were left out.
    """

    target: str
    parts: int = 0
    parts_whole: int = 0
    parts_this_run: int = 0
    seconds: float = 0.0
    total: Stats = field(default_factory=Stats)
    run: Stats = field(default_factory=Stats)
    rows: int = 0
    null_rows: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    workers: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all parts are in the target."""
        return not self.failed and self.parts_whole == self.parts

    def rate(self, count: str) -> float:
        """Return the "rows" or "tokens" per second of the last run."""
        return float(getattr(self.run, count)) / self.seconds if self.seconds else 0.0

    @property
    def limit(self) -> str:
        """What took most of the workers' time: "device" (the forward passes) or "host" (everything else)."""
        device = sum(times["model"] for times in self.workers.values())
        host = sum(sum(times.values()) for times in self.workers.values()) - device
        return "device" if device >= host else "host"

    def plot(self) -> Figure:
        """Draw the seconds per worker and step as a matplotlib figure, which a notebook shows.

        Raises
        ------
        JobError
            matplotlib is missing.
        """
        title = f"{self.total.rows:,} documents, {self.rate('tokens'):,.0f} tokens/s, "
        return draw_steps(self.workers, STEPS, f"{title}{self.total.padding_waste:.1%} padding")

    def __str__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        first = [*self.failed.items()][:_MAX_FAILED]
        shown = {make_printable(name): make_printable(why) for name, why in first}
        if len(self.failed) > len(shown):
            shown["..."] = f"{len(self.failed) - len(shown):,} more, listed by nemo-embed errors"
        return super()._repr_html_() + (html_table("failed inputs", shown) if shown else "")

    @property
    def _caption(self) -> str:
        return "job complete" if self.complete else "job not complete"

    @property
    def _rows(self) -> dict[str, str]:
        total, run = self.total, self.run
        listed = ": nemo-embed errors lists them" if self.null_rows else ""
        bad = f"{self.null_rows:,} could not be embedded{listed}"
        more = "" if self.complete or self.failed else ": run the job's command again to continue"
        lines = {
            "target": make_printable(self.target),
            "parts": f"{self.parts_whole:,} of {self.parts:,} whole, {self.parts_this_run:,} by this run{more}",
            "documents": f"{total.rows:,}",
            "rows": f"{self.rows:,} in all parts",
            "tokens": f"{total.tokens:,}",
            "truncated": f"{total.truncated:,} documents",
            "null": f"{total.nulls + self.null_rows:,} documents ({bad})",
            "documents/s": f"{self.rate('rows'):,.0f}",
            "tokens/s": f"{self.rate('tokens'):,.0f}",
            "padding waste": f"{total.padding_waste:.1%}",
            "took": f"{self.seconds:,.1f} s ({self.limit}-bound)" if run.rows else "nothing to do",
        }
        if types := sorted(total.computed_in.items(), key=lambda item: -item[1]):
            lines["computed in"] = ", ".join(f"{name} ({rows:,})" for name, rows in types)
        if total.ooms:
            lines["memory"] = f"batches were halved {total.ooms:,} times"
        if self.failed:
            lines["failed"] = describe_failed(self.failed)
        if self.notes:
            lines["notes"] = make_printable("; ".join(self.notes))
        return lines


def make_report(target: str, state: JobState, failed: dict[str, str], notes: Sequence[str] = ()) -> Report:
    """Add up the records of all whole parts, and of those that this run wrote.

    Parameters
    ----------
    target : str
        The target's address.
    state : JobState
    failed : dict
        Inputs that could not be embedded: address -> reason.
    notes : sequence of str
    """
    report = Report(mask_secrets(target), state.parts, seconds=state.seconds, failed=failed, notes=[*notes])
    for record in state.whole.values():
        report.parts_whole += 1
        report.total += record.stats
        report.rows += record.rows
        report.null_rows += len(record.failures)
    for record in state.written.values():
        report.parts_this_run += 1
        report.run += record.stats
        times = report.workers.setdefault(record.worker, dict.fromkeys(STEPS, 0.0))
        steps = record.read_s, record.stats.tokenize_s, record.stats.model_s, record.write_s
        for step, seconds in zip(STEPS, steps, strict=True):
            times[step] += seconds
    return report


def save_report(target: Target, report: Report, whole: Iterable[Record]) -> None:
    """Write ``report.json``, and the list of rows and files without vectors if there are any."""
    figures = asdict(report) | {
        "complete": report.complete,
        "limit": report.limit,
        "documents_per_s": report.rate("rows"),
        "tokens_per_s": report.rate("tokens"),
        "padding_waste": report.total.padding_waste,
    }
    target.write(REPORT, json.dumps(figures, indent=1).encode())
    errors = _errors(report, whole)
    if errors.num_rows == 0:
        target.remove(ERRORS)
        return
    with target.atomic_file(ERRORS) as sink:
        pq.write_table(errors, sink)


def _errors(report: Report, whole: Iterable[Record]) -> pa.Table:
    """Return the rows and the files (whose row is null) that have no vectors, with the reasons."""
    schema = pa.schema([("file", pa.string()), ("row", pa.int64()), ("reason", pa.string())])
    by_row = [(record.input, row, why) for record in whole for row, why in record.failures.items()]
    errors = [*by_row, *((name, None, why) for name, why in report.failed.items())]
    rows = [{"file": _escaped(name), "row": row, "reason": _escaped(why)} for name, row, why in errors]
    return pa.Table.from_pylist(rows, schema=schema)


def _escaped(text: str) -> str:
    """Return a text with escapes for bytes of file names that are not UTF-8, which Arrow cannot hold."""
    return text.encode(errors="backslashreplace").decode()


def load_report(target: str, options: dict[str, Any] | None = None) -> Report:
    """Read a target's report.

    Raises
    ------
    JobError
        There is no report, or it is damaged.
    """
    folder = Target(target, options or {})
    folder.check_reachable()
    raw = folder.read(REPORT)
    if raw is None:
        raise JobError(f"{mask_secrets(target)} {NO_REPORT if folder.read(MANIFEST) is not None else NO_JOB}")
    try:
        return _parsed(raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise JobError(
            f"{mask_secrets(folder.address)}/{REPORT} is damaged ({describe_error(error)}); remove that one "
            "file and run the job's command again: whole parts are kept, and a new report is written"
        ) from error


def _parsed(raw: bytes) -> Report:
    content = json.loads(raw)
    figures = {name: content[name] for name in Report.__dataclass_fields__}
    figures |= {name: Stats(**figures[name]) for name in ("total", "run")}
    report = Report(**figures)
    # Values of wrong types raise here, where the error is explained, and not when the report is shown.
    describe(report)
    for times in report.workers.values():
        sum(times[step] for step in STEPS)
    return replace(report, failed=dict(report.failed), notes=list(report.notes))


def describe(report: Report) -> str:
    """Return the report as lines of text."""
    return "\n".join(f"{name:>14}  {value}" for name, value in report._rows.items())


def draw(report: Report, path: Path) -> None:
    """Draw the seconds per worker and step; the ending of the path decides the format.

    Raises
    ------
    JobError
        matplotlib is missing, the ending is unknown, or the file cannot be written.
    """
    save_picture(report.plot(), path)
