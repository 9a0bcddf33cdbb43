"""The model on every worker before work starts, and the same one everywhere.

Secrets: an access token goes to workers in a direct message, never in a graph, a key or the plugin.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from uuid import uuid4

from distributed import Client

from ..cluster import Preload
from ..errors import JobError, ModelError
from ..mapping import EmbedTask
from ..models import remember_token
from ..stages import EmbeddingCreatorStage
from .fingerprint import model_digests
from .progress import Progress

_TELL_S = 60
# What two workers may differ in, and what to do about it; "" is for the model's own files.
_ADVICE = {
    "computes_in": "their vectors would differ in the third digit: pass --no-autocast (autocast=False), or use "
                   "workers of one kind",
    "adapter": "the adapter's files must be the same on every machine: share its folder",
    "": "pass revision, or share one cache",
}  # fmt: skip


def load_same(task: EmbedTask, expected: dict[str, str]) -> None:
    """Load the model into this process, if it is the one that the job began with.

    Raises
    ------
    ModelError
        It cannot be found, or is another one.
    ConfigError
        It has not what its settings ask for.
    """
    found = model_digests(task.settings)
    if found != expected:
        raise ModelError(f"this worker differs from those that the job began with: {_unlike(expected, found)}")
    task.embed([])


def prepare_workers(client: Client, stage: EmbeddingCreatorStage, progress: Progress) -> dict[str, str]:
    """Find the model on every worker, and see that it is the same; its digests. Waits for the first worker.

    Raises
    ------
    JobError
        Some workers lack this package.
    ModelError
        Some workers lack the model, or hold another one, or compute in another number type.
    """
    _wait_for_workers(client, progress)
    if stage.hf_token is not None:
        client.run(remember_token, stage.model_identifier, stage.hf_token)
    found = client.run(model_digests, stage.settings, on_error="return")
    for worker, error in found.items():
        if isinstance(error, ImportError):
            raise JobError(f"worker {worker} lacks a package: {error}; install nemo-embed-dask on it")
        if isinstance(error, BaseException):
            raise ModelError(f"worker {worker}: {error}")
    first = next(iter(found))
    for worker, its in found.items():
        if its != found[first]:
            raise ModelError(f"worker {worker} differs from {first}: {_unlike(found[first], its)}")
    digests: dict[str, str] = found[first]
    return digests


def _wait_for_workers(client: Client, progress: Progress) -> None:
    """On a busy queue the first worker may take hours, which is no mistake."""
    while not client.scheduler_info()["workers"]:
        try:
            client.wait_for_workers(1, timeout=_TELL_S)
        except TimeoutError:
            progress.say("the cluster has no workers yet; waiting for the first one")


def _unlike(one: dict[str, str], other: dict[str, str]) -> str:
    name = next(name for name in {**one, **other} if one.get(name) != other.get(name))
    values = (str(its.get(name))[:12] for its in (other, one))
    return f"{name} is {' and not '.join(values)}; {_ADVICE.get(name, _ADVICE[''])}"


@contextmanager
def loaded(client: Client, task: EmbedTask, digests: dict[str, str]) -> Iterator[str]:
    """The model on all workers, and on all that join later, for as long as the job runs.

    Yields
    ------
    str
        The plugin's name: `cluster.Preload`.

    Raises
    ------
    ModelError
        A worker cannot load it.
    """
    name = f"nemo-embed-{uuid4().hex[:8]}"
    client.register_plugin(Preload(partial(load_same, task, digests), name))
    try:
        yield name
    finally:
        with suppress(Exception):  # the cluster that had it may be gone; what was done counts
            if client.status == "running":
                client.unregister_worker_plugin(name)
