"""``nemo-embed``: the commands and their flags. `cli.exit` reports errors and sets exit codes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .check_commands import plan_command, verify_command
from .cluster_flags import cluster, cluster_flags
from .exit import Ending, report_errors, show
from .flags import stage_flags, stage_from

if TYPE_CHECKING:
    from ..jobs.report import Report

Command = Callable[..., Any]


class DefaultGroup(click.Group):
    """A group with the default command ``run``: ``nemo-embed IN OUT``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert ``run``, unless the arguments start with a command or a flag of the group."""
        known = {"--help", "--version", *self.commands}
        flags = list(takewhile(lambda arg: arg == _TRACEBACK, args))
        rest = args[len(flags) :]
        if rest and rest[0] not in known:
            rest = ["run", *rest]
        return super().parse_args(ctx, [*flags, *rest])

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command with the flag ``--traceback``."""
        cmd.params.append(_traceback_flag())
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; report its errors in one line."""
        with report_errors(ctx.ensure_object(Ending)):
            return super().invoke(ctx)


def _traceback_flag() -> click.Option:
    def set_traceback(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(Ending).traceback = True

    text = "Also show the traceback of an error."
    return click.Option([_TRACEBACK], is_flag=True, expose_value=False, callback=set_traceback, help=text)


_TRACEBACK = "--traceback"


@click.group(cls=DefaultGroup, params=[_traceback_flag()])
@click.version_option(package_name="nemo-embed-dask")
def main() -> None:
    """Turn a text column into an embeddings column.

    The default command is run: nemo-embed INPUT... OUTPUT.
    """


main.add_command(verify_command)
main.add_command(plan_command)


@main.command()
@click.argument("inputs", nargs=-1, required=True)
@click.argument("output")
@stage_flags
@cluster_flags
@click.option("--columns", multiple=True, help="A column to copy; can be repeated. Default: all columns.")
@click.option(
    "--rows-per-part",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    help="Split larger Parquet files between row groups, into parts of at most this many rows.",
)
@click.option(
    "--sample-bytes",
    type=click.IntRange(1),
    default=1 << 26,
    show_default=True,
    help="Bytes of JSON lines that are read before the job starts, to find columns and their types.",
)
@click.option("--force", is_flag=True, help="Replace the parts of a target that was made with other settings.")
@click.option("--update", is_flag=True, help="Embed changed inputs again; remove the parts of removed inputs.")
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="How often to try again after a temporary error.",
)
@click.option("--quiet", is_flag=True, help="Do not show progress.")
@click.pass_obj
def run(ending: Ending, /, inputs: tuple[str, ...], output: str, quiet: bool, **parameters: Any) -> None:
    """Embed INPUTs (Parquet or JSON lines: files, globs, folders) into the folder OUTPUT.

    After a crash, run the same command again: it continues with what is missing.
    """
    from ..jobs import embed_parquet
    from ..jobs.report import describe

    stage = stage_from(parameters)
    columns = parameters.pop("columns") or None
    with cluster(parameters, stage) as client:
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
@click.option(
    "--documents",
    type=click.IntRange(100),
    default=3000,
    show_default=True,
    help="Number of documents to compose.",
)
@click.pass_obj
def demo(ending: Ending, /, target: str, documents: int, **parameters: Any) -> None:
    """Compose a small corpus, embed it into the folder TARGET, and search it."""
    from .demo import run_demo

    stage = stage_from(parameters)
    with cluster(parameters, stage) as client:
        finish(run_demo(Path(target), documents, stage, client, ending.state))


@main.command()
@click.argument("target")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False),
    default="report.png",
    show_default=True,
    help="File to draw it to: .png, .svg, .pdf or .jpg.",
)
def report(target: str, picture: str) -> None:
    """Print the report of the job in the folder TARGET, and draw it as a picture."""
    from ..jobs.report import describe, draw, load_report

    figures = load_report(target)
    show(describe(figures))
    draw(figures, Path(picture))
    show(f"{'picture':>14}  {picture}")


def finish(figures: Report) -> None:
    """Exit with code 1 if some inputs could not be embedded."""
    if figures.failed:
        click.get_current_context().exit(1)
