"""What is seen while a job runs: documents, tokens a second, time left. Knows no cluster and no file.

One line rewritten in place on a terminal and in a notebook; elsewhere (a log) a line now and then.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from ..files.errors import PERMANENT_WRITE_ERRORS
from ..files.inputs import Unit
from .state import JobState
from .work import Outcome

_LOG = logging.getLogger("nemo_embed_dask")


class _Lines:
    """A stream that only grows: each state a line of its own."""

    every_s = 10.0
    width: int | None = None

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self._print(f"{line}\n")

    show = say

    def end(self) -> None:
        """Leave the last state there."""

    def _print(self, text: str) -> None:
        """Print, and drop the text if it cannot be written, as on a full disk: the job goes on."""
        try:
            print(text, end="", file=self.stream, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.errno not in PERMANENT_WRITE_ERRORS:
                raise


class _Terminal(_Lines):
    every_s = 0.25

    @property
    def width(self) -> int:  # type: ignore[override]
        """Columns that a line may have; the last stays free, for some terminals wrap there."""
        try:
            columns = os.get_terminal_size(self.stream.fileno()).columns
        except (OSError, ValueError, AttributeError):  # a stream without a terminal of its own
            columns = 0
        return (columns or shutil.get_terminal_size().columns) - 1

    def say(self, line: str) -> None:
        self.show(f"{line}\n")

    def show(self, line: str) -> None:
        self._print(f"\r\033[K{line}")

    def end(self) -> None:
        self._print("\n")


class _Notebook(_Lines):
    every_s = 0.5

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._handle: Any = None

    def show(self, line: str) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display({"text/plain": line}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update({"text/plain": line}, raw=True)

    def end(self) -> None:
        self._handle = None


def _screen(stream: TextIO) -> _Lines:
    if stream.isatty():
        return _Terminal(stream)
    return _Notebook(stream) if type(stream).__module__.startswith("ipykernel") else _Lines(stream)


class Progress:
    """Counts of a job under way, shown on ``stream`` (None to show nothing)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._screen = _screen(stream) if stream else None
        self._counts: dict[str, tuple[int, int]] = {}
        self._expected: dict[str, Unit] = {}
        self._started = self._shown = self._moved = time.monotonic()
        self._left_bytes = self._all_bytes = 0
        self._state = JobState()

    def info(self, line: str) -> None:
        """Show a line that stays."""
        if self._screen:
            self._screen.say(line)

    def warn(self, line: str) -> None:
        """Show a line that must be seen; without a screen it is logged as a warning."""
        self.info(line)
        if not self._screen:
            _LOG.warning(line)

    def begin(self, units: Sequence[Unit], state: JobState) -> None:
        """Start to show the work on ``units``, and the numbers of parts in ``state``."""
        self._expected = {unit.name: unit for unit in units}
        self._left_bytes = self._all_bytes = sum(unit.size for unit in units)
        self._started = self._moved = time.monotonic()
        self._state = state

    @contextmanager
    def warn_if_slow(self, doing: str, every_s: float) -> Iterator[None]:
        """Say what the block is doing, whenever nothing has moved for ``every_s`` seconds."""
        started, done = time.monotonic(), threading.Event()

        def remind() -> None:
            while not done.wait(every_s):
                still = time.monotonic() - max(started, self._moved)
                if still >= every_s:
                    self.warn(f"no progress for {format_duration(still)}: {doing}")

        thread = threading.Thread(target=remind, name="nemo-embed-reminder", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def tick(self, name: str, documents: int, tokens: int) -> None:
        """A unit has come so far."""
        self._counts[name] = documents, tokens
        self._moved = time.monotonic()
        self._show()

    def finished(self, outcome: Outcome) -> None:
        """A unit has come to its end."""
        self._moved = time.monotonic()
        unit = self._expected.pop(outcome.unit.name, None)
        self._left_bytes -= unit.size if unit else 0
        if outcome.record:
            stats = outcome.record.stats
            self._counts[outcome.unit.name] = stats.rows, stats.tokens
        else:
            self.info(outcome.reason)
        self._show()

    def end(self) -> None:
        """Show the last state."""
        self._show(force=True)
        if self._screen:
            self._screen.end()

    def _show(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if self._screen and (force or now - self._shown > self._screen.every_s):
            self._shown = now
            self._screen.show(self.line(now - self._started, self._screen.width))

    def line(self, elapsed: float, width: int | None = None) -> str:
        """The state ``elapsed`` seconds after the start, in one line of at most ``width`` columns."""
        counts = list(self._counts.values())
        documents, tokens = sum(n for n, _ in counts), sum(n for _, n in counts)
        share = self._share()
        left = format_duration(elapsed / share - elapsed) if share else "?"
        rate = tokens / elapsed if elapsed > 0 else 0.0
        done, end = f"{share:4.0%}", f"{len(self._state.whole)}/{self._state.parts} parts  {left} left"
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

    def _share(self) -> float:
        """Share of the input's bytes done; parts of a unit count by its rows, where they are known."""
        part = 0.0
        for name in list(self._counts.keys() & self._expected.keys()):
            unit = self._expected[name]
            part += unit.size * min(1.0, self._counts[name][0] / unit.rows) if unit.rows else 0.0
        return (
            min(1.0, (self._all_bytes - self._left_bytes + part) / self._all_bytes) if self._all_bytes else 1.0
        )


def format_duration(seconds: float) -> str:
    """Seconds as ``1:02:03`` or ``2:03``."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def format_count(number: float) -> str:
    """Return a number with at most one decimal and a letter for its size, as ``12.3M``."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}"


def default_stream() -> TextIO:
    """Where progress goes."""
    return sys.stderr
