"""The model on every worker before work starts, and the same one everywhere.

Secrets: an access token goes to workers in a direct message, never in a graph, a key or the plugin; the options
of file systems in a direct message and the plugin.
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

from ...errors import ClusterError, ConfigError, ModelError
from ...models.locate import remember_token
from ...stages import EmbeddingCreatorStage
from ..files.inputs import Unit
from ..units.fingerprint import model_digests
from ..units.progress import Progress
from ..units.work import Job
from .adaptive import held_workers
from .plugin import JobPreload, Sealed, load_same, unlike
from .shared_files import shared_files
from .versions import check_versions
from .watch import MEMORY_ADVICE, connected, end_if_none_comes, memory_limit, workers_of

# Seconds between two looks for the first worker, until it is said that there is none, and until it is said
# again; and until it is said what is waited for.
_POLL_S, _FIRST_S, _TELL_S, _REMIND_S = 0.5, 10, 60, 60
# How often it is tried again, and after how many seconds, where all workers died that a message was sent to.
_ROUNDS, _PAUSE_S = 3, 1.0


def check_client(client: Any) -> None:
    """Raise if a job cannot use a client, or what was given as one.

    Raises
    ------
    ClusterError
        It is closed.
    ConfigError
        It is asynchronous, or no client at all.
    """
    if isinstance(client, str):
        raise ConfigError(f"client={client!r} is an address; pass distributed.Client({client!r})")
    if not isinstance(client, Client):
        raise ConfigError(
            f"client={client!r:.80} ({type(client).__name__}) is not a client; pass "
            "client=distributed.Client(cluster)"
        )
    if client.status in ("closing", "closed"):
        raise ClusterError("the client is closed; make a new one: client=Client(address)")
    if client.asynchronous:
        raise ConfigError(
            "the client is asynchronous, and a job waits: pass a client made without asynchronous=True"
        )


async def _beside(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run on a worker beside its event loop, which must go on beating."""
    return await asyncio.to_thread(work, *arguments)


def prepare_workers(client: Client, stage: EmbeddingCreatorStage, progress: Progress) -> dict[str, str]:
    """Find the model on every worker, and see that it is the same; its digests. Waits for the first worker.

    Raises
    ------
    ClusterError
        The client is closed, some workers lack this package or have another version, or all died.
    ConfigError
        The client is asynchronous.
    ModelError
        Some workers lack the model, or hold another one, or compute in another number type.
    """
    check_client(client)
    with connected(), held_workers(client) as hold_each:
        run = partial(_find, client, stage)
        found = _on_all(client, progress, hold_each, "looked for the model", run)
    for worker, error in found.items():
        if isinstance(error, ImportError):
            raise ClusterError(f"worker {worker} lacks a package: {error}; install nemo-embed-dask on it")
        if isinstance(error, BaseException):
            raise ModelError(f"worker {worker}: {error}")
    first = next(iter(found))
    for worker, its in found.items():
        if its != found[first]:
            raise ModelError(f"worker {worker} differs from {first}: {unlike(found[first], its)}")
    digests: dict[str, str] = found[first]
    return digests


def _find(client: Client, stage: EmbeddingCreatorStage) -> dict[str, Any]:
    """Each worker's digests of the model, or its error."""
    if stage.hf_token is not None:
        client.run(remember_token, stage.model_identifier, stage.hf_token, on_error="ignore")
    found: dict[str, Any] = client.run(_beside, model_digests, stage.settings, on_error="return")
    return found


def _wait_for_workers(client: Client, progress: Progress, died: str) -> None:
    """On a busy queue the first worker may take hours, which is no mistake."""
    since = time.monotonic()
    tell = since + _FIRST_S
    while not workers_of(client):
        now = time.monotonic()
        end_if_none_comes(client, now - since, died)
        if now > tell:
            tell = now + _TELL_S
            progress.warn(
                "all workers of the cluster have died; waiting for another one"
                if died
                else "the cluster has no workers yet; waiting for the first one"
            )
        time.sleep(_POLL_S)


def _on_all(
    client: Client,
    progress: Progress,
    hold_each: Callable[[], None],
    did: str,
    run: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Results or errors by worker, without those that died; if all died, those of workers that come later."""
    dead: list[str] = []
    for left in reversed(range(_ROUNDS)):
        _wait_for_workers(client, progress, dead[0] if dead else "")
        hold_each()
        alive, dead = _once_on_all(client, progress, did, run)
        if not (alive or left):
            raise ClusterError(dead[0] if dead else f"workers leave before they have {did}; {MEMORY_ADVICE}")
        for line in dead:
            progress.warn(line)
        if alive:
            break
        time.sleep(_PAUSE_S)
    return alive


def _once_on_all(
    client: Client, progress: Progress, did: str, run: Callable[[], dict[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """Results or errors of the workers that lived, and a line on each that died."""
    workers = workers_of(client)
    with progress.warn_if_slow(f"waiting until all {len(workers)} workers have {did}", _REMIND_S):
        check_versions(client)
        found = run()
    present = workers_of(client)
    alive = {
        address: its
        for address, its in found.items()
        if not (isinstance(its, OSError) and (isinstance(its, CommClosedError) or address not in present))
    }
    dead = [
        f"worker {address} died before it had {did}: its memory limit is {memory_limit(its)}; {MEMORY_ADVICE}"
        for address, its in workers.items()
        if address not in alive
    ]
    return alive, dead


@contextmanager
def loaded(
    client: Client, job: Job, units: Sequence[Unit], digests: dict[str, str], progress: Progress
) -> Iterator[str]:
    """The model on all workers, and on all that join later, for as long as the job runs.

    Yields
    ------
    str
        The plugin's name: `JobPreload`.

    Raises
    ------
    ClusterError
        Workers have another version of this package, do not see the client's folders, or die while they load
        the model.
    ModelError
        A worker cannot load it.
    """
    check_client(client)
    name = f"nemo-embed-{uuid4().hex[:8]}"
    with shared_files(job, units) as shared:
        sealed = Sealed(job, partial(load_same, job.task, digests, shared))
        try:
            with connected(), held_workers(client) as hold_each:
                _load_on_all(client, progress, hold_each, sealed.load)
                _send_plugin(client, JobPreload(sealed, name))
            yield name
        finally:
            with suppress(Exception):  # the cluster that had it may be gone; what was done counts
                if client.status == "running":
                    client.unregister_worker_plugin(name)


def _load_on_all(
    client: Client, progress: Progress, hold_each: Callable[[], None], load: Callable[[], None]
) -> None:
    """Load the model on the workers that are there; one that cannot stays, and its error ends the job."""
    run = partial(client.run, _beside, load, on_error="return")
    for worker, error in _on_all(client, progress, hold_each, "loaded the model", run).items():
        if isinstance(error, ClusterError):
            raise ClusterError(f"worker {worker}: {error}")
        if isinstance(error, BaseException):
            raise error


def _send_plugin(client: Client, plugin: JobPreload) -> None:
    """Register the plugin, on workers that join later too; a worker may die while it is sent."""
    for left in reversed(range(_ROUNDS)):
        try:
            client.register_plugin(plugin)
            return
        except CommClosedError as error:
            if not left:
                raise ClusterError(f"workers die while they load the model; {MEMORY_ADVICE}") from error
