"""``nemo-embed``: the command line. Turns flags into calls, errors into one line and an exit code.

Exit codes: 0 all is done; 1 done, but for files that could not be embedded; 2 the command cannot be run as
it is; 3 it had to stop midway (run it again); 128 + n it was stopped by signal n (run it again).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .errors import EmbedError
from .flags import stage_flags, stage_from
from .jobs.progress import Progress, default_stream
from .looking import plan_command, verify_command

if TYPE_CHECKING:
    from distributed import Client

    from .jobs.report import Report

Command = Callable[..., Any]


class DefaultGroup(click.Group):
    """A group whose command ``run`` needs not be named: ``nemo-embed IN OUT``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``run`` in front, unless a command or a flag of the group is there."""
        own = {"--help", "--version", *self.commands}
        if args and args[0] not in own:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=DefaultGroup)
@click.version_option(package_name="nemo-embed-dask")
def main() -> None:
    """Turn a text column into an embeddings column: nemo-embed INPUT... OUTPUT."""


main.add_command(verify_command)
main.add_command(plan_command)


def cluster_flags(command: Command) -> Command:
    """Add the flags that say where a job runs."""
    for option in reversed((
        click.option("--scheduler", metavar="ADDRESS", help="A running Dask cluster: tcp://host:8786."),
        click.option("--scheduler-file", type=click.Path(), help="The file that its scheduler wrote."),
        click.option("--workers", type=click.IntRange(1), help="Of a local cluster: processes."),
        click.option("--threads", type=click.IntRange(1), help="Of a local cluster: threads a process."),
        click.option("--memory-limit", default="auto", show_default=True, help="Of a local worker."),
    )):  # fmt: skip
        command = option(command)
    return command


@main.command()
@click.argument("inputs", nargs=-1, required=True)
@click.argument("output")
@stage_flags
@cluster_flags
@click.option("--columns", multiple=True, help="A column to carry over; may be given again. Default: all.")
@click.option(
    "--rows-per-part",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    help="Larger Parquet files are cut, between row groups, into parts of at most that many rows.",
)
@click.option("--force", is_flag=True, help="Replace the parts of a target made with other settings.")
@click.option("--update", is_flag=True, help="Embed changed inputs again; drop the parts of removed ones.")
@click.option(
    "--retries", type=click.IntRange(0), default=2, show_default=True, help="Of errors that may pass."
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def run(inputs: tuple[str, ...], output: str, quiet: bool, **parameters: Any) -> None:  # fmt: skip
    """Embed INPUTs (Parquet or JSON lines: files, globs, folders) into the folder OUTPUT.

    Run the same command again after a crash: it does what is left.
    """
    from .jobs import embed_parquet
    from .jobs.report import describe

    progress = Progress(None if quiet else default_stream())
    with told_in_one_line(progress):
        stage = stage_from(parameters)
        columns = parameters.pop("columns") or None
        with cluster(parameters, stage.hf_token) as client:
            report = embed_parquet(
                inputs, output, stage, client=client, columns=columns, progress=progress, **parameters
            )
        click.echo(describe(report))
        finish(report)


@main.command()
@click.argument("target")
@stage_flags
@cluster_flags
@click.option("--documents", type=click.IntRange(100), default=3000, show_default=True)
def demo(target: str, documents: int, **parameters: Any) -> None:
    """Compose a corpus, embed it into TARGET, and show what lies near what."""
    from .demo import run_demo

    progress = Progress(default_stream())
    with told_in_one_line(progress):
        stage = stage_from(parameters)
        with cluster(parameters, stage.hf_token) as client:
            finish(run_demo(Path(target), documents, stage, client, progress))


@main.command()
@click.argument("target")
@click.option("--picture", type=click.Path(dir_okay=False), help="Where to draw it; default: report.png.")
def report(target: str, picture: str | None) -> None:
    """Print the report of the job in TARGET, and draw it."""
    from .jobs.report import describe, draw, load_report

    with told_in_one_line(Progress()):
        figures = load_report(target)
        click.echo(describe(figures))
        draw(figures, Path(picture or "report.png"))
        click.echo(f"{'picture':>14}  {picture or 'report.png'}")


def finish(figures: Report) -> None:
    """Exit with 1 if some files could not be embedded."""
    if figures.failed:
        sys.exit(1)


@contextmanager
def told_in_one_line(progress: Progress) -> Iterator[None]:
    """Errors that are meant for the user as one line; a signal as what to do next."""

    def stop(number: int, _: Any) -> NoReturn:
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except EmbedError as error:
        click.echo(f"nemo-embed: {' '.join(str(error).split())}", err=True)
        sys.exit(3 if progress.parts else 2)
    except (OSError, CancelledError) as error:  # of a file system or a cluster that went away
        said = " ".join(str(error).split()) or type(error).__name__
        click.echo(f"nemo-embed: {said}; mend it and run the same command again", err=True)
        sys.exit(3)
    except _Stopped as stopped:
        click.echo(
            f"nemo-embed: stopped by {stopped}; {progress.whole} of {progress.parts} parts are whole: run the "
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


@contextmanager
def cluster(parameters: dict[str, Any], hf_token: str | None = None) -> Iterator[Client]:
    """The cluster that the flags name, or a local one; takes its flags out of ``parameters``."""
    from distributed import Client

    from .jobs.local import connect, local_cluster

    address, file = parameters.pop("scheduler"), parameters.pop("scheduler_file")
    local = {name: parameters.pop(name) for name in ("workers", "threads", "memory_limit")}
    if address or file:
        with connect(address, file) as client:
            yield client
        return
    if hf_token:  # workers are children of this process
        os.environ["HF_TOKEN"] = hf_token
    with local_cluster(**local) as made, Client(made) as client:
        yield client
