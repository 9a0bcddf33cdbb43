"""Load the same model on every worker before a job starts.

Secrets: an access token is sent to workers in a direct message, never in a graph, a key or the plugin; options
of file systems in a direct message and in the plugin.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from uuid import uuid4

from distributed import Client
from distributed.comm import CommClosedError

from ...clusters.clients import check_client
from ...engine.digests import model_digests
from ...errors import ClusterError, ModelError
from ...models.locate import remember_token
from ...stages import EmbeddingCreatorStage
from ..files.inputs import Unit
from ..units.progress import Progress
from ..units.state import count
from ..units.work import Job
from .adaptive import keep_workers
from .plugin import JobPreload, SerializedJob, describe_difference, load_same_model
from .shared_files import files_on_client
from .versions import check_versions
from .watch import MEMORY_ADVICE, connected, memory_limit, raise_if_none_starts, workers_of

# Seconds between two checks for a first worker, before the first message that there is none or that workers are
# slow, and between messages that there is none.
_POLL_S, _FIRST_S, _REPEAT_S = 0.5, 10, 60
# Seconds between messages about what slow workers do, after a first one.
_REMIND_S = 60
# Attempts to send a message to workers that die meanwhile, and the seconds between them.
_MAX_ATTEMPTS, _PAUSE_S = 3, 1.0


async def _in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run on a worker in a thread, so that its event loop keeps running."""
    return await asyncio.to_thread(work, *arguments)


def prepare_workers(client: Client, stage: EmbeddingCreatorStage, progress: Progress) -> dict[str, str]:
    """Find the model on every worker, check that it is the same, and return its digests.

    Raises
    ------
    ClusterError
        The client is closed, some workers lack this package or have another version, or all died.
    ConfigError
        The client is asynchronous.
    ModelError
        Some workers lack the model, have another one, or compute in another number type.
    """
    check_client(client)  # it may have been closed since the job began
    with connected(), keep_workers(client) as keep_all:
        run = partial(_find, client, stage)
        found = _run_on_all(client, progress, keep_all, "looked for the model", run)
    for worker, error in found.items():
        if isinstance(error, ImportError):
            raise ClusterError(f"worker {worker} lacks a package: {error}; install nemo-embed-dask on it")
        if isinstance(error, BaseException):
            raise ModelError(f"worker {worker}: {error}")
    first = next(iter(found))
    for worker, digests in found.items():
        if digests != found[first]:
            difference = describe_difference(found[first], digests)
            raise ModelError(f"worker {worker} differs from {first}: {difference}")
    common: dict[str, str] = found[first]
    return common


def _find(client: Client, stage: EmbeddingCreatorStage) -> dict[str, Any]:
    """Return each worker's digests of the model, or its error."""
    if stage.hf_token is not None:
        client.run(remember_token, stage.model_identifier, stage.hf_token, on_error="ignore")
    found: dict[str, Any] = client.run(_in_thread, model_digests, stage.settings, on_error="return")
    return found


def _wait_for_workers(client: Client, progress: Progress, died: str) -> None:
    """Wait for a worker, which may take hours in a busy queue; ``died`` says how the last ones died."""
    since = time.monotonic()
    next_message = since + _FIRST_S
    while not workers_of(client):
        now = time.monotonic()
        raise_if_none_starts(client, now - since, died)
        if now > next_message:
            next_message = now + _REPEAT_S
            progress.warn(
                "all workers of the cluster have died; waiting for another one"
                if died
                else "the cluster has no workers yet; waiting for the first one"
            )
        time.sleep(_POLL_S)


def _run_on_all(
    client: Client,
    progress: Progress,
    keep_all: Callable[[], None],
    done: str,
    run: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Return results or errors by worker, without workers that died; if all died, try workers that join later.

    ``done`` completes the sentence "the worker died before it had ...".
    """
    dead: list[str] = []
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        _wait_for_workers(client, progress, dead[0] if dead else "")
        keep_all()
        alive, dead = _run_once(client, progress, done, run)
        if not alive and attempt == _MAX_ATTEMPTS:
            break
        for line in dead:
            progress.warn(line)
        if alive:
            return alive
        time.sleep(_PAUSE_S)
    raise ClusterError(dead[0] if dead else f"workers leave before they have {done}; {MEMORY_ADVICE}")


def _run_once(
    client: Client, progress: Progress, done: str, run: Callable[[], dict[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """Return results or errors of the workers that live, and a line on each that died."""
    workers = workers_of(client)
    waiting = f"waiting until {count(len(workers), 'worker has', 'workers have')} {done}"
    with progress.warn_if_slow(waiting, _REMIND_S, _FIRST_S):
        check_versions(client)
        found = run()
    present = workers_of(client)
    alive = {
        address: result
        for address, result in found.items()
        if not (isinstance(result, OSError) and (isinstance(result, CommClosedError) or address not in present))
    }
    dead = [
        f"worker {address} died before it had {done}: its memory limit is {memory_limit(info)}; {MEMORY_ADVICE}"
        for address, info in workers.items()
        if address not in alive
    ]
    return alive, dead


@contextmanager
def model_on_workers(
    client: Client, job: Job, units: Sequence[Unit], digests: dict[str, str], progress: Progress
) -> Iterator[str]:
    """Keep the model on all workers, also on those that join later, while the job runs.

    Yields
    ------
    str
        The name of the plugin `JobPreload`.

    Raises
    ------
    ClusterError
        Workers have another version of this package, do not see the client's folders, or die while they
        load the model.
    ModelError
        A worker cannot load the model.
    """
    check_client(client)
    name = f"nemo-embed-{uuid4().hex[:8]}"
    with files_on_client(job, units) as files:
        serialized = SerializedJob(job, partial(load_same_model, job.task, digests, files))
        try:
            with connected(), keep_workers(client) as keep_all:
                _load_on_all(client, progress, keep_all, serialized.load)
                _send_plugin(client, JobPreload(serialized, name))
            yield name
        finally:
            with suppress(Exception):  # the cluster may be gone; the job's result matters more
                if client.status == "running":
                    client.unregister_worker_plugin(name)


def _load_on_all(
    client: Client, progress: Progress, keep_all: Callable[[], None], load: Callable[[], None]
) -> None:
    """Load the model on the current workers; if one fails, it stays and the job fails with its error."""
    run = partial(client.run, _in_thread, load, on_error="return")
    for worker, error in _run_on_all(client, progress, keep_all, "loaded the model", run).items():
        if isinstance(error, ClusterError):
            raise ClusterError(f"worker {worker}: {error}")
        if isinstance(error, BaseException):
            raise error


def _send_plugin(client: Client, plugin: JobPreload) -> None:
    """Register the plugin, also for workers that join later; try again if a worker dies meanwhile."""
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        try:
            client.register_plugin(plugin)
            return
        except CommClosedError as error:
            if attempt == _MAX_ATTEMPTS:
                raise ClusterError(f"workers die while they load the model; {MEMORY_ADVICE}") from error
