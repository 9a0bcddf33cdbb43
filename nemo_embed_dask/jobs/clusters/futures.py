"""Units done on a Dask cluster. Knows futures; knows no file.

On a cluster a bounded number is in flight. A unit whose worker died is run again by Dask; one whose workers
keep dying is put in quarantine and tried alone at the end, so that it condemns none that ran beside it.
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

# Results are small: one that takes longer than _RESULT_S has lost its worker, or the scheduler is busy. The job
# checks its workers before it asks for the result again.
_TELL_S, _POLL_S, _RESULT_S = 0.5, 1.0, 5


def on_cluster(
    client: Client, units: Sequence[Unit], retries: int, progress: Progress, preload: str
) -> Iterator[Outcome]:
    """Do the units on a cluster, in whatever order they come out; ``preload``: the plugin that has the job.

    Raises
    ------
    ClusterError
        The connection to the scheduler is lost, or all workers stay paused.
    JobError
        Several units in a row failed with errors that may pass: their store is out of reach.
    """
    watch, tries = Watch(client, progress), Retries(retries, progress)
    client.subscribe_topic(TOPIC, lambda event: _hear(progress, watch, *event[1]))
    quarantine: list[Unit] = []
    try:
        with connected():
            for outcome in _Flow(client, preload, tries, watch).outcomes(units):
                if outcome.verdict == "retry":
                    quarantine.append(outcome.unit)
                    progress.warn(f"{outcome.reason}; will be tried again, alone, at the end")
                else:
                    yield outcome
            for unit in quarantine:
                yield from map(without_retry, _Flow(client, preload, tries, watch).outcomes([unit]))
    finally:
        if client.status == "running":
            client.unsubscribe_topic(TOPIC)


def _hear(progress: Progress, watch: Watch, kind: str, *said: Any) -> None:
    if kind == "tick":
        watch.moved()
        progress.tick(*said)
    else:
        progress.warn("worker {} has left: {}".format(*said))


class _Flow:
    """Units on their way through the cluster; one whose workers died comes out with the verdict "retry"."""

    def __init__(self, client: Client, preload: str, tries: Retries, watch: Watch) -> None:
        self._client, self._preload, self._tries, self._watch = client, preload, tries, watch
        self._run = uuid4().hex[:8]
        # When each unit is due, its place in the order, and how often it was tried.
        self._waiting: list[tuple[float, int, Unit, int]] = []
        self._running: dict[Any, tuple[int, Unit, int, float]] = {}
        self._finished: SimpleQueue[Any] = SimpleQueue()

    def outcomes(self, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Do the units, a bounded number at a time."""
        self._waiting = [(0.0, place, unit, 0) for place, unit in enumerate(units)]
        try:
            while self._waiting or self._running:
                self._watch.look(self._in_flight)
                self._submit()
                outcome = self._next()
                if outcome is not None:
                    yield outcome
        finally:
            for future in self._running:  # something may still wait for it, and so keep it alive
                future.release()

    def _in_flight(self) -> dict[str, float]:
        return {future.key: since for future, (*_, since) in self._running.items()}

    def _submit(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now and len(self._running) < self._watch.width:
            _, place, unit, tried = heapq.heappop(self._waiting)
            key = f"embed-{self._run}{tried:02x}-{unit.name}"
            future = self._client.submit(_on_worker, unit, self._preload, key=key)
            self._running[future] = place, unit, tried, now
            future.add_done_callback(self._finished.put)

    def _next(self) -> Outcome | None:
        """The next outcome; None if there is none for a second, or its unit is tried again."""
        try:
            future = self._finished.get(timeout=_POLL_S if self._running else self._until_due())
        except Empty:
            return None
        place, unit, tried, since = self._running.pop(future)
        try:
            outcome = _outcome(self._client, future, unit)
        except TimeoutError:  # the worker that had its result died, and another one does it again
            self._running[future] = place, unit, tried, since
            future.add_done_callback(self._finished.put)
            return None
        self._watch.moved()
        if future.status == "error":
            return outcome
        delay = self._tries.delay(outcome, tried, self._watch.width)
        if delay is None:
            return without_retry(outcome)
        heapq.heappush(self._waiting, (time.monotonic() + delay, place, unit, tried + 1))
        return None

    def _until_due(self) -> float:
        return min(_POLL_S, max(0.01, self._waiting[0][0] - time.monotonic()))


def _outcome(client: Client, future: Any, unit: Unit) -> Outcome:
    """What became of a unit, also where Dask could not run it.

    Raises
    ------
    TimeoutError
        Its result is not there yet.
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
        # The worker was closing.
        return Outcome(unit, "retry", reason=f"{unit.file.address}: {describe_error(error)}")
    except Exception as error:  # noqa: BLE001 - whatever Dask could not run or carry
        return Outcome(unit, "failed", reason=f"{unit.file.address}: {describe_error(error)}")
    return outcome


_DIED = (
    "its worker died each time that it was tried; if memory ran out, give workers more (--memory-limit), or "
    "fewer threads, or lower --model-inference-batch-size"
)


def _on_worker(unit: Unit, preload: str) -> Outcome:
    """Do a unit. Its job comes from the plugin: a job may hold secrets, and the scheduler shows its tasks."""
    worker = get_worker()
    plugin: Any = worker.plugins.get(preload)
    if plugin is None:
        raise ClusterError(f"worker {worker.address} does not have this job; run it again")
    return attempt(unit, plugin.before_unit(worker), _Ticks(worker))


class _Ticks:
    """Tells the client how far a task has come, now and then; ends one that nobody waits for any more."""

    def __init__(self, worker: Any) -> None:
        self._worker, self._task = worker, worker.state.tasks[worker.get_current_task()]
        self._told = time.monotonic()

    def __call__(self, name: str, documents: int, tokens: int) -> None:
        if self._task.state == "cancelled":
            raise JobError(f"the client that wanted {name} is gone")
        if time.monotonic() - self._told > _TELL_S:
            self._told = time.monotonic()
            self._worker.log_event(TOPIC, ("tick", name, documents, tokens))
