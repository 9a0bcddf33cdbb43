"""Run a planned job: embed its missing units, check the target, write ``_SUCCESS``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, Union

from ..errors import JobError, TargetError
from .files.file_identity import FileIdentity
from .files.inputs import Unit
from .files.target import UNFINISHED
from .in_process import embed_in_process
from .plan import JobPlan
from .report import Report, load_report, make_report, save_report
from .units.manifest import MANIFEST, SUCCESS, unit_key
from .units.parts import remove_stale_parts, whole_parts
from .units.progress import Progress
from .units.records import FailedUnit, Log, Record
from .units.state import JobState
from .units.work import Outcome

if TYPE_CHECKING:
    from distributed import Client

Cluster: TypeAlias = Union["Client", Callable[[], AbstractContextManager["Client"]], None]
Embed: TypeAlias = Callable[[Sequence[Unit]], Iterator[Outcome]]
# How often the job embeds missing parts, the first time included, before it gives up.
_MAX_ROUNDS = 3
# How often a run looks whether another one has begun on its target, in seconds.
_CHECK_SECONDS = 10.0
# The figures of a report that are about one run.
_OF_A_RUN = ("parts_this_run", "seconds", "run", "workers")


class JobRun:
    """One run of a planned job. The caller holds the target's lock.

    Parameters
    ----------
    plan : JobPlan
    client : distributed.Client, callable or None
        The cluster to run on, a function that starts one, or None for this process.
    retries : int
        How often a unit is tried again.
    progress : Progress
    state : JobState
        Updated during the run.
    """

    def __init__(
        self, plan: JobPlan, client: Cluster, retries: int, progress: Progress, state: JobState
    ) -> None:
        self._plan, self._job, self._target = plan, plan.job, plan.job.target
        self._client, self._retries, self._progress = client, retries, progress
        self._log = Log(self._target)
        self._logged = self._log.records()
        self._units = {unit.name: unit for unit in plan.manifest.units}
        self._keys = {name: unit_key(unit, self._job.fingerprint_hash) for name, unit in self._units.items()}
        self._manifest_identity: FileIdentity | None = None
        self._next_check = 0.0
        self._state = state
        state.parts = len(self._units)

    def complete(self) -> Report:
        """Embed units until a listing of the target shows all parts, then write ``_SUCCESS``.

        Raises
        ------
        JobError
            The job cannot continue; parts that are written stay.
        """
        missing = self._missing_units()
        if missing or self._target.read(SUCCESS) is None or not self._is_current_plan():
            self._begin()
        if not missing:
            return self._finish(missing)
        with self._workers() as embed:
            for _ in range(_MAX_ROUNDS):
                self._embed(missing, embed)
                missing = self._missing_units()
                if not missing:
                    break
            return self._finish(missing)  # before the cluster closes, which may take long

    def _missing_units(self) -> list[Unit]:
        """List the target, add its whole parts to the state and the log; return the units that are missing."""
        whole = {record.name: record for record in whole_parts(self._target, self._keys, self._logged)}
        for name, record in whole.items():
            if record not in self._logged.get(name, ()):
                self._add_to_log(record)
        self._state.whole = whole
        present = whole.keys() | self._state.failed.keys()
        return [unit for name, unit in self._units.items() if name not in present]

    def _add_to_log(self, record: Record) -> None:
        self._logged.setdefault(record.name, []).append(record)
        self._log.add(record)

    def _is_current_plan(self) -> bool:
        """Return whether the manifest in the target is this run's."""
        return self._target.read(MANIFEST) == self._plan.manifest.encoded()

    def _check_plan(self) -> None:
        """Stop if a run with another plan has begun; the two would replace each other's parts.

        A lock prevents this on local file systems; object stores have none. The manifest, which may be large,
        is read only if its identity has changed or has no version.

        Raises
        ------
        JobError
            The manifest in the target is not this run's.
        """
        identity = self._target.identity_of(MANIFEST)
        same = identity.version and identity == self._manifest_identity
        if not same and not self._is_current_plan():
            self._target.remove(SUCCESS)  # the other run may have ended before this one wrote its last part
            raise JobError(
                f"another run with other settings or inputs has begun on {self._target.address}; wait until it "
                "ends, then run the command whose result you want once more"
            )
        self._manifest_identity = identity

    def _begin(self) -> None:
        """Remove ``_SUCCESS``, write the manifest, and remove what an interrupted run left unfinished."""
        self._target.remove(SUCCESS)
        self._target.write(MANIFEST, self._plan.manifest.encoded())
        for name in self._target.list_files(UNFINISHED):
            self._target.remove(f"{UNFINISHED}/{name}")

    @contextmanager
    def _workers(self) -> Iterator[Embed]:
        """Load the model in this process or on a cluster; yield the function that embeds units there."""
        if self._client is None:
            self._job.task.embed([])
            yield lambda units: embed_in_process(units, self._job, self._retries, self._progress)
            return
        from .clusters.futures import embed_on_cluster  # distributed takes a while to import
        from .clusters.preload import model_on_workers

        opened = self._client() if callable(self._client) else nullcontext(self._client)
        units, digests = self._plan.manifest.units, self._plan.digests
        with opened as client, model_on_workers(client, self._job, units, digests, self._progress) as preload:
            yield lambda units: embed_on_cluster(client, units, self._retries, self._progress, preload)

    def _embed(self, units: list[Unit], embed: Embed) -> None:
        self._state.started = True
        self._progress.begin(units, self._state)
        start = time.monotonic()
        try:
            for outcome in embed(units):
                self._take(outcome)
                self._check_plan_at_times()
        except BaseException:
            with suppress(Exception):  # the error that stopped the job matters more than this one
                self._log.flush()
            raise
        finally:
            self._state.seconds += time.monotonic() - start
            self._progress.end()

    def _check_plan_at_times(self) -> None:
        if time.monotonic() >= self._next_check:
            with suppress(TargetError):  # a network that fails for a moment does not stop the job
                self._check_plan()
            self._next_check = time.monotonic() + _CHECK_SECONDS

    def _take(self, outcome: Outcome) -> None:
        """Add a unit's outcome to the state and to the log, and show it.

        Raises
        ------
        JobError
            The outcome's verdict is "stop".
        """
        if outcome.verdict == "stop":
            raise JobError(f"{outcome.reason}, then run the same command again: {self._state.summary}")
        record = outcome.record
        if record:
            self._state.whole[record.name] = record
            self._state.written[record.name] = record
            self._add_to_log(record)
        else:
            name = outcome.unit.name
            self._state.failed[name] = outcome.reason
            self._log.add_failure(FailedUnit(name, self._keys[name], outcome.reason))
        self._progress.finished(outcome)

    def _finish(self, missing: list[Unit]) -> Report:
        """Write the log and the report, and ``_SUCCESS`` if all parts are there and no other run has begun."""
        self._log.flush()
        self._check_plan()
        report = self._report(self._remove_stale_parts())
        if missing:
            raise JobError(
                f"{len(missing)} parts, such as {missing[0].name}, disappear from {self._target.address} after "
                "they are written; check whether another program removes them, then run the same command again"
            )
        if report.complete:
            self._target.abort_unfinished_uploads()
            self._succeed()
        return report

    def _remove_stale_parts(self) -> list[str]:
        """Remove stale parts; return a note on Parquet files that no job wrote."""
        others = self._target.list_files().keys() - self._state.whole.keys()
        foreign = remove_stale_parts(self._target, self._keys, others)
        if not foreign:
            return []
        return [f"{len(foreign)} Parquet files do not belong to this job and are kept, such as {foreign[0]}"]

    def _report(self, notes: list[str]) -> Report:
        failed = {self._units[name].file.address: why for name, why in self._state.failed.items()}
        report = make_report(self._target.address, self._state, failed, [*self._plan.notes, *notes])
        self._save(report)
        return report

    def _save(self, report: Report) -> None:
        """Write the report, with the figures of the last run if this one wrote no part."""
        last: Report | None
        try:
            last = load_report(self._target.address, self._target.options)
        except TargetError:
            raise
        except JobError:  # there is none yet, or it is damaged
            last = None
        if last and not self._state.written:
            report = replace(report, **{name: getattr(last, name) for name in _OF_A_RUN})
        if report != last:
            save_report(self._target, report, self._state.whole.values())

    def _succeed(self) -> None:
        self._check_plan()
        self._target.write(SUCCESS, b"")
