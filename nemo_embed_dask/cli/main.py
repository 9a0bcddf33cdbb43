"""``nemo-embed``: the command line. Turns flags into calls; errors and exit codes are told by `telling`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .check_commands import plan_command, verify_command
from .exit import Ending, show, told_in_one_line
from .flags import stage_flags, stage_from

if TYPE_CHECKING:
    from distributed import Client

    from ..jobs.report import Report
    from ..jobs.run import Cluster

Command = Callable[..., Any]


class DefaultGroup(click.Group):
    """A group whose command ``run`` needs not be named: ``nemo-embed IN OUT``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``run`` in front, unless a command or a flag of the group is there."""
        own = {"--help", "--version", *self.commands}
        flags = list(takewhile(lambda arg: arg == _TRACEBACK, args))
        rest = args[len(flags) :]
        if rest and rest[0] not in own:
            rest = ["run", *rest]
        return super().parse_args(ctx, [*flags, *rest])

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, which gets the flag ``--traceback``."""
        cmd.params.append(_traceback_flag())
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; whatever it raises is told in one line."""
        with told_in_one_line(ctx.ensure_object(Ending)):
            return super().invoke(ctx)


def _traceback_flag() -> click.Option:
    def note(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(Ending).traceback = True

    text = "Show the whole traceback of an error too."
    return click.Option([_TRACEBACK], is_flag=True, expose_value=False, callback=note, help=text)


_TRACEBACK = "--traceback"


@click.group(cls=DefaultGroup, params=[_traceback_flag()])
@click.version_option(package_name="nemo-embed-dask")
def main() -> None:
    """Turn a text column into an embeddings column: nemo-embed INPUT... OUTPUT."""


main.add_command(verify_command)
main.add_command(plan_command)


def _memory(_: click.Context, __: click.Parameter, value: str) -> str:
    """Check a size of memory as Dask reads it."""
    if value != "auto":
        from ..clusters.processes import memory_problem  # Dask takes a while to import

        if problem := memory_problem(value):
            raise click.BadParameter(f"{value!r} {problem}")
    return value


def cluster_flags(command: Command) -> Command:
    """Add the flags that say where a job runs."""
    for option in reversed((
        click.option("--scheduler", metavar="ADDRESS", help="A running Dask cluster: tcp://host:8786."),
        click.option("--scheduler-file", type=click.Path(), help="The file that its scheduler wrote."),
        click.option("--workers", type=click.IntRange(1), help="Of a local cluster: processes."),
        click.option("--threads", type=click.IntRange(1), help="Of a local cluster: threads a process."),
        click.option(
            "--memory-limit", default="auto", show_default=True, callback=_memory,
            help="Of a local worker: such as 4GB; auto: its share of this machine's; 0: none.",
        ),
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
@click.option(
    "--sample-bytes",
    type=click.IntRange(1),
    default=1 << 26,
    show_default=True,
    help="Bytes of JSON lines that are looked at, before the job starts, for columns and their types.",
)
@click.option("--force", is_flag=True, help="Replace the parts of a target made with other settings.")
@click.option("--update", is_flag=True, help="Embed changed inputs again; drop the parts of removed ones.")
@click.option(
    "--retries", type=click.IntRange(0), default=2, show_default=True, help="Of errors that may pass."
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.pass_obj
def run(ending: Ending, /, inputs: tuple[str, ...], output: str, quiet: bool, **parameters: Any) -> None:
    """Embed INPUTs (Parquet or JSON lines: files, globs, folders) into the folder OUTPUT.

    Run the same command again after a crash: it does what is left.
    """
    from ..jobs import embed_parquet
    from ..jobs.report import describe

    stage = stage_from(parameters)
    columns = parameters.pop("columns") or None
    with cluster(parameters, stage.hf_token) as client:
        report = embed_parquet(
            stage,
            inputs,
            output,
            client=client,
            columns=columns,
            progress=not quiet,
            state=ending.state,
            **parameters,
        )
    show(describe(report))
    finish(report)


@main.command()
@click.argument("target")
@stage_flags
@cluster_flags
@click.option("--documents", type=click.IntRange(100), default=3000, show_default=True)
@click.pass_obj
def demo(ending: Ending, /, target: str, documents: int, **parameters: Any) -> None:
    """Compose a corpus, embed it into TARGET, and show what lies near what."""
    from .demo import run_demo

    stage = stage_from(parameters)
    with cluster(parameters, stage.hf_token) as client:
        finish(run_demo(Path(target), documents, stage, client, ending.state))


@main.command()
@click.argument("target")
@click.option(
    "--picture", type=click.Path(dir_okay=False), default="report.png", show_default=True,
    help="Where to draw it: a .png, .svg, .pdf or .jpg file.",
)  # fmt: skip
def report(target: str, picture: str) -> None:
    """Print the report of the job in TARGET, and draw it."""
    from ..jobs.report import describe, draw, load_report

    figures = load_report(target)
    show(describe(figures))
    draw(figures, Path(picture))
    show(f"{'picture':>14}  {picture}")


def finish(figures: Report) -> None:
    """Exit with 1 if some files could not be embedded."""
    if figures.failed:
        click.get_current_context().exit(1)


@contextmanager
def cluster(parameters: dict[str, Any], hf_token: str | None = None) -> Iterator[Cluster]:
    """The cluster that the flags name, or what starts a local one; takes its flags out of ``parameters``."""
    from ..jobs.clusters.connect import connect

    context = click.get_current_context()
    address, file = parameters.pop("scheduler"), parameters.pop("scheduler_file")
    local = {name: parameters.pop(name) for name in ("workers", "threads", "memory_limit")}
    if address and file:
        raise click.UsageError("pass either --scheduler or --scheduler-file, not both", context)
    if (address or file) and local != {"workers": None, "threads": None, "memory_limit": "auto"}:
        raise click.UsageError(
            "--workers, --threads and --memory-limit apply to a local cluster only: leave them out with "
            "--scheduler or --scheduler-file",
            context,
        )
    if not (address or file):
        yield partial(_local, hf_token, local)
        return
    with connect(address, file) as client:
        yield client


@contextmanager
def _local(hf_token: str | None, settings: dict[str, Any]) -> Iterator[Client]:
    from distributed import Client

    from ..jobs.clusters.connect import local_cluster

    if hf_token:  # workers are children of this process
        os.environ["HF_TOKEN"] = hf_token
    with local_cluster(**settings) as made, Client(made) as client:
        yield client
