"""The commands ``verify`` and ``plan``: a look before a run. Knows click, and what the two functions take."""

from __future__ import annotations

from typing import Any

import click

from ..checks.estimate import plan
from ..checks.sampling import sample_texts
from ..checks.verification import verify
from ..errors import JobError
from ..jobs.files.errors import describe_error
from ..jobs.files.masking import mask_secrets
from ..stages import EmbeddingCreatorStage
from .exit import show
from .flags import stage_flags, stage_from


def _frame(path: str, stage: EmbeddingCreatorStage) -> Any:
    import dask.dataframe as dd

    try:
        frame = dd.read_parquet(path)
    except Exception as error:  # each client library has errors of its own; Dask wraps some
        told = describe_error(error.__cause__ or error, path)
        raise JobError(
            f"{mask_secrets(path)!r} names no Parquet files that can be read ({told}); check the address, "
            "and of a remote store the credentials and the network too"
        ) from error
    stage(frame)  # lazy: looks whether the column is there and holds text
    return frame


@click.command("verify")
@click.argument("path")
@click.option("--rows", type=click.IntRange(1), default=200, show_default=True, help="Texts to compare.")
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    default=0.999,
    show_default=True,
    help="Least cosine that passes.",
)
@stage_flags
def verify_command(path: str, rows: int, threshold: float, **parameters: Any) -> None:
    """Compare vectors of some texts of Parquet files at PATH with a plain float32 reference."""
    stage = stage_from(parameters)
    verdict = verify(stage, sample_texts(_frame(path, stage), stage.text_field, rows), threshold=threshold)
    show(str(verdict))
    click.get_current_context().exit(0 if verdict.passed else 1)


@click.command("plan")
@click.argument("path")
@click.option(
    "--sample-rows", type=click.IntRange(1), default=1000, show_default=True, help="Texts to look at."
)
@click.option(
    "--seconds", type=click.FloatRange(0), default=20.0, show_default=True, help="Length of the timed run."
)
@click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that the run will have."
)
@stage_flags
def plan_command(path: str, sample_rows: int, seconds: float, workers: int, **parameters: Any) -> None:
    """Estimate hours, memory and output of embedding Parquet files at PATH."""
    stage = stage_from(parameters)
    found = plan(stage, _frame(path, stage), sample_rows=sample_rows, seconds=seconds, workers=workers)
    show(str(found))
