"""``nemo-embed``: the commands and their flags. `cli.exit` reports errors and sets exit codes.

Heavy libraries are imported when a command runs: help and completion must be fast.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .check_commands import plan_command, verify_command
from .cluster_flags import cluster, cluster_flags
from .exit import Ending, show
from .flags import stage_flags, stage_from
from .group import DefaultGroup, traceback_flag
from .headings import Flag, complete_files
from .report_commands import errors_command, report_command

if TYPE_CHECKING:
    from ..jobs.report import Report

_job_flag = partial(click.option, cls=Flag, group="Job")
_output_flag = partial(click.option, cls=Flag, group="Output")


@click.group(cls=DefaultGroup, params=[traceback_flag()])
@click.version_option(package_name="nemo-embed-dask")
def main() -> None:
    """Turn a text column into an embeddings column.

    \b
    nemo-embed texts/ vectors --text-field body    embed files ("run" is optional)
    nemo-embed run --help                          list the flags of a job
    """  # noqa: D301 - click keeps the lines after this character


@main.command(short_help="Embed files into a folder; the default command.")
@click.argument("inputs", nargs=-1, required=True, shell_complete=complete_files)
@click.argument("output", shell_complete=complete_files)
@stage_flags
@cluster_flags
@_output_flag(
    "--columns", multiple=True, common=2, help="A column to copy; can be repeated. Default: all columns."
)
@_output_flag(
    "--rows-per-part",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    help="Split larger Parquet files between row groups, into parts of at most this many rows.",
)
@_job_flag("--update", is_flag=True, help="Embed changed inputs again; remove the parts of removed inputs.")
@_job_flag("--force", is_flag=True, help="Replace the parts of a target that was made with other settings.")
@_job_flag(
    "--retries",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="How often to try again after a temporary error.",
)
@_job_flag(
    "--sample-bytes",
    type=click.IntRange(1),
    default=1 << 26,
    show_default=True,
    help="Bytes of JSON lines that are read before the job starts, to find columns and their types.",
)
@_job_flag("--quiet", is_flag=True, help="Do not show progress.")
@click.pass_obj
def run(ending: Ending, /, inputs: tuple[str, ...], output: str, quiet: bool, **parameters: Any) -> None:
    """Embed INPUTS (Parquet or JSON lines: files, globs, folders) into the folder OUTPUT.

    After a crash, run the same command again: it continues with what is missing.
    Exit codes: 0 all parts are done; 1 some inputs could not be embedded; 2 wrong
    command or input; 3 stopped early.
    """
    from ..jobs.report import describe
    from ..jobs.run import embed_parquet

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


for _command in (report_command, errors_command, verify_command, plan_command):
    main.add_command(_command)


@main.command(short_help="Embed a generated corpus, and search it.")
@click.argument("target", shell_complete=complete_files)
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


def finish(figures: Report) -> None:
    """Exit with code 1 if some inputs could not be embedded."""
    if figures.failed:
        click.get_current_context().exit(1)
