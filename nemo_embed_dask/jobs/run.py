"""`embed_parquet`: a job from its sources to ``_SUCCESS``. Knows the order of things, and no detail."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from ..errors import ConfigError, JobError
from ..stages import EmbeddingCreatorStage
from ..stages.base import stage_first
from .files.inputs import Unit
from .files.target import UNFINISHED, Target
from .in_process import embed_in_process
from .plan import Asked, Planned, make_plan
from .report import REPORT, Report, make_report, save_report
from .schema.survey import SAMPLE_BYTES
from .units.fingerprint import model_digests
from .units.manifest import MANIFEST, SUCCESS, reconcile, unit_key
from .units.parts import remove_stale_parts, whole_parts
from .units.progress import Progress
from .units.records import Log, Record
from .units.state import JobState
from .units.work import Outcome

if TYPE_CHECKING:
    from distributed import Client

Cluster: TypeAlias = Union["Client", Callable[[], AbstractContextManager["Client"]], None]
Work: TypeAlias = Callable[[Sequence[Unit]], Iterator[Outcome]]
# How often the target is looked over and what is missing done again, before the job gives up.
_ROUNDS = 3


@stage_first("embed_parquet(EmbeddingCreatorStage(...), source, target)")
def embed_parquet(
    stage: EmbeddingCreatorStage,
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    client: Cluster = None,
    columns: str | Sequence[str] | None = None,
    rows_per_part: int = 100_000,
    storage_options: dict[str, Any] | None = None,
    target_options: dict[str, Any] | None = None,
    force: bool = False,
    update: bool = False,
    retries: int = 2,
    compression: str = "zstd",
    sample_bytes: int = SAMPLE_BYTES,
    progress: Progress | bool = False,
    state: JobState | None = None,
) -> Report:
    """Embed files into files; run it again after a crash, and it does what is left.

    Parameters
    ----------
    stage : EmbeddingCreatorStage
        What to embed, and how.
    source : str, path or sequence of these
        Files, globs or folders of Parquet or JSON lines, at any fsspec address.
    target : str or path
        A folder, at any fsspec address. One part a unit of input, with the same name on every run: the
        columns carried over, and those that the stage makes; vectors are fixed_size_list<float> (or of the
        number type asked for), null where the text is.
    client : distributed.Client or callable, optional
        The cluster to run on; or what starts one on this machine, such as `embed_cluster`, once it is known
        that there is work; in this process if None.
    columns : str or sequence of str, optional
        Columns to carry over; all if None. Values are those of the input, in a type that holds the values of
        all inputs; a column that a file lacks is null there.
    rows_per_part : int
        A larger Parquet file is cut at borders of row groups into parts of at most that many rows.
    storage_options, target_options : dict, optional
        For the file systems of source and target. Prefer the environment for secrets.
    force : bool
        Replace the parts of a target made with other settings, as a new generation.
    update : bool
        Embed inputs again that changed since the last run, and drop the parts of those that are gone.
    retries : int
        How often a unit is tried again after an error that may pass.
    compression : str
        Parquet codec of the columns carried over; vectors stay uncompressed.
    sample_bytes : int
        Bytes of JSON lines, over all files, that are looked at for columns and types before the job starts.
    progress : bool
        Whether to show documents, tokens and time left on standard error, or in the notebook.
    state : JobState, optional
        A record that the job fills in while it runs, for callers that need to know after an error how far it
        has come.

    Returns
    -------
    Report
        ``report.failed`` lists files that could not be embedded; all others are done. The target has a
        file ``_SUCCESS`` if there are none.

    Raises
    ------
    ConfigError, ColumnError, ModelError, JobError
        The job cannot start, or cannot go on; what is done stays done.
    """
    _check(client, retries)
    if isinstance(progress, bool):
        progress = Progress(sys.stderr if progress else None)
    store = Target(os.fspath(target), target_options or {})
    digests = partial(_digests, stage, client, progress)
    asked = Asked(
        [os.fspath(name) for name in ([source] if isinstance(source, str | os.PathLike) else source)],
        [columns] if isinstance(columns, str) else columns, rows_per_part, storage_options or {}, compression,
        sample_bytes,
    )  # fmt: skip
    planned = make_plan(asked, store, stage, digests, progress)
    with store.lock():
        manifest, notes = reconcile(store, planned.manifest, force=force, update=update)
        planned = replace(planned, manifest=manifest)
        notes = [*notes, *planned.notes]
        for note in notes:
            progress.info(note)
        run = _Run(planned, client, retries, progress, JobState() if state is None else state)
        return run.complete(notes)


def _check(client: Cluster, retries: int) -> None:
    if not (client is None or callable(client)):
        from .clusters.preload import check_client  # distributed takes a while to import

        check_client(client)
    if retries < 0:
        raise ConfigError(f"retries={retries} must be 0 or more")


def _digests(stage: EmbeddingCreatorStage, client: Cluster, progress: Progress) -> dict[str, str]:
    if client is None or callable(client):
        return model_digests(stage.settings)
    from .clusters.preload import prepare_workers  # distributed takes a while to import

    return prepare_workers(client, stage, progress)


class _Run:
    """One run of a job under its lock."""

    def __init__(
        self, planned: Planned, client: Cluster, retries: int, progress: Progress, state: JobState
    ) -> None:
        self.job, self.plan, self.client = planned.job, planned.manifest, client
        self.retries, self.progress, self.digests = retries, progress, planned.digests
        self.store, self.log = self.job.target, Log(self.job.target)
        self.known = self.log.records()
        self.units = {unit.name: unit for unit in self.plan.units}
        self.keys = {unit.name: unit_key(unit, self.job.fingerprint_hash) for unit in self.plan.units}
        self.state = state
        state.parts = len(self.units)

    def complete(self, notes: list[str]) -> Report:
        """Do what is left until a listing shows all of it, then write ``_SUCCESS``."""
        todo = self._missing()
        if todo or self.store.read(SUCCESS) is None or self.store.read(MANIFEST) != self.plan.encoded():
            self._begin()
        if not todo:
            return self._finish(notes, todo)
        with self._workers() as work:
            left = _ROUNDS
            while todo and left:
                self._do(todo, work)
                todo, left = self._missing(), left - 1
            return self._finish(notes, todo)  # before a cluster closes, which may take long

    def _finish(self, notes: list[str], todo: list[Unit]) -> Report:
        self.log.flush()
        others = remove_stale_parts(
            self.store, self.keys, self.store.list_files().keys() - self.state.whole.keys()
        )
        if others:
            notes = [*notes, f"{len(others)} files are no part of this job, such as {others[0]}"]
        report = self._report(notes)
        if todo:
            raise JobError(f"{len(todo)} parts, such as {todo[0].name}, vanish from {self.store.address} "
                           "after they are written; is something else at work on it?")  # fmt: skip
        if report.complete:
            self._succeed()
        return report

    def _succeed(self) -> None:
        if self.store.read(MANIFEST) != self.plan.encoded():  # there is no lock on object stores
            raise JobError(f"another run with other settings or inputs has begun on {self.store.address}; "
                           "wait for it, then run the command that is to win again")  # fmt: skip
        self.store.write(SUCCESS, b"")

    def _missing(self) -> list[Unit]:
        whole = {record.name: record for record in whole_parts(self.store, self.keys, self.known)}
        for name, record in whole.items():
            if record not in self.known.get(name, ()):
                self._log(record)
        self.state.whole = whole
        return [u for name, u in self.units.items() if name not in whole and name not in self.state.failed]

    def _log(self, record: Record) -> None:
        self.known.setdefault(record.name, []).append(record)
        self.log.add(record)

    def _begin(self) -> None:
        self.store.remove(SUCCESS)
        self.store.write(MANIFEST, self.plan.encoded())
        for name in self.store.list_files(UNFINISHED):
            self.store.remove(f"{UNFINISHED}/{name}")

    def _do(self, todo: list[Unit], work: Work) -> None:
        self.state.started = True
        self.progress.begin(todo, self.state)
        start = time.monotonic()
        try:
            for outcome in work(todo):
                self._take(outcome)
        except BaseException:
            with suppress(Exception):  # what stopped the job matters more than its last log entries
                self.log.flush()
            raise
        finally:
            self.state.seconds += time.monotonic() - start
            self.progress.end()

    @contextmanager
    def _workers(self) -> Iterator[Work]:
        """What does units, its model loaded: this process, or a cluster."""
        if self.client is None:
            self.job.task.embed([])
            yield lambda units: embed_in_process(units, self.job, self.retries, self.progress)
            return
        from .clusters.futures import on_cluster
        from .clusters.preload import loaded

        opened = self.client() if callable(self.client) else nullcontext(self.client)
        job, units = self.job, self.plan.units
        with opened as client, loaded(client, job, units, self.digests, self.progress) as preload:
            yield lambda units: on_cluster(client, units, self.retries, self.progress, preload)

    def _take(self, outcome: Outcome) -> None:
        if outcome.verdict == "stop":
            raise JobError(f"{outcome.reason}, then run the same command again: {self.state.summary}")
        record = outcome.record
        if record:
            self.state.whole[record.name] = self.state.written[record.name] = record
            self._log(record)
        else:
            self.state.failed[outcome.unit.name] = outcome.reason
        self.progress.finished(outcome)

    def _report(self, notes: list[str]) -> Report:
        failed = {self.units[name].file.address: reason for name, reason in self.state.failed.items()}
        report = make_report(self.store.address, self.state, failed)
        report.notes = notes
        # A run that had nothing to do keeps the report of the run before it.
        if self.state.written or self.state.failed or self.store.read(REPORT) is None:
            save_report(self.store, report, self.state.whole.values())
        return report
