"""Run the units of a job in this process, one after the other."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence

from .files.inputs import Unit
from .units.progress import Progress
from .units.retries import Retries
from .units.work import Job, Outcome, attempt, without_retry

# Seconds without progress before a warning names the current file.
_SLOW_S = 60.0


def embed_in_process(units: Sequence[Unit], job: Job, retries: int, progress: Progress) -> Iterator[Outcome]:
    """Embed the units in this process.

    Raises
    ------
    JobError
        Several units in a row failed with temporary errors: their storage cannot be reached.
    """
    counter = Retries(retries, progress)
    for unit in units:
        yield without_retry(_attempt_until_final(unit, job, counter, progress))


def _attempt_until_final(unit: Unit, job: Job, retries: Retries, progress: Progress) -> Outcome:
    """Try a unit until it is done, has failed for good, or has no retries left."""
    for earlier_attempts in itertools.count():
        with progress.warn_if_slow(f"at work on {unit.file.address}", _SLOW_S):
            outcome = attempt(unit, job, progress.tick)
        delay = retries.delay(outcome, earlier_attempts)
        if delay is None:
            break
        time.sleep(delay)
    return outcome
