"""How far a job has come, independent of what the progress display shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..files.masking import make_printable
from .records import Record


@dataclass
class JobState:
    """How far a job has come.

    Only the running job writes to it. The progress display, the report and the command line read it, also
    after the job has stopped with an error.

    Attributes
    ----------
    parts : int
        Number of parts of the job, 0 until the job is planned.
    started : bool
        Whether the first unit has started.
    whole : dict
        The parts that are in the target and undamaged: name -> record.
    written : dict
        The parts that this run wrote: name -> record.
    failed : dict
        The units that have no part: name of the part -> reason.
    seconds : float
        Time spent on units, without loading the model.
    """

    parts: int = 0
    started: bool = False
    whole: dict[str, Record] = field(default_factory=dict)
    written: dict[str, Record] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        """How many parts are whole, for error messages."""
        return f"{len(self.whole)} of {self.parts} parts are whole"


def describe_failed(failed: dict[str, str]) -> str:
    """Return how many files failed, and the reason of the first. ``failed``: address -> reason."""
    name, reason = next(iter(failed.items()))
    first = make_printable(reason if name in reason else f"{name}: {reason}")
    if len(failed) == 1:
        return f"1 file failed: {first}"
    return f"{len(failed):,} files failed, listed by nemo-embed errors; the first: {first}"


def count(number: int, one: str, many: str) -> str:
    """Return a number with its noun, such as "1 file" and "1,200 files"."""
    return f"{number:,} {one if number == 1 else many}"
