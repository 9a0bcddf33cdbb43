"""What a worker is told of a job, and does before its first unit: load the job's model, or leave.

Secrets: the options of file systems reach workers so, and by no task. For workers that join later the scheduler
keeps the plugin, as bytes that it does not read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from distributed import Reschedule
from distributed.protocol import pickle

from ...clusters.local import Preload
from ...errors import ModelError
from ...stages.tasks import EmbedTask
from ...version import __version__
from ..units.fingerprint import model_digests
from ..units.work import Job
from .shared_files import Shared, check_seen
from .versions import check_version

# Seconds before a worker that is about to leave hands a unit back, which may come to it again.
_HAND_ON_S = 0.1
# What two workers may differ in, and what to do about it; "" is for the model's own files.
_ADVICE = {
    "computes_in": "their vectors would differ in the third digit: pass --no-autocast (autocast=False), or use "
                   "workers of one kind",
    "adapter": "the adapter's files must be the same on every machine: share its folder",
    "": "pass revision, or share one cache",
}  # fmt: skip


def load_same(task: EmbedTask, expected: dict[str, str], shared: Sequence[Shared] = ()) -> None:
    """Load the model into this process, if it is the one that the job began with, and see the client's files.

    Raises
    ------
    ClusterError
        This worker does not see the target or the inputs.
    ModelError
        It cannot be found, or is another one.
    ConfigError
        It has not what its settings ask for.
    """
    check_seen(shared)
    found = model_digests(task.settings)
    if found != expected:
        raise ModelError(f"this worker differs from those that the job began with: {unlike(expected, found)}")
    task.embed([])


def unlike(one: dict[str, str], other: dict[str, str]) -> str:
    """Say in what two workers' digests differ, and what to do about it."""
    name = next(name for name in {**one, **other} if one.get(name) != other.get(name))
    values = (str(its.get(name))[:12] for its in (other, one))
    return f"{name} is {' and not '.join(values)}; {_ADVICE.get(name, _ADVICE[''])}"


class Sealed:
    """A job and what loads its model, as bytes, which no log shows and any version of this package receives.

    Parameters
    ----------
    job : Job
    load : callable
        Loads the model; it may hold the options of file systems, as the job does.
    """

    def __init__(self, job: Job, load: Callable[[], object]) -> None:
        self._version, self._job, self._load = __version__, pickle.dumps(job), pickle.dumps(load)

    def load(self) -> None:
        """Load the model into this process.

        Raises
        ------
        ClusterError
            It has another version of this package; else as `load_same`.
        """
        check_version(self._version)
        pickle.loads(self._load)()

    def job(self) -> Job:
        """The job, anew for each unit: file systems that it opens are for one thread."""
        return cast("Job", pickle.loads(self._job))


class JobPreload(Preload):
    """Loads the model before a worker's first unit, not as the worker starts, and has the job.

    A job that is killed leaves its plugin behind. New workers must not load the model for it, nor leave because
    they cannot; as it gives them no unit, they do not.
    """

    _lock, _loaded = threading.Lock(), False

    def __init__(self, sealed: Sealed, name: str) -> None:
        super().__init__(sealed.load, name)
        self._sealed = sealed

    async def setup(self, worker: Any) -> None:
        """Distributed's hook: loads nothing yet."""

    def before_unit(self, worker: Any) -> Job:
        """Load the model if this worker has not, on a task's thread; one that cannot leaves the cluster.

        Returns
        -------
        Job
            What the unit is of.

        Raises
        ------
        distributed.Reschedule
            It is about to leave: another worker has to do the unit.
        """
        with self._lock:
            if not (self._loaded or self.trouble):
                try:
                    self.load()
                    self._loaded = True
                except Exception as error:  # noqa: BLE001 - whatever it is, this worker cannot do the job
                    self.leave(worker, error)
        if self.trouble:
            time.sleep(_HAND_ON_S)
            raise Reschedule
        return self._sealed.job()
