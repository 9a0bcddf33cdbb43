"""The commands ``report`` and ``errors``: what a job has done, and what could not be embedded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from textwrap import fill

import click
from click.core import ParameterSource

from ..errors import JobError
from .exit import show
from .headings import CommandWithHeadings, complete_files

_INDENT = " " * 4
_WIDEST = 100


@click.command("report", cls=CommandWithHeadings, short_help="Print the figures of a job, and draw them.")
@click.argument("target", shell_complete=complete_files)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False),
    default="report.png",
    show_default=True,
    help="File to draw it to: .png, .svg, .pdf or .jpg. If it is named, a picture that cannot be drawn is an "
    "error; else the report is printed without it.",
)
def report_command(target: str, picture: str) -> None:
    """Print the report of the job in the folder TARGET, and draw it."""
    from ..jobs.report import describe, draw, load_report

    figures = load_report(target)
    show(describe(figures))
    named = click.get_current_context().get_parameter_source("picture") != ParameterSource.DEFAULT
    try:
        draw(figures, Path(picture))
    except JobError as error:
        if named:
            raise
        show(f"{'no picture':>14}  {error}")
    else:
        show(f"{'picture':>14}  {picture}")


@click.command("errors", cls=CommandWithHeadings, short_help="List what a job could not embed, and why.")
@click.argument("target", shell_complete=complete_files)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per file or row that failed.")
def errors_command(target: str, as_json: bool) -> None:
    """List what the job in the folder TARGET could not embed, and why.

    The job may have ended, still run, or have been interrupted. Exit codes: 0 no file failed (rows that got a
    null vector do not count); 1 some files failed; 2 TARGET is not the target of a job.
    """
    from ..jobs.failures import describe_failures, find_failures

    found = find_failures(target)
    if as_json:
        for failure in found.files + found.rows:
            show(json.dumps(failure.as_json()))
    else:
        width = min(shutil.get_terminal_size().columns, _WIDEST)
        for line in describe_failures(found):
            show(_wrapped(line, width))
    click.get_current_context().exit(1 if found.files else 0)


def _wrapped(line: str, width: int) -> str:
    """Wrap an indented line, which explains; leave others, which are names of files, whole."""
    if not line.startswith(_INDENT):
        return line
    return fill(line.strip(), width, initial_indent=_INDENT, subsequent_indent=_INDENT, break_long_words=False)
