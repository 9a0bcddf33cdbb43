"""`embed_parquet`: embed files into Parquet files, resumable."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..engine import unload_from_gpu
from ..engine.digests import model_digests
from ..errors import ConfigError
from ..stages import EmbeddingCreatorStage
from ..stages.base import stage_first
from .execute import Cluster, JobRun
from .files.target import Target
from .plan import JobOptions, plan_job
from .report import Report
from .schema.json_sampling import SAMPLE_BYTES
from .units.manifest import reconcile
from .units.progress import Progress
from .units.state import JobState


@stage_first("embed_parquet(EmbeddingCreatorStage(...), source, target)")
def embed_parquet(
    stage: EmbeddingCreatorStage,
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    client: Cluster = None,
    columns: str | Sequence[str] | None = None,
    rows_per_part: int = 100_000,
    storage_options: dict[str, Any] | None = None,
    target_options: dict[str, Any] | None = None,
    force: bool = False,
    update: bool = False,
    retries: int = 2,
    compression: str = "zstd",
    sample_bytes: int = SAMPLE_BYTES,
    progress: Progress | bool = False,
    state: JobState | None = None,
) -> Report:
    """Embed a text column of files into Parquet files. Run it again after a crash to embed what is missing.

    Parameters
    ----------
    stage : EmbeddingCreatorStage
        What to embed, and how.
    source : str, path or sequence of these
        Files, globs or folders of Parquet or JSON lines, at any fsspec address.
    target : str or path
        A folder, at any fsspec address. It gets one part per unit, with the same name on every run. A part
        has the copied columns and those that the stage adds. Vectors are ``fixed_size_list<float>`` (or of the
        stage's number type), null where the text is null.
    client : distributed.Client or callable, optional
        The cluster to run on, or a function that starts one on this machine, such as
        ``partial(embed_cluster, stage)``; it is called only if there is work. If None, the job runs in this
        process.
    columns : str or sequence of str, optional
        Input columns to copy; all if None. Values stay the same, in a type that holds the values of all
        inputs. A column that a file lacks is null for its rows.
    rows_per_part : int
        Larger Parquet files are split between row groups into parts of at most that many rows.
    storage_options, target_options : dict, optional
        Options of the file systems of source and target. Prefer environment variables for secrets.
    force : bool
        Replace the parts of a target that was made with other settings, as a new generation.
    update : bool
        Embed inputs again that changed since the last run, and remove the parts of removed inputs.
    retries : int
        How often a unit is tried again after a temporary error.
    compression : str
        Parquet codec of the copied columns; vectors stay uncompressed.
    sample_bytes : int
        Bytes of JSON lines, over all files, that are read to find columns and types before the job starts.
    progress : bool
        Whether to show documents, tokens and time left on standard error, or in the notebook.
    state : JobState, optional
        A new record that the job updates while it runs, for callers that need to know after an error how far it
        has come.

    Returns
    -------
    Report
        ``report.failed`` lists the inputs that could not be embedded; all others are done. The target gets a
        file ``_SUCCESS`` if there are none.

    Raises
    ------
    ConfigError, ColumnError, ModelError, JobError
        The job cannot start or cannot continue; parts that are written stay.

    Examples
    --------
    >>> report = embed_parquet(EmbeddingCreatorStage(), "texts/", "vectors/")
    >>> report.complete, report.rows
    (True, 24)
    """
    _check(client, retries)
    if isinstance(progress, bool):
        progress = Progress(sys.stderr if progress else None)
    folder = Target(os.fspath(target), target_options or {})
    options = JobOptions(
        sources=_addresses(source),
        columns=[columns] if isinstance(columns, str) else columns,
        rows_per_part=rows_per_part,
        storage_options=storage_options or {},
        compression=compression,
        sample_bytes=sample_bytes,
    )
    plan = plan_job(options, folder, stage, partial(_digests, stage, client, progress), progress)
    with folder.lock():
        manifest, notes = reconcile(folder, plan.manifest, force=force, update=update)
        plan = replace(plan, manifest=manifest, notes=[*notes, *plan.notes])
        for note in plan.notes:
            progress.info(note)
        run = JobRun(plan, client, retries, progress, JobState() if state is None else state)
        return run.complete()


def _addresses(source: Any) -> list[str]:
    """Return the addresses of the sources.

    Raises
    ------
    ConfigError
        The source is something other than names of files, such as a frame.
    """
    is_one = isinstance(source, str | os.PathLike) or hasattr(source, "columns")
    names = [source] if is_one or not isinstance(source, Iterable) else list(source)
    for name in names:
        if not isinstance(name, str | os.PathLike):
            raise ConfigError(
                f"embed_parquet takes names of files or folders, not a {type(name).__name__}; to embed a "
                "frame, call the stage with it"
            )
    return [os.fspath(name) for name in names]


def _check(client: Cluster, retries: int) -> None:
    if not (client is None or callable(client)):
        from .clusters.preload import check_client  # distributed takes a while to import

        check_client(client)
    if retries < 0:
        raise ConfigError(f"retries={retries} must be 0 or more")


def _digests(stage: EmbeddingCreatorStage, client: Cluster, progress: Progress) -> dict[str, str]:
    """Find the model in this process, or on all workers of a running cluster; return its digests."""
    if client is None or callable(client):
        digests = model_digests(stage.settings)
        if client is not None:
            unload_from_gpu()  # the workers need the memory
        return digests
    from .clusters.preload import prepare_workers  # distributed takes a while to import

    return prepare_workers(client, stage, progress)
