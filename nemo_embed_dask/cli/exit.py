"""How a command ends: report an error in one line, and set the exit code.

Exit codes: 0 everything is done; 1 done, except for inputs that could not be embedded (``errors``: there are
such inputs; ``verify``: the vectors differ); 2 the command cannot run
with these arguments or inputs; 3 it stopped before the end, or its output cannot be written (run it again);
128 + n it was stopped by signal n (run it again); 141 the program that reads its output has ended. With the
flag --traceback, the traceback of an error and the logs of libraries are shown too.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import TextIOWrapper
from typing import Any, NoReturn

import click

from ..errors import EmbedError
from ..jobs.files.errors import describe_error
from ..jobs.files.masking import make_printable, mask_secrets
from ..jobs.units.state import JobState
from .signals import stopping_signals

_LOG = logging.getLogger("nemo_embed_dask")
# The exit code that a shell reports for SIGPIPE.
_NO_READER = 141
_INCOMPLETE = 3


class OutputError(EmbedError):
    """Standard output cannot be written."""


def show(text: str) -> None:
    """Print a result of a command.

    Raises
    ------
    OutputError
        Standard output cannot be written.
    """
    try:
        click.echo(text)
    except BrokenPipeError:  # the reader of the pipe has ended
        raise
    except OSError as error:
        raise OutputError(
            f"standard output cannot be written ({describe_error(error)}); redirect it to another "
            "place and run the command again"
        ) from error


@dataclass
class Ending:
    """What the end of a command depends on: the state of its job, and whether to show tracebacks."""

    state: JobState = field(default_factory=JobState)
    traceback: bool = False


@contextmanager
def report_errors(ending: Ending) -> Iterator[None]:
    """Report errors and signals in one line, and exit with the code for them."""

    def stop(number: int, _: Any) -> NoReturn:
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in stopping_signals()}
    _escape_unprintable_text()
    try:
        with _hide_library_logs(ending):
            yield
        _flush()
    except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):
        raise
    except BaseException as error:  # noqa: BLE001 - libraries raise all kinds, SystemExit too
        _exit_with(error, ending)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: the handler was not set by Python


@contextmanager
def _hide_library_logs(ending: Ending) -> Iterator[None]:
    """Hide what libraries log about an error, which is reported in one line; show logs of this package."""
    libraries, own = _LibraryWarnings(ending), logging.lastResort or logging.NullHandler()
    logging.root.addHandler(libraries)
    _LOG.addHandler(own)
    try:
        yield
    finally:
        logging.root.removeHandler(libraries)
        _LOG.removeHandler(own)


class _LibraryWarnings(logging.Handler):
    """Shows warnings of libraries only if tracebacks are shown; without a handler Python shows them always."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(logging.WARNING)
        self._ending = ending

    def emit(self, record: logging.LogRecord) -> None:
        if self._ending.traceback and logging.lastResort and not record.name.startswith(_LOG.name):
            logging.lastResort.emit(record)


def _exit_with(error: BaseException, ending: Ending) -> NoReturn:
    """Report the error, and exit with the code for it."""
    if isinstance(error, BrokenPipeError) and _has_no_reader(sys.stdout, sys.stderr):
        _discard_output()
        sys.exit(_NO_READER)
    if isinstance(error, KeyboardInterrupt):  # from a library that set its own signal handler
        error = _Stopped(signal.SIGINT)
    with suppress(OSError, ValueError):  # standard error may be closed
        if ending.traceback:
            click.echo(mask_secrets("".join(traceback.format_exception(error))).rstrip(), err=True)
        click.echo(f"nemo-embed: {_error_line(error, ending)}", err=True)
    with suppress(OSError, ValueError):
        _flush()
    if isinstance(error, _Stopped):
        sys.exit(128 + error.number)
    sys.exit(_INCOMPLETE if ending.state.started or isinstance(error, OutputError) else 2)


def _error_line(error: BaseException, ending: Ending) -> str:
    """Return the line that reports an error."""
    if isinstance(error, _Stopped) and not ending.state.parts:  # no job, or not planned yet
        return f"stopped by {error}"
    if isinstance(error, _Stopped):
        return f"stopped by {error}; {ending.state.summary}: run the same command again to continue"
    if isinstance(error, EmbedError):
        return make_printable(mask_secrets(" ".join(str(error).split())))
    if isinstance(error, click.NoSuchOption) and error.possibilities:
        del error.possibilities[1:]  # keep the nearest
    if isinstance(error, click.UsageError) and error.ctx:
        problem = " ".join(error.format_message().split()).rstrip(".")
        return make_printable(f"{problem} ({error.ctx.command_path} --help lists the flags)")
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename is not None else ""
    advice = (
        "parts that are written stay: correct the cause and run the same command again"
        if ending.state.started
        else "correct the cause"
    )
    return make_printable(
        mask_secrets(f"{where}{describe_error(error)}; {advice} (--traceback shows where it happened)")
    )


def _escape_unprintable_text() -> None:
    """Print characters that the terminal's encoding lacks as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _has_no_reader(*streams: Any) -> bool:
    """Return whether one of the streams is a pipe whose reader has ended."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    for stream in streams:
        with suppress(AttributeError, OSError, ValueError):  # closed, or not a file
            poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _discard_output() -> None:
    """Send further output nowhere, so that Python does not fail again when it flushes at exit."""
    with open(os.devnull, "w") as null:  # noqa: PTH123 - a device, not a path
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and _has_no_reader(stream):
                os.dup2(null.fileno(), stream.fileno())


class _Stopped(BaseException):
    """A signal; not an Exception, so that no code handles it as an error."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
