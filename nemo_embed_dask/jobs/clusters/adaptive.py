"""Keep the workers of an adaptive cluster while they load the model.

Adaptive scaling (``cluster.adapt(minimum=0)``) starts workers only for tasks, and closes workers without tasks.
The model is loaded by direct messages, which are not tasks; so each worker gets a small task meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from distributed import Client, Status, get_worker

_POLL_S = 0.1


@contextmanager
def keep_workers(client: Client) -> Iterator[Callable[[], None]]:
    """Submit a task that waits, so that a worker starts; yield a function that does so for each worker.

    The tasks end with the block. Their keys start like those of units, so the dashboard shows them together.
    """
    run = uuid4().hex[:8]
    tasks: list[Any] = []

    def keep(**where: Any) -> None:
        tasks.append(client.submit(_wait, key=f"embed-{run}00-wait{len(tasks)}", pure=False, **where))

    def keep_all() -> None:
        for address in client.nthreads():
            keep(workers=[address])

    keep()
    try:
        yield keep_all
    finally:
        for task in tasks:
            task.release()


def _wait() -> None:
    """Wait until the client releases this task, or the worker closes."""
    worker = get_worker()
    task = worker.state.tasks[worker.get_current_task()]
    while task.state == "executing" and worker.status in (Status.running, Status.paused):
        time.sleep(_POLL_S)
