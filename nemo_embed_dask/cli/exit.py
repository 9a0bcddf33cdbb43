"""How a command ends: an error is one line, and there is an exit code for each kind of end. Knows no command.

Exit codes: 0 all is done; 1 done, but for files that could not be embedded; 2 the command cannot be run as
it is; 3 it had to stop midway, or its output cannot be written (run it again); 128 + n it was stopped by
signal n (run it again), 141 also where nobody reads its output any more. The flag --traceback shows the whole
traceback of an error as well, and what libraries log.
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
_UNREAD = 141  # as of SIGPIPE
_MIDWAY = 3


class OutputError(EmbedError):
    """Standard output cannot be written."""


def show(text: str) -> None:
    """Print a result of a command.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    try:
        click.echo(text)
    except BrokenPipeError:  # nobody reads it
        raise
    except OSError as error:
        raise OutputError(
            f"standard output cannot be written ({describe_error(error)}); write it elsewhere "
            "and run the command again"
        ) from error


@dataclass
class Ending:
    """What the end of a command depends on: how far its job has come, and whether to show tracebacks."""

    state: JobState = field(default_factory=JobState)
    traceback: bool = False


@contextmanager
def told_in_one_line(ending: Ending) -> Iterator[None]:
    """Tell errors and signals in one line, and exit with the code of what happened."""

    def stop(number: int, _: Any) -> NoReturn:
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in stopping_signals()}
    _print_whatever_text()
    try:
        with _own_warnings_only(ending):
            yield
        _flush()
    except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):
        raise
    except BaseException as error:  # noqa: BLE001 - libraries raise all kinds, SystemExit too
        _end(error, ending)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: it was not set by Python


@contextmanager
def _own_warnings_only(ending: Ending) -> Iterator[None]:
    """Keep what libraries log of an error off the terminal; the error itself is told in one line."""
    libraries, own = _LibraryWarnings(ending), logging.lastResort or logging.NullHandler()
    logging.root.addHandler(libraries)
    _LOG.addHandler(own)
    try:
        yield
    finally:
        logging.root.removeHandler(libraries)
        _LOG.removeHandler(own)


class _LibraryWarnings(logging.Handler):
    """Shows what libraries log only where tracebacks are shown; Python shows it where there is no handler."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(logging.WARNING)
        self._ending = ending

    def emit(self, record: logging.LogRecord) -> None:
        if self._ending.traceback and logging.lastResort and not record.name.startswith(_LOG.name):
            logging.lastResort.emit(record)


def _end(error: BaseException, ending: Ending) -> NoReturn:
    """Tell the error, and exit with its code."""
    if isinstance(error, BrokenPipeError) and _unread(sys.stdout, sys.stderr):
        _drop_output()
        sys.exit(_UNREAD)
    if isinstance(error, KeyboardInterrupt):  # of a library that took the signal for itself
        error = _Stopped(signal.SIGINT)
    with suppress(OSError, ValueError):  # standard error may be closed
        if ending.traceback:
            click.echo(mask_secrets("".join(traceback.format_exception(error))).rstrip(), err=True)
        click.echo(f"nemo-embed: {_line(error, ending)}", err=True)
    with suppress(OSError, ValueError):
        _flush()
    if isinstance(error, _Stopped):
        sys.exit(128 + error.number)
    sys.exit(_MIDWAY if ending.state.started or isinstance(error, OutputError) else 2)


def _line(error: BaseException, ending: Ending) -> str:
    if isinstance(error, _Stopped):
        return f"stopped by {error}; {ending.state.summary}: run the same command again to do the rest"
    if isinstance(error, EmbedError):
        return make_printable(mask_secrets(" ".join(str(error).split())))
    if isinstance(error, click.UsageError) and error.ctx:
        what = " ".join(error.format_message().split()).rstrip(".")
        return make_printable(f"{what} ({error.ctx.command_path} --help lists the flags)")
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename is not None else ""
    advice = (
        "what is done stays done: mend the cause and run the same command again"
        if ending.state.started
        else "mend the cause"
    )
    return make_printable(
        mask_secrets(f"{where}{describe_error(error)}; {advice} (--traceback shows where it arose)")
    )


def _print_whatever_text() -> None:
    """Let names and texts that the terminal's encoding lacks be printed as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _unread(*streams: Any) -> bool:
    """Whether one of the streams is a pipe that nobody reads any more."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    for stream in streams:
        with suppress(AttributeError, OSError, ValueError):  # closed, or no file
            poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop_output() -> None:
    """Keep Python from failing once more when it flushes at exit."""
    with open(os.devnull, "w") as nothing:  # noqa: PTH123 - a device, no path
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and _unread(stream):
                os.dup2(nothing.fileno(), stream.fileno())


class _Stopped(BaseException):
    """A signal; no Exception, so that nothing on the way takes it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
