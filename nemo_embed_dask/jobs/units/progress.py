"""The progress display of a job: documents, tokens per second, time left.

It shows what it is given; no result of a job depends on it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from typing import TextIO

from ..files.inputs import Unit
from ..files.masking import make_printable
from .progress_outputs import output_for
from .state import JobState
from .work import Outcome

_LOG = logging.getLogger("nemo_embed_dask")


class Progress:
    """Shows how far a job has come.

    Parameters
    ----------
    stream : TextIO, optional
        Where to print; nothing is printed if None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._output = output_for(stream) if stream else None
        self._state = JobState()
        # Documents and tokens of each unit so far.
        self._counts: dict[str, tuple[int, int]] = {}
        self._unfinished: dict[str, Unit] = {}
        self._finished_bytes = self._all_bytes = 0
        self._started = self._shown = self._last_progress = time.monotonic()

    def info(self, line: str) -> None:
        """Print a line that stays; control characters, as of file names, are escaped."""
        if self._output:
            self._output.print_line(make_printable(line))

    def warn(self, line: str) -> None:
        """Print a line that must be seen; log it as a warning if there is no stream."""
        self.info(line)
        if not self._output:
            _LOG.warning(line)

    def begin(self, units: Sequence[Unit], state: JobState) -> None:
        """Start to show the work on ``units``, with the numbers of parts in ``state``."""
        self._state = state
        self._unfinished = {unit.name: unit for unit in units}
        self._finished_bytes, self._all_bytes = 0, sum(unit.size for unit in units)
        self._started = self._last_progress = time.monotonic()
        if self._output:
            self._output.begin(self.line(0, self._output.width))

    @contextmanager
    def warn_if_slow(self, activity: str, every_s: float, first_s: float | None = None) -> Iterator[None]:
        """Warn every ``every_s`` seconds without progress while the block runs, and name its activity.

        The first warning comes after ``first_s`` seconds, if that is given.
        """
        started, done = time.monotonic(), threading.Event()
        pauses = chain([every_s if first_s is None else first_s], repeat(every_s))

        def remind() -> None:
            for pause_s in pauses:
                if done.wait(pause_s):
                    return
                waited = time.monotonic() - max(started, self._last_progress)
                if waited >= pause_s:
                    self.warn(f"no progress for {format_duration(waited)}: {activity}")

        thread = threading.Thread(target=remind, name="nemo-embed-reminder", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def tick(self, name: str, documents: int, tokens: int) -> None:
        """Update the counts of a unit under way."""
        self._counts[name] = documents, tokens
        self._last_progress = time.monotonic()
        self._show()

    def finished(self, outcome: Outcome) -> None:
        """Show that a unit is done or has failed."""
        self._last_progress = time.monotonic()
        unit = self._unfinished.pop(outcome.unit.name, None)
        if unit:
            self._finished_bytes += unit.size
        if outcome.record:
            stats = outcome.record.stats
            self._counts[outcome.unit.name] = stats.rows, stats.tokens
        else:
            self.info(outcome.reason)
        self._show()

    def end(self) -> None:
        """Show the last state."""
        self._show(force=True)
        if self._output:
            self._output.end()

    def _show(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if self._output and (force or now - self._shown > self._output.interval_s):
            self._shown = now
            self._output.show_state(self.line(now - self._started, self._output.width))

    def line(self, elapsed: float, width: int | None = None) -> str:
        """Return the state ``elapsed`` seconds after the start, in one line of at most ``width`` columns."""
        counts = list(self._counts.values())  # a copy: other threads call `tick`
        documents = sum(documents for documents, _ in counts)
        tokens = sum(tokens for _, tokens in counts)
        rate = tokens / elapsed if elapsed > 0 else 0.0
        fraction = self._fraction_done()
        left = format_duration(elapsed / fraction - elapsed) if fraction else "?"
        done, end = f"{fraction:4.0%}", f"{len(self._state.whole)}/{self._state.parts} parts  {left} left"
        short_documents, short_tokens = format_count(documents), format_count(tokens)
        short_rate = f"{format_count(rate)} tokens/s"
        forms = (
            f"{done}  {documents:,} documents  {tokens:,} tokens  {rate:,.0f} tokens/s  {end}",
            f"{done}  {short_documents} documents  {short_tokens} tokens  {short_rate}  {end}",
            f"{done}  {short_documents} documents  {short_rate}  {end}",
            f"{done}  {short_rate}  {end}",
            f"{done}  {end}",
            f"{done}  {left} left",
        )
        return next((form for form in forms if width is None or len(form) <= width), done[:width])

    def _fraction_done(self) -> float:
        """Return the fraction of the input's bytes that is done; units under way count by their rows."""
        if not self._all_bytes:
            return 1.0
        done = float(self._finished_bytes)
        for name in list(self._counts.keys() & self._unfinished.keys()):
            unit = self._unfinished.get(name)  # another thread may have finished it
            if unit and unit.rows:
                done += unit.size * min(1.0, self._counts[name][0] / unit.rows)
        return min(1.0, done / self._all_bytes)


def format_duration(seconds: float) -> str:
    """Return seconds as ``1:02:03`` or ``2:03``."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def format_count(number: float) -> str:
    """Return a number with at most one decimal and a letter for its size, as ``12.3M``."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}"
