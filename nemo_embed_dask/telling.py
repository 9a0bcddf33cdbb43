"""What a command says when it cannot go on: one line, and an exit code. Knows no command.

Exit codes: 0 all is done; 1 done, but for files that could not be embedded; 2 the command cannot be run as
it is; 3 it had to stop midway (run it again); 128 + n it was stopped by signal n (run it again).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from .errors import EmbedError
from .jobs.progress import Progress


@contextmanager
def told_in_one_line(progress: Progress | None = None) -> Iterator[None]:
    """Errors that are meant for the user as one line; a signal as what to do next."""

    def stop(number: int, _: Any) -> NoReturn:
        raise _Stopped(number)

    done = progress or Progress()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except EmbedError as error:
        click.echo(f"nemo-embed: {' '.join(str(error).split())}", err=True)
        sys.exit(3 if done.parts else 2)
    except (OSError, CancelledError) as error:  # of a file system or a cluster that went away
        said = " ".join(str(error).split()) or type(error).__name__
        click.echo(f"nemo-embed: {said}; mend it and run the same command again", err=True)
        sys.exit(3)
    except _Stopped as stopped:
        click.echo(
            f"nemo-embed: stopped by {stopped}; {done.whole} of {done.parts} parts are whole: run the "
            "same command again to do the rest", err=True,
        )  # fmt: skip
        sys.exit(128 + stopped.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Stopped(BaseException):
    """A signal; no Exception, so that nothing on the way takes it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
