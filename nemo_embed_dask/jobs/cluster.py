"""Units done on a Dask cluster. Knows futures; knows no file.

On a cluster a bounded number is in flight. A unit whose worker died is run again by Dask; one whose workers
keep dying is put in quarantine and tried alone at the end, so that it condemns none that ran beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any
from uuid import uuid4

from distributed import Client, KilledWorker, Reschedule, as_completed, get_worker

from ..cluster import TOPIC
from ..errors import JobError
from .inputs import Unit
from .progress import Progress
from .readers import one_line
from .work import Job, Outcome, attempt, final

_IN_FLIGHT_PER_THREAD, _RECOUNT_S, _TELL_S = 2, 5.0, 0.5


def on_cluster(
    client: Client, units: Sequence[Unit], job: Job, retries: int, progress: Progress, preload: str
) -> Iterator[Outcome]:
    """Do the units on a cluster, in whatever order they come out; ``preload``: the plugin that has the model.

    Raises
    ------
    JobError
        The connection to the scheduler is lost.
    """
    client.subscribe_topic(TOPIC, lambda event: _hear(progress, *event[1]))
    quarantine: list[Unit] = []
    try:
        for outcome in _flow(client, units, job, retries, preload):
            if outcome.verdict == "retry":
                quarantine.append(outcome.unit)
            else:
                yield outcome
        for unit in quarantine:
            yield from map(final, _flow(client, [unit], job, retries, preload))
    except (CancelledError, asyncio.CancelledError, OSError) as error:
        raise JobError(
            f"the connection to the scheduler was lost ({one_line(error)}); what is done stays done: "
            "start the cluster and run the same command again"
        ) from error
    finally:
        if client.status == "running":
            client.unsubscribe_topic(TOPIC)


def _hear(progress: Progress, kind: str, *said: Any) -> None:
    if kind == "tick":
        progress.tick(*said)
    else:
        progress.say("worker {} has left: {}".format(*said))


def _flow(client: Client, units: Sequence[Unit], job: Job, retries: int, preload: str) -> Iterator[Outcome]:
    """Units through the cluster; one whose workers died comes out with the verdict "retry"."""
    waiting = deque((unit, 0) for unit in units)
    running: dict[Any, tuple[Unit, int]] = {}
    finished, width = as_completed(), _Width(client)
    run = uuid4().hex[:8]
    while waiting or running:
        while waiting and len(running) < width():
            unit, tried = waiting.popleft()
            future = client.submit(_on_worker, unit, job, preload, key=f"embed-{run}{tried:02x}-{unit.name}")
            running[future] = unit, tried
            finished.add(future)
        future = next(finished)
        unit, tried = running.pop(future)
        outcome = _outcome(client, future, unit)
        if outcome.verdict == "retry" and tried < retries and future.status != "error":
            waiting.append((unit, tried + 1))
            continue
        yield outcome if future.status == "error" else final(outcome)


def _outcome(client: Client, future: Any, unit: Unit) -> Outcome:
    try:
        outcome: Outcome = future.result()
    except KilledWorker:
        return Outcome(unit, "retry", reason=f"{unit.file.address}: {_DIED}")
    except (CancelledError, asyncio.CancelledError):
        raise
    except OSError as error:
        if client.status != "running":
            raise
        return Outcome(unit, "retry", reason=f"{unit.file.address}: {one_line(error)}")  # of its worker, dying
    except Exception as error:  # noqa: BLE001 - whatever Dask could not run or carry
        return Outcome(unit, "failed", reason=f"{unit.file.address}: {one_line(error)}")
    return outcome


_DIED = (
    "its worker died each time that it was tried; if memory ran out, give workers more (--memory-limit), or "
    "fewer threads, or lower --model-inference-batch-size"
)


def _on_worker(unit: Unit, job: Job, preload: str) -> Outcome:
    worker = get_worker()
    plugin: Any = worker.plugins.get(preload)
    if plugin is not None and plugin.trouble:
        raise Reschedule  # this worker is about to leave
    return attempt(unit, job, _Ticks(worker))


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


class _Width:
    """How many units may be in flight; workers come and go, so that it is counted again now and then."""

    def __init__(self, client: Client) -> None:
        self._client, self._counted, self._width = client, float("-inf"), 1

    def __call__(self) -> int:
        if time.monotonic() - self._counted > _RECOUNT_S:
            threads = sum(self._client.nthreads().values())
            self._width = max(2, _IN_FLIGHT_PER_THREAD * threads)
            self._counted = time.monotonic()
        return self._width
