"""Check the workers of a cluster while a job runs, and report what the job waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

from dask.utils import format_bytes
from distributed import Client, LocalCluster

from ...errors import ClusterError
from ..files.errors import describe_error
from ..units.progress import Progress, format_duration
from ..units.state import count

Workers = dict[str, dict[str, Any]]

# Seconds between two checks of the workers; without progress until a message says what the job waits for; and
# until a job stops whose workers are all paused and idle.
_CHECK_S, _REMIND_S, _PAUSED_S = 3.0, 60.0, 60.0
# A cluster in this process starts a worker within seconds or never: Dask does not restart one that dies at its
# start. After so many seconds without a worker, the job stops.
_NO_WORKER_S = 30.0
# Seconds without an answer from the scheduler until a message says so.
_ANSWER_S = 30
_IN_FLIGHT_PER_THREAD = 2
# How many units in flight a message names.
_MAX_NAMED = 3

_ADVICE = "give each worker more (--memory-limit), start fewer workers or threads, or use a smaller model"
MEMORY_ADVICE = f"if memory ran out, {_ADVICE}"


def workers_of(client: Client) -> Workers:
    """Return what the scheduler knows of all workers: address -> status, memory limit, metrics.

    Raises
    ------
    OSError
        The scheduler is gone, or does not answer.
    """
    scheduler: Any = client.scheduler
    info = client.sync(scheduler.identity, n_workers=-1, callback_timeout=_ANSWER_S)
    workers: Workers = info["workers"]
    return workers


def memory_limit(worker: dict[str, Any]) -> str:
    """Return a worker's memory limit as text."""
    limit = worker.get("memory_limit")
    return format_bytes(limit) if limit else "that of its machine"


def raise_if_none_starts(client: Client, seconds: float, why: str = "") -> None:
    """Raise if a cluster in this process has had no worker for ``seconds``: it will start no other.

    Raises
    ------
    ClusterError
        No worker will start; ``why`` says what happened to the last ones.
    """
    cluster = client.cluster
    if isinstance(cluster, LocalCluster) and cluster.worker_spec and seconds > _NO_WORKER_S:
        why = why or f"the cluster on this machine has lost its workers; {MEMORY_ADVICE}"
        raise ClusterError(
            f"{why}. Dask has started no other worker for {format_duration(seconds)}: run the same command "
            "again"
        )


@contextmanager
def connected() -> Iterator[None]:
    """Raise ClusterError if the connection to the scheduler is lost within the block."""
    try:
        yield
    except (CancelledError, asyncio.CancelledError, OSError) as error:
        raise ClusterError(
            f"the connection to the scheduler was lost ({describe_error(error)}); written parts are kept: "
            "start the cluster and run the same command again"
        ) from error


class Watch:
    """Checks a cluster's workers while a job runs on it.

    Parameters
    ----------
    client : Client
    progress : Progress
        Shows what the job waits for.
    """

    def __init__(self, client: Client, progress: Progress) -> None:
        self._client, self._progress = client, progress
        self._checked = self._last_not_stuck = float("-inf")
        self._last_progress = self._last_message = time.monotonic()
        self._gone_since = float("inf")
        self._state = ""
        # How many units to keep in flight.
        self.width = 2

    def note_progress(self) -> None:
        """Note that the job has made progress."""
        self._last_progress = time.monotonic()

    def check(self, running: Callable[[], dict[str, float]]) -> None:
        """Check the workers every few seconds; show what is wrong with them, or what takes long.

        ``running`` returns the units in flight and when each was submitted.

        Raises
        ------
        ClusterError
            All workers are paused and idle for a minute; or all are gone and no other will start.
        OSError
            The connection to the scheduler is lost.
        """
        if time.monotonic() - self._checked < _CHECK_S:
            return
        try:
            workers = workers_of(self._client)
        except TimeoutError:
            workers, state, line = (
                {},
                "silent",
                f"the scheduler has not answered for {_ANSWER_S} s; it may be busy",
            )
        else:
            state, line = _state(workers)
            # Two per thread, so that no thread waits for the client.
            self.width = max(2, _IN_FLIGHT_PER_THREAD * sum(info["nthreads"] for info in workers.values()))
        self._checked = time.monotonic()
        self._raise_if_stuck(state, line, workers)
        self._report(state, line, running)

    def _report(self, state: str, line: str, running: Callable[[], dict[str, float]]) -> None:
        """Show at once that workers are gone or paused, and every minute without progress what is in flight."""
        slow = self._checked - max(self._last_progress, self._last_message) > _REMIND_S
        if slow or (state != self._state and state):
            waited = f"no progress for {format_duration(self._checked - self._last_progress)}: "
            self._progress.warn((waited if slow else "") + (line or self._in_flight(running())))
            self._last_message = self._checked
        self._state = state

    def _raise_if_stuck(self, state: str, line: str, workers: Workers) -> None:
        """Raise if the workers can do no more work."""
        self._gone_since = min(self._gone_since, self._checked) if state == "gone" else float("inf")
        raise_if_none_starts(self._client, self._checked - self._gone_since)
        if state != "paused" or any(map(_executing, workers.values())):
            self._last_not_stuck = self._checked
        elif self._checked - max(self._last_not_stuck, self._last_progress) > _PAUSED_S:
            raise ClusterError(
                f"no unit has run for {format_duration(_PAUSED_S)}: {line}, and run the same command again"
            )

    def _in_flight(self, running: dict[str, float]) -> str:
        """Return a line on the units in flight: the oldest first, with their workers."""
        places = {str(key): worker for worker, keys in self._client.processing().items() for key in keys}
        named = [
            f"{key} on {places.get(key, 'no worker yet')} since {format_duration(self._checked - since)}"
            for key, since in sorted(running.items(), key=lambda item: item[1])[:_MAX_NAMED]
        ]
        if more := len(running) - len(named):
            named.append(f"and {more:,} more")
        return f"{count(len(running), 'part is', 'parts are')} being embedded: {'; '.join(named)}"


def _state(workers: Workers) -> tuple[str, str]:
    """Return a name for the problem of the workers and a line that explains it; both empty if there is none."""
    if not workers:
        return "gone", "the cluster has no workers; waiting for one"
    paused = [info for info in workers.values() if info["status"] == "paused"]
    if not paused:
        return "", ""
    used = sum(info["metrics"].get("memory", 0) for info in paused)
    limit = sum(info["memory_limit"] or 0 for info in paused)
    line = (
        f"{len(paused)} of {len(workers)} workers are paused by Dask, because they use {format_bytes(used)} of "
        f"{format_bytes(limit)} of memory: {_ADVICE}"
    )
    return ("paused" if len(paused) == len(workers) else "some paused"), line


def _executing(worker: dict[str, Any]) -> int:
    """Return how many tasks a worker runs."""
    counts: dict[str, int] = worker["metrics"].get("task_counts", {})
    return counts.get("executing", 0) + counts.get("long-running", 0)
