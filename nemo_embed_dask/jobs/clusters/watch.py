"""What a job on a cluster waits for: seen within seconds, and said. Knows workers, no unit's content."""

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

Workers = dict[str, dict[str, Any]]

# Seconds between two looks at the workers; without progress until it is said what the job waits for; and until
# a job ends whose workers are all paused and do nothing.
_LOOK_S, _TELL_S, _PAUSED_S = 3.0, 60.0, 60.0
# A cluster of this process starts a worker within seconds, or never: Dask gives up one that dies meanwhile.
_NONE_S = 30.0
# A scheduler that does not answer for so long is said; it may be busy.
_ANSWER_S = 30
_IN_FLIGHT_PER_THREAD = 2
# So many running units are named in one line.
_NAMED = 3

_ADVICE = "give each worker more (--memory-limit), start fewer workers or threads, or use a smaller model"
MEMORY_ADVICE = f"if memory ran out, {_ADVICE}"


def workers_of(client: Client) -> Workers:
    """The scheduler's own view of all workers: address -> status, memory limit, metrics.

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
    """A worker's memory limit, to be read."""
    limit = worker.get("memory_limit")
    return format_bytes(limit) if limit else "that of its machine"


def end_if_none_comes(client: Client, seconds: float, why: str = "") -> None:
    """Raise if there has been no worker for ``seconds``, on a cluster of this process, which starts none late.

    Raises
    ------
    ClusterError
        None will come; ``why`` says what became of the last ones.
    """
    own = client.cluster
    if isinstance(own, LocalCluster) and own.worker_spec and seconds > _NONE_S:
        why = why or f"the cluster on this machine has lost its workers; {MEMORY_ADVICE}"
        raise ClusterError(
            f"{why} (for {format_duration(seconds)} Dask has started no other); then run the same command again"
        )


@contextmanager
def connected() -> Iterator[None]:
    """Turn the loss of the scheduler within the block into an error of the job.

    Raises
    ------
    ClusterError
        The connection to the scheduler is lost.
    """
    try:
        yield
    except (CancelledError, asyncio.CancelledError, OSError) as error:
        raise ClusterError(
            f"the connection to the scheduler was lost ({describe_error(error)}); what is done stays done: "
            "start the cluster and run the same command again"
        ) from error


class Watch:
    """Looks at a cluster's workers while a job runs on it.

    Parameters
    ----------
    client : Client
    progress : Progress
        Where it is shown what the job waits for.
    """

    def __init__(self, client: Client, progress: Progress) -> None:
        self._client, self._progress = client, progress
        self._looked = self._stuck_since = float("-inf")
        self._moved = self._told = time.monotonic()
        self._gone_since = float("inf")
        self._state = ""
        self.width = 2

    def moved(self) -> None:
        """Note that the job has come further."""
        self._moved = time.monotonic()

    def look(self, running: Callable[[], dict[str, float]]) -> None:
        """Count the workers now and then, and say what is wrong with them, or what takes long.

        ``running`` returns the units in flight and when each was handed to the cluster.

        Raises
        ------
        ClusterError
            All workers are paused, and nothing runs, for a minute; or all are gone, and none will come.
        OSError
            The connection to the scheduler is lost.
        """
        if time.monotonic() - self._looked < _LOOK_S:
            return
        try:
            workers = workers_of(self._client)
        except TimeoutError:
            workers, state, line = {}, "silent", f"the scheduler has not answered for {_ANSWER_S} s"
        else:
            state, line = _state(workers)
            # Two a thread, so that none waits for the client.
            self.width = max(2, _IN_FLIGHT_PER_THREAD * sum(its["nthreads"] for its in workers.values()))
        self._looked = time.monotonic()
        self._end_if_stuck(state, line, workers)
        self._tell(state, line, running)

    def _tell(self, state: str, line: str, running: Callable[[], dict[str, float]]) -> None:
        """Say at once that workers are gone or paused, and every minute without progress what is waited for."""
        still = self._looked - max(self._moved, self._told) > _TELL_S
        if still or (state != self._state and state):
            waited = f"no progress for {format_duration(self._looked - self._moved)}: "
            self._progress.warn((waited if still else "") + (line or self._at_work(running())))
            self._told = self._looked
        self._state = state

    def _end_if_stuck(self, state: str, line: str, workers: Workers) -> None:
        self._gone_since = min(self._gone_since, self._looked) if state == "gone" else float("inf")
        end_if_none_comes(self._client, self._looked - self._gone_since)
        if state != "paused" or any(_executing(its) for its in workers.values()):
            self._stuck_since = self._looked
        elif self._looked - max(self._stuck_since, self._moved) > _PAUSED_S:
            raise ClusterError(
                f"nothing has run for {format_duration(_PAUSED_S)}: {line}, then run the same command again"
            )

    def _at_work(self, running: dict[str, float]) -> str:
        """Which units are in flight, the oldest first, and where."""
        places = {
            str(key): worker
            for worker, keys in self._client.processing().items()
            for key in keys
        }  # fmt: skip
        named = [
            f"{key} on {places.get(key, 'no worker yet')} since {format_duration(self._looked - since)}"
            for key, since in sorted(running.items(), key=lambda item: item[1])[:_NAMED]
        ]
        return f"{len(running)} parts are under way: {'; '.join(named)}"


def _state(workers: Workers) -> tuple[str, str]:
    """A name for what is wrong with the workers, and a line that says it; both empty if nothing is."""
    if not workers:
        return "gone", "the cluster has no workers; waiting for one"
    paused = [its for its in workers.values() if its["status"] == "paused"]
    if not paused:
        return "", ""
    used = sum(its["metrics"].get("memory", 0) for its in paused)
    limit = sum(its["memory_limit"] or 0 for its in paused)
    line = (
        f"{len(paused)} of {len(workers)} workers are paused by Dask, because they use {format_bytes(used)} of "
        f"{format_bytes(limit)} of memory: {_ADVICE}"
    )
    return ("paused" if len(paused) == len(workers) else "some paused"), line


def _executing(worker: dict[str, Any]) -> int:
    counts: dict[str, int] = worker["metrics"].get("task_counts", {})
    return counts.get("executing", 0) + counts.get("long-running", 0)
