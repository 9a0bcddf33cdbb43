"""Which units are tried again, and when a job gives up on its stores. Knows no cluster and no file."""

from __future__ import annotations

from ...errors import JobError
from .progress import Progress
from .work import Outcome

# Seconds before the second attempt of a unit; they double with each attempt.
_FIRST_S, _LONGEST_S = 0.25, 30.0
# So many failures in a row are shown; the others are like them.
_SHOWN = 10
# A job does not give up before so many units' worth of attempts have failed.
_LEAST_UNITS = 3


class Retries:
    """Counts attempts that failed with an error that may pass.

    Parameters
    ----------
    retries : int
        How often a unit is tried again.
    progress : Progress
        Where each failure is shown.
    """

    def __init__(self, retries: int, progress: Progress) -> None:
        self._retries, self._progress, self._in_a_row = retries, progress, 0

    def delay(self, outcome: Outcome, tried: int, in_flight: int = 1) -> float | None:
        """Return the seconds to wait before the unit's next attempt; None if there is to be none.

        Parameters
        ----------
        outcome : Outcome
            Of the last attempt.
        tried : int
            How often the unit was tried before it.
        in_flight : int
            How many units are tried at once.

        Raises
        ------
        JobError
            Nothing has succeeded for so many attempts that the inputs or the target must be out of reach.
        """
        if outcome.verdict == "done":
            self._in_a_row = 0
        if outcome.verdict != "retry":
            return None
        self._in_a_row += 1
        if self._in_a_row >= (self._retries + 1) * max(_LEAST_UNITS, in_flight):
            raise JobError(
                f"the last {self._in_a_row} attempts have all failed, as if a store were out of reach, "
                f"the last one with: {outcome.reason}; when that is mended, run the same command again",
                temporary=True,
            )
        if tried >= self._retries:
            return None
        if self._in_a_row <= _SHOWN:
            self._progress.warn(f"{outcome.reason}; will be tried again")
        return float(min(_LONGEST_S, _FIRST_S * 2**tried))
