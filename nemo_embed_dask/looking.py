"""The commands ``verify`` and ``plan``: a look before a run. Knows click, and what the two functions take."""

from __future__ import annotations

import sys
from typing import Any

import click

from .flags import stage_flags, stage_from
from .planning import plan
from .sampling import sample_texts
from .telling import told_in_one_line
from .verify import verify


def _frame(path: str) -> Any:
    import dask.dataframe as dd

    return dd.read_parquet(path)


@click.command("verify")
@click.argument("path")
@click.option("--rows", default=200, show_default=True, help="Texts to compare.")
@click.option("--threshold", default=0.999, show_default=True, help="Least cosine that passes.")
@stage_flags
def verify_command(path: str, rows: int, threshold: float, **parameters: Any) -> None:
    """Compare vectors of some texts of Parquet files at PATH with a plain float32 reference."""
    with told_in_one_line():
        stage = stage_from(parameters)
        verdict = verify(stage, sample_texts(_frame(path), stage.text_field, rows), threshold=threshold)
    click.echo(str(verdict))
    sys.exit(0 if verdict.passed else 1)


@click.command("plan")
@click.argument("path")
@click.option("--sample-rows", default=1000, show_default=True, help="Texts to look at.")
@click.option("--seconds", default=20.0, show_default=True, help="Length of the timed run.")
@click.option("--workers", default=1, show_default=True, help="Processes that the run will have.")
@stage_flags
def plan_command(path: str, sample_rows: int, seconds: float, workers: int, **parameters: Any) -> None:
    """Estimate hours, memory and output of embedding Parquet files at PATH."""
    with told_in_one_line():
        found = plan(_frame(path), sample_rows=sample_rows, seconds=seconds, workers=workers, **parameters)
    click.echo(str(found))
