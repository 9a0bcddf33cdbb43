"""The model on every worker before work starts, and the same one everywhere.

Secrets: an access token goes to workers in a direct message, never in a graph, a key or the plugin.
"""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Client, Worker, WorkerPlugin

from .. import engine
from ..errors import JobError, ModelError
from ..models import remember_token
from ..settings import Settings
from ..stages import EmbeddingCreatorStage
from .fingerprint import digest, model_digests
from .readers import one_line

_PATIENCE_S = 60


class LoadModel(WorkerPlugin):
    """Loads the model when a worker starts; one that cannot, or has another model, leaves the cluster."""

    def __init__(self, settings: Settings, expected: dict[str, str]) -> None:
        self.settings, self.expected = settings, expected
        self.name = f"nemo-embed-{digest([repr(settings), expected])[:12]}"

    async def setup(self, worker: Worker) -> None:
        """Load in a thread, so that the worker keeps answering."""
        try:
            await asyncio.to_thread(self._load)
        except Exception as error:
            worker.log_event("nemo-embed-errors", one_line(error))
            worker.loop.call_later(1, worker.close, reason="nemo-embed-model")
            raise

    def _load(self) -> None:
        if model_digests(self.settings.model) != self.expected:
            raise ModelError("this worker holds other weights than the workers that the job began with")
        engine.load(self.settings)


def prepare_workers(client: Client, stage: EmbeddingCreatorStage) -> dict[str, str]:
    """Find the model on every worker, and see that it is the same; its digests.

    Raises
    ------
    JobError
        There is no worker, or some lack this package.
    ModelError
        Some workers lack the model, or hold another one.
    """
    try:
        client.wait_for_workers(1, timeout=_PATIENCE_S)
    except TimeoutError:
        raise JobError(f"no worker has joined the cluster in {_PATIENCE_S} s; start some") from None
    if stage.hf_token is not None:
        client.run(remember_token, stage.model_identifier, stage.hf_token)
    found = client.run(model_digests, stage.settings.model, on_error="return")
    for worker, error in found.items():
        if isinstance(error, ImportError):
            raise JobError(f"worker {worker} lacks a package: {error}; install nemo-embed-dask on it")
        if isinstance(error, BaseException):
            raise ModelError(f"worker {worker}: {error}")
    digests: dict[str, str] = next(iter(found.values()))
    other = [worker for worker, its in found.items() if its != digests]
    if other:
        raise ModelError(
            f"workers hold different weights of {stage.model_identifier!r} ({other[0]} differs from "
            f"{next(iter(found))}); pass revision, or share one cache"
        )
    return digests


def load_on_workers(client: Client, stage: EmbeddingCreatorStage, digests: dict[str, str]) -> Any:
    """Load the model on all workers, and on all that join later."""
    client.register_plugin(LoadModel(stage.settings, digests))
