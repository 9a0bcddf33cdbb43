"""The commands ``verify`` and ``plan``, for use before a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from fsspec.core import url_to_fs

from ..errors import EmbedError, JobError
from ..jobs.files.errors import describe_error
from ..jobs.files.masking import mask_secrets
from ..jobs.files.reachability import check_reachable
from .exit import show
from .flags import stage_flags, stage_from
from .headings import CommandWithHeadings, complete_files

if TYPE_CHECKING:
    from ..stages import EmbeddingCreatorStage


def _read_frame(path: str, stage: EmbeddingCreatorStage) -> Any:
    """Return the Parquet files at a path as a lazy frame; check that it has the stage's text column."""
    import dask.dataframe as dd

    try:
        check_reachable(url_to_fs(path)[0], path)
        frame = dd.read_parquet(path)
    except EmbedError:
        raise
    except Exception as error:  # each client library has errors of its own; Dask wraps some
        reason = describe_error(error.__cause__ or error, path)
        raise JobError(
            f"{mask_secrets(path)!r} has no Parquet files that can be read ({reason}); check the address, "
            "and for a remote store the credentials and the network"
        ) from error
    stage(frame)  # lazy: only checks that the column exists and has text
    return frame


@click.command("verify", cls=CommandWithHeadings, short_help="Compare vectors with a float32 reference.")
@click.argument("path", shell_complete=complete_files)
@click.option("--rows", type=click.IntRange(1), default=200, show_default=True, help="Texts to compare.")
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    default=0.999,
    show_default=True,
    help="Lowest cosine that passes.",
)
@stage_flags
def verify_command(path: str, rows: int, threshold: float, **parameters: Any) -> None:
    """Compare the vectors of some texts in Parquet files at PATH with a float32 reference."""
    from ..checks.sampling import sample_texts  # it imports torch, which takes seconds
    from ..checks.verification import verify

    stage = stage_from(parameters)
    verdict = verify(stage, sample_texts(_read_frame(path, stage), stage.text_field, rows), threshold=threshold)
    show(str(verdict))
    click.get_current_context().exit(0 if verdict.passed else 1)


@click.command("plan", cls=CommandWithHeadings, short_help="Estimate time, memory and output size.")
@click.argument("path", shell_complete=complete_files)
@click.option(
    "--sample-rows", type=click.IntRange(1), default=1000, show_default=True, help="Texts in the sample."
)
@click.option(
    "--seconds", type=click.FloatRange(0), default=20.0, show_default=True, help="Length of the timed run."
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of processes of the planned run.",
)
@stage_flags
def plan_command(path: str, sample_rows: int, seconds: float, workers: int, **parameters: Any) -> None:
    """Estimate hours, memory and output size for embedding the Parquet files at PATH."""
    from ..checks.estimate import plan  # it imports torch, which takes seconds

    stage = stage_from(parameters)
    estimate = plan(stage, _read_frame(path, stage), sample_rows=sample_rows, seconds=seconds, workers=workers)
    show(str(estimate))
