"""Units done in this process, one after the other. Knows no Dask."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence

from .files.inputs import Unit
from .units.progress import Progress
from .units.retries import Retries
from .units.work import Job, Outcome, attempt, without_retry

# Seconds without progress until it is said what is being done.
_TELL_S = 60.0


def embed_in_process(units: Sequence[Unit], job: Job, retries: int, progress: Progress) -> Iterator[Outcome]:
    """Do the units in this process.

    Raises
    ------
    JobError
        Several units in a row failed with errors that may pass: their store is out of reach.
    """
    tries = Retries(retries, progress)
    for unit in units:
        yield without_retry(_tried(unit, job, tries, progress))


def _tried(unit: Unit, job: Job, tries: Retries, progress: Progress) -> Outcome:
    for tried in itertools.count():
        with progress.warn_if_slow(f"at work on {unit.file.address}", _TELL_S):
            outcome = attempt(unit, job, progress.tick)
        delay = tries.delay(outcome, tried)
        if delay is None:
            break
        time.sleep(delay)
    return outcome
