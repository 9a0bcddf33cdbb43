"""Embed units as futures on a Dask cluster.

A limited number of units is in flight. Dask runs a unit again if its worker died. A unit whose workers keep
dying is put in quarantine and tried alone at the end, so that units on the same worker do not fail with it.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

from distributed import Client, KilledWorker, get_worker

from ...clusters.local import TOPIC
from ...errors import ClusterError, JobError
from ..files.errors import describe_error
from ..files.inputs import Unit
from ..units.progress import Progress
from ..units.retries import Retries
from ..units.work import Outcome, attempt, without_retry
from .watch import Watch, connected

# Seconds between a worker's messages on its progress, and between looks for finished units.
_TICK_S, _POLL_S = 0.5, 1.0
# Results are small: if one takes longer than so many seconds, its worker was lost or the scheduler is busy. The
# job checks its workers before it asks for the result again.
_RESULT_S = 5


def embed_on_cluster(
    client: Client, units: Sequence[Unit], retries: int, progress: Progress, preload: str
) -> Iterator[Outcome]:
    """Embed units on a cluster, in any order; ``preload`` is the name of the plugin that has the job.

    Raises
    ------
    ClusterError
        The connection to the scheduler is lost, or all workers stay paused.
    JobError
        Several units in a row failed with temporary errors: their storage cannot be reached.
    """
    watch, tries = Watch(client, progress), Retries(retries, progress)
    client.subscribe_topic(TOPIC, lambda event: _on_event(progress, watch, *event[1]))
    quarantine: list[Unit] = []
    try:
        with connected():
            for outcome in _Submitter(client, preload, tries, watch).outcomes(units):
                if outcome.verdict == "retry":
                    quarantine.append(outcome.unit)
                    progress.warn(
                        f"{outcome.reason}; it will be tried again at the end, without other units beside it"
                    )
                else:
                    yield outcome
            for unit in quarantine:
                yield from map(without_retry, _Submitter(client, preload, tries, watch).outcomes([unit]))
    finally:
        if client.status == "running":
            client.unsubscribe_topic(TOPIC)


def _on_event(progress: Progress, watch: Watch, kind: str, *values: Any) -> None:
    """Show an event that a worker sent."""
    if kind == "tick":
        watch.note_progress()
        progress.tick(*values)
    else:
        address, reason = values
        progress.warn(f"worker {address} left the cluster: {reason}")


class _Submitter:
    """Submits units and yields their outcomes; a unit whose workers died has the verdict "retry"."""

    def __init__(self, client: Client, preload: str, tries: Retries, watch: Watch) -> None:
        self._client, self._preload, self._tries, self._watch = client, preload, tries, watch
        self._run = uuid4().hex[:8]
        # For each unit: when it is due, its position, the unit, and how often it was tried.
        self._waiting: list[tuple[float, int, Unit, int]] = []
        self._running: dict[Any, tuple[int, Unit, int, float]] = {}
        self._finished: SimpleQueue[Any] = SimpleQueue()

    def outcomes(self, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Embed the units, a limited number at a time."""
        self._waiting = [(0.0, place, unit, 0) for place, unit in enumerate(units)]
        try:
            while self._waiting or self._running:
                self._watch.check(self._in_flight)
                self._submit()
                outcome = self._next()
                if outcome is not None:
                    yield outcome
        finally:
            for future in self._running:  # a callback may still hold it, and so keep it alive
                future.release()

    def _in_flight(self) -> dict[str, float]:
        """Return the keys of the units in flight, and when each was submitted."""
        return {future.key: since for future, (*_, since) in self._running.items()}

    def _submit(self) -> None:
        """Submit units that are due, until enough are in flight."""
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now and len(self._running) < self._watch.width:
            _, place, unit, tried = heapq.heappop(self._waiting)
            key = f"embed-{self._run}{tried:02x}-{unit.name}"
            future = self._client.submit(_on_worker, unit, self._preload, key=key)
            self._running[future] = place, unit, tried, now
            future.add_done_callback(self._finished.put)

    def _next(self) -> Outcome | None:
        """Return the next outcome; None if there is none for a second, or its unit will be tried again."""
        try:
            future = self._finished.get(timeout=_POLL_S if self._running else self._until_due())
        except Empty:
            return None
        place, unit, tried, since = self._running.pop(future)
        try:
            outcome = _outcome(self._client, future, unit)
        except TimeoutError:  # the worker that had the result died; another one embeds the unit again
            self._running[future] = place, unit, tried, since
            future.add_done_callback(self._finished.put)
            return None
        self._watch.note_progress()
        if future.status == "error":  # Dask could not run the unit: "retry" then means quarantine
            return outcome
        delay = self._tries.delay(outcome, tried, self._watch.width)
        if delay is None:
            return without_retry(outcome)
        heapq.heappush(self._waiting, (time.monotonic() + delay, place, unit, tried + 1))
        return None

    def _until_due(self) -> float:
        """Return the seconds until the next unit is due, at most a second."""
        return min(_POLL_S, max(0.01, self._waiting[0][0] - time.monotonic()))


def _outcome(client: Client, future: Any, unit: Unit) -> Outcome:
    """Return the outcome of a unit, also if Dask could not run it.

    Raises
    ------
    TimeoutError
        Its result has not arrived yet.
    CancelledError, OSError
        The connection to the scheduler is lost.
    """
    try:
        outcome: Outcome = future.result(timeout=_RESULT_S)
    except KilledWorker:
        return Outcome(unit, "retry", reason=f"{unit.file.address}: {_DIED}")
    except (CancelledError, asyncio.CancelledError):
        raise
    except TimeoutError:
        if future.status != "error":
            raise
        return Outcome(unit, "retry", reason=f"{unit.file.address}: its worker did not answer")
    except OSError as error:
        if client.status != "running":
            raise
        # The worker was being closed.
        return Outcome(unit, "retry", reason=f"{unit.file.address}: {describe_error(error)}")
    except Exception as error:  # noqa: BLE001 - whatever Dask raises
        return Outcome(unit, "failed", reason=f"{unit.file.address}: {describe_error(error)}")
    return outcome


_DIED = (
    "its worker died at every attempt; if memory ran out, give workers more (--memory-limit) or fewer threads, "
    "or lower --model-inference-batch-size"
)


def _on_worker(unit: Unit, preload: str) -> Outcome:
    """Embed a unit; its job comes from the plugin, as it may hold secrets and the scheduler shows tasks."""
    worker = get_worker()
    plugin: Any = worker.plugins.get(preload)
    if plugin is None:
        raise ClusterError(f"worker {worker.address} does not have this job; run it again")
    return attempt(unit, plugin.before_unit(worker), _TickSender(worker))


class _TickSender:
    """Sends a task's progress to the client from time to time; ends a task whose client is gone."""

    def __init__(self, worker: Any) -> None:
        self._worker, self._task = worker, worker.state.tasks[worker.get_current_task()]
        self._last_tick = time.monotonic()

    def __call__(self, name: str, documents: int, tokens: int) -> None:
        if self._task.state == "cancelled":
            raise JobError(f"the client of {name} has disconnected")
        if time.monotonic() - self._last_tick > _TICK_S:
            self._last_tick = time.monotonic()
            self._worker.log_event(TOPIC, ("tick", name, documents, tokens))
