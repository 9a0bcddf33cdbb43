"""Which units are tried again, and when a job gives up because its storage does not answer."""

from __future__ import annotations

from ...errors import JobError
from .progress import Progress
from .work import Outcome

# Seconds before the second attempt of a unit; they double with each attempt.
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.25, 30.0
# Number of consecutive failures that are shown; the following ones are like them.
_MAX_WARNINGS = 10
# A job does not give up before this many units have failed in all their attempts.
_MIN_FAILED_UNITS = 3


class Retries:
    """Counts consecutive attempts that failed with a temporary error.

    Parameters
    ----------
    retries : int
        How often a unit is tried again.
    progress : Progress
        Shows each failure.
    """

    def __init__(self, retries: int, progress: Progress) -> None:
        self._retries, self._progress = retries, progress
        self._failures_in_a_row = 0

    def delay(self, outcome: Outcome, earlier_attempts: int, in_flight: int = 1) -> float | None:
        """Return the seconds to wait before the unit's next attempt; None if there is no next attempt.

        Parameters
        ----------
        outcome : Outcome
            Outcome of the last attempt.
        earlier_attempts : int
            Number of attempts of the unit before the last one.
        in_flight : int
            Number of units that are tried at the same time.

        Raises
        ------
        JobError
            So many attempts have failed in a row that the inputs or the target must be unreachable.
        """
        if outcome.verdict == "done":
            self._failures_in_a_row = 0
        if outcome.verdict != "retry":
            return None
        self._failures_in_a_row += 1
        self._check_storage(outcome, in_flight)
        if earlier_attempts >= self._retries:
            return None
        if self._failures_in_a_row <= _MAX_WARNINGS:
            self._progress.warn(f"{outcome.reason}; will be tried again")
        return float(min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2**earlier_attempts))

    def _check_storage(self, outcome: Outcome, in_flight: int) -> None:
        most = (self._retries + 1) * max(_MIN_FAILED_UNITS, in_flight)
        if self._failures_in_a_row >= most:
            raise JobError(
                f"the last {self._failures_in_a_row} attempts have all failed, probably because the storage of "
                f"the inputs or of the target cannot be reached; the last error was: {outcome.reason}; fix the "
                "cause, then run the same command again",
                temporary=True,
            )
