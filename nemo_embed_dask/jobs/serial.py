"""Units done in this process, one after the other. Knows no Dask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .inputs import Unit
from .work import Job, Outcome, Tick, attempt, final


def here(units: Sequence[Unit], job: Job, retries: int, tick: Tick) -> Iterator[Outcome]:
    """Do the units in this process."""
    for unit in units:
        for left in reversed(range(retries + 1)):
            outcome = attempt(unit, job, tick)
            if outcome.verdict != "retry" or not left:
                break
        yield final(outcome)
