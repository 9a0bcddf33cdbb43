"""What is understood after a job: its figures, as JSON, as text, as a picture. Runs nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import JobError
from ..settings import Stats
from .files.errors import describe_error
from .files.masking import make_printable, mask_secrets
from .files.target import BOOKKEEPING, Target
from .units.records import Record
from .units.state import JobState

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT = f"{BOOKKEEPING}/report.json"
# A Parquet file, whose name does not end in .parquet: Dask, DuckDB and polars would take it for a part.
ERRORS = f"{BOOKKEEPING}/errors.parquet.log"
STEPS = ("read", "tokenize", "model", "write")
# Workers in a picture at most.
_DRAWN = 40
_PICTURES = (".png", ".svg", ".pdf", ".jpg")


@dataclass
class Report:
    """Figures of a job.

    ``total``: over all parts in the target. ``run``: over those of the last run, which took ``seconds`` once
    models were loaded. ``rows``: in all parts, more than documents where those have a row a window.
    ``failed``: input -> why it has no part. ``null_rows``: rows that could not be embedded.
    ``workers``: seconds by worker and step.
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
        """Whether every part is there."""
        return not self.failed and self.parts_whole == self.parts

    def rate(self, count: str) -> float:
        """Of ``run``: rows or tokens a second."""
        return float(getattr(self.run, count)) / self.seconds if self.seconds else 0.0

    @property
    def limit(self) -> str:
        """Whether the device (the model's forward) or the host (all else) took most of the workers' time."""
        device = sum(times["model"] for times in self.workers.values())
        host = sum(sum(times.values()) for times in self.workers.values()) - device
        return "device" if device >= host else "host"


def make_report(target: str, state: JobState, failed: dict[str, str]) -> Report:
    """Add up the records of parts: all whole ones, and those of this run.

    Parameters
    ----------
    target : str
        The target's address.
    state : JobState
    failed : dict
        Inputs that could not be embedded: address -> reason.
    """
    report = Report(mask_secrets(target), parts=state.parts, failed=failed, seconds=state.seconds)
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
        for name, spent in zip(times, steps, strict=True):
            times[name] += spent
    return report


def save_report(store: Target, report: Report, whole: Iterable[Record]) -> None:
    """Write ``report.json``, and the list of rows and files that have no vector, if there are any."""
    figures = asdict(report) | {
        "complete": report.complete, "limit": report.limit,
        "documents_per_s": report.rate("rows"), "tokens_per_s": report.rate("tokens"),
        "padding_waste": report.total.padding_waste,
    }  # fmt: skip
    store.write(REPORT, json.dumps(figures, indent=1).encode())
    errors = [(record.input, row, why) for record in whole for row, why in record.failures.items()]
    errors += [(name, None, why) for name, why in report.failed.items()]  # type: ignore[misc]
    if not errors:
        store.remove(ERRORS)
        return
    names = pa.schema([("file", pa.string()), ("row", pa.int64()), ("reason", pa.string())])
    files, rows, reasons = zip(*errors, strict=True)
    columns = [list(map(_unicode, files)), list(rows), list(map(_unicode, reasons))]
    with store.atomic_file(ERRORS) as sink:
        pq.write_table(pa.table(columns, schema=names), sink)


def _unicode(said: str) -> str:
    """What a file's name may be in, as Arrow can hold it."""
    return said.encode(errors="backslashreplace").decode()


def load_report(target: str, options: dict[str, Any] | None = None) -> Report:
    """Read a target's report.

    Raises
    ------
    JobError
        There is none, or it is damaged.
    """
    store = Target(target, options or {})
    raw = store.read(REPORT)
    if raw is None:
        raise JobError(f"there is no report in {mask_secrets(target)}; is it the target of a job that has run?")
    try:
        return _parsed(raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise JobError(
            f"{mask_secrets(store.address)}/{REPORT} is damaged ({describe_error(error)}); remove that one "
            "file and run the job's command again: whole parts are kept, and a report of them is written"
        ) from error


def _parsed(raw: bytes) -> Report:
    content = json.loads(raw)
    figures = {name: content[name] for name in Report.__dataclass_fields__}
    figures |= {name: Stats(**figures[name]) for name in ("total", "run")}
    report = Report(**figures)
    describe(report)  # what cannot be shown has values of other types
    for times in report.workers.values():
        sum(times[step] for step in STEPS)
    return replace(report, failed=dict(report.failed), notes=list(report.notes))


def describe(report: Report) -> str:
    """The report as lines of text."""
    total, run = report.total, report.run
    lines = {
        "target": make_printable(report.target),
        "parts": f"{report.parts_whole:,} of {report.parts:,} whole, {report.parts_this_run:,} by this run",
        "documents": f"{total.rows:,}",
        "rows": f"{report.rows:,} in all parts",
        "tokens": f"{total.tokens:,}",
        "truncated": f"{total.truncated:,} documents",
        "null": f"{total.nulls + report.null_rows:,} documents ({report.null_rows:,} could not be embedded)",
        "documents/s": f"{report.rate('rows'):,.0f}",
        "tokens/s": f"{report.rate('tokens'):,.0f}",
        "padding waste": f"{total.padding_waste:.1%}",
        "took": f"{report.seconds:,.1f} s ({report.limit}-bound)" if run.rows else "nothing to do",
    }
    if total.ooms:
        lines["memory"] = f"batches were halved {total.ooms:,} times"
    if report.failed:
        lines["failed"] = f"{len(report.failed)} files, listed in {ERRORS}"
    return "\n".join(f"{name:>14}  {said}" for name, said in lines.items())


def draw(report: Report, path: Path) -> None:
    """Draw where the time went, by worker and step, in the format that the path's ending names.

    Raises
    ------
    JobError
        matplotlib is missing, or it cannot write such a file there.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise JobError("drawing needs matplotlib: pip install 'nemo-embed-dask[plot]'") from None
    if path.suffix.lower() not in _PICTURES:
        raise JobError(f"{path} cannot be drawn: the name of a picture must end in {', '.join(_PICTURES)}")
    figure = Figure(figsize=(8, 1.6 + 0.4 * min(_DRAWN, max(1, len(report.workers)))), layout="constrained")
    _fill(figure, report)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise JobError(
            f"{path} cannot be written ({describe_error(error)}); choose another place with --picture"
        ) from error


def _fill(figure: Figure, report: Report) -> None:
    spent = {name: sum(steps.values()) for name, steps in report.workers.items()}
    names = sorted(spent, key=lambda name: spent[name])[-_DRAWN:]
    labels = [name.rpartition("://")[2] for name in names]
    axes = figure.subplots()
    left = [0.0] * len(names)
    for step in STEPS:
        times = [report.workers[name][step] for name in names]
        axes.barh(labels, times, left=left, label=step)
        left = [a + b for a, b in zip(left, times, strict=True)]
    axes.margins(y=0.02)
    if len(spent) > len(names):
        axes.set_ylabel(f"the {len(names)} busiest of {len(spent)} workers")
    axes.set_xlabel("seconds")
    axes.set_title(
        f"{report.total.rows:,} documents, {report.rate('tokens'):,.0f} tokens/s, "
        f"{report.total.padding_waste:.1%} padding", fontsize=10,
    )  # fmt: skip
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
