"""Workers of an adaptive cluster, kept while they load the model. Knows no model.

Adaptive scaling (``cluster.adapt(minimum=0)``) starts workers for tasks alone, and closes a worker without
one. The model is found and loaded by direct messages, which are no tasks; so small tasks stand for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from distributed import Client, Status, get_worker

_LOOK_S = 0.1


@contextmanager
def held_workers(client: Client) -> Iterator[Callable[[], None]]:
    """Ask for a worker, by a task that waits; yield a function that gives such a task to each worker.

    The tasks end with the block. Their names begin as those of units do: one name on the dashboard.
    """
    run = uuid4().hex[:8]
    tasks: list[Any] = []

    def hold(**where: Any) -> None:
        tasks.append(client.submit(_wait, key=f"embed-{run}00-wait{len(tasks)}", pure=False, **where))

    def hold_each() -> None:
        for address in client.nthreads():
            hold(workers=[address])

    hold()
    try:
        yield hold_each
    finally:
        for task in tasks:
            task.release()


def _wait() -> None:
    """Wait until the client lets go of this task, or the worker closes."""
    worker = get_worker()
    task = worker.state.tasks[worker.get_current_task()]
    while task.state == "executing" and worker.status in (Status.running, Status.paused):
        time.sleep(_LOOK_S)
