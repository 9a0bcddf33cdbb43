"""Where progress is shown: a terminal, a notebook or a log.

On a terminal and in a notebook one line is rewritten in place. Elsewhere, as in a log file, a new line is
printed every few seconds.
"""

from __future__ import annotations

import os
import shutil
from contextvars import copy_context
from typing import Any, TextIO

from ..files.errors import PERMANENT_WRITE_ERRORS


class PlainOutput:
    """A file or a pipe: every state is printed on a new line."""

    interval_s = 10.0
    width: int | None = None

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def print_line(self, line: str) -> None:
        """Print a line that stays."""
        self._print(f"{line}\n")

    def begin(self, line: str) -> None:
        """Make room for the state, and show it if it can be rewritten."""

    def show_state(self, line: str) -> None:
        """Show the current state of the job."""
        self.print_line(line)

    def end(self) -> None:
        """Keep the last state visible."""

    def _print(self, text: str) -> None:
        """Print, or drop the text if it cannot be written, as on a full disk: the job goes on."""
        try:
            print(text, end="", file=self.stream, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.errno not in PERMANENT_WRITE_ERRORS:
                raise


class TerminalOutput(PlainOutput):
    """A terminal: the state is rewritten in place."""

    interval_s = 0.25

    @property
    def width(self) -> int:  # type: ignore[override]
        """Largest length of a line; the last column stays free, because some terminals wrap there."""
        try:
            columns = os.get_terminal_size(self.stream.fileno()).columns
        except (OSError, ValueError, AttributeError):  # the stream is not connected to a terminal
            columns = 0
        return (columns or shutil.get_terminal_size().columns) - 1

    def print_line(self, line: str) -> None:
        self.show_state(f"{line}\n")

    def show_state(self, line: str) -> None:
        self._print(f"\r\033[K{line}")

    def end(self) -> None:
        self._print("\n")


class NotebookOutput(PlainOutput):
    """A notebook cell: the state is one display that is updated."""

    interval_s = 0.5

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._handle: Any = None
        # ipykernel keeps the running cell in a context variable. Dask's threads have that of an earlier cell.
        self._cell = copy_context()

    def print_line(self, line: str) -> None:
        self._cell.copy().run(super().print_line, line)

    def begin(self, line: str) -> None:
        from IPython.display import display

        self._handle = self._cell.copy().run(display, {"text/plain": line}, raw=True, display_id=True)

    def show_state(self, line: str) -> None:
        if handle := self._handle:  # another thread may end the display
            self._cell.copy().run(handle.update, {"text/plain": line}, raw=True)

    def end(self) -> None:
        self._handle = None


def output_for(stream: TextIO) -> PlainOutput:
    """Return the output that fits a stream."""
    if stream.isatty():
        return TerminalOutput(stream)
    if type(stream).__module__.startswith("ipykernel"):
        return NotebookOutput(stream)
    return PlainOutput(stream)
