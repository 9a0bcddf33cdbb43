"""The plugin that gives a worker its job, and loads the model before the worker's first unit.

Secrets: options of file systems reach workers in the plugin, never in a task. The scheduler keeps the plugin
for workers that join later, as bytes that it does not read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from distributed import Reschedule
from distributed.protocol import pickle

from ...clusters.local import Preload
from ...engine.digests import model_digests
from ...errors import ModelError
from ...stages.tasks import EmbedTask
from ...version import __version__
from ..units.work import Job
from .shared_files import ClientFile, check_files
from .versions import check_version

# Seconds that a leaving worker waits before it gives a unit back: Dask may send it the same unit at once.
_GIVE_BACK_S = 0.1
# Advice for each digest in which two workers can differ; "" is for the model's own files.
_ADVICE = {
    "computes_in": (
        "their vectors would differ in the third digit: pass --no-autocast (autocast=False), or use workers of "
        "one kind"
    ),
    "adapter": "the adapter's files must be the same on every machine: share its folder, or pass its commit "
    "as org/name@commit",
    "base": "the adapter's base model must be the same on every machine: share one cache",
    "": "pass revision, or share one cache",
}


def load_same_model(task: EmbedTask, expected: dict[str, str], files: Sequence[ClientFile] = ()) -> None:
    """Load the model into this process if it is the job's model and the client's files are visible.

    Raises
    ------
    ClusterError
        This worker does not see the target or the inputs.
    ModelError
        The model cannot be found, or is another one.
    ConfigError
        The model does not have what the settings need.
    """
    check_files(files)
    found = model_digests(task.settings)
    if found != expected:
        raise ModelError(
            f"this worker differs from the job's first workers: {describe_difference(expected, found)}"
        )
    task.embed([])


def describe_difference(one: dict[str, str], other: dict[str, str]) -> str:
    """Return in which digest two workers differ, and what to do about it."""
    name = next(name for name in {**one, **other} if one.get(name) != other.get(name))
    found, expected = str(other.get(name))[:12], str(one.get(name))[:12]
    return f"{name} is {found} and not {expected}; {_ADVICE.get(name, _ADVICE[''])}"


class SerializedJob:
    """A job and the function that loads its model, as bytes: no log shows them, any version receives them.

    Parameters
    ----------
    job : Job
    load : callable
        Loads the model; like the job, it may hold options of file systems.
    """

    def __init__(self, job: Job, load: Callable[[], object]) -> None:
        self._version, self._job, self._load = __version__, pickle.dumps(job), pickle.dumps(load)

    def load(self) -> None:
        """Load the model into this process.

        Raises
        ------
        ClusterError
            This process has another version of this package; otherwise as in `load_same_model`.
        """
        check_version(self._version)
        pickle.loads(self._load)()

    def job(self) -> Job:
        """Return a new copy of the job, for one unit: a file system that it opens must stay in one thread."""
        return cast("Job", pickle.loads(self._job))


class JobPreload(Preload):
    """Loads the model before a worker's first unit, not when the worker starts, and holds the job.

    A job that is killed leaves its plugin behind. New workers must not load the model for it, nor leave if they
    cannot load it. They do neither, because that job sends them no unit.
    """

    _lock, _loaded = threading.Lock(), False

    def __init__(self, serialized: SerializedJob, name: str) -> None:
        super().__init__(serialized.load, name)
        self._serialized = serialized

    async def setup(self, worker: Any) -> None:
        """Load nothing yet; Dask calls this when the worker starts."""

    def before_unit(self, worker: Any) -> Job:
        """Load the model in the task's thread, if it is not loaded; if that fails, the worker leaves.

        Returns
        -------
        Job
            The unit's job.

        Raises
        ------
        distributed.Reschedule
            The worker is leaving: another worker has to embed the unit.
        """
        with self._lock:
            if not (self._loaded or self.error):
                try:
                    self.load()
                    self._loaded = True
                except Exception as error:  # noqa: BLE001 - after any error this worker cannot do the job
                    self.leave(worker, error)
        if self.error:
            time.sleep(_GIVE_BACK_S)
            raise Reschedule
        return self._serialized.job()
