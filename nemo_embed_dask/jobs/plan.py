"""Plan a job: find its inputs, choose its columns, cut it into units, compute its fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ..errors import ColumnError, ConfigError, JobError
from ..stages import EmbeddingCreatorStage
from ..stages.mapping import check_new_columns
from ..vectors.quantization import CALIBRATED
from .files.inputs import find_inputs
from .files.masking import mask_secrets
from .files.target import Target
from .schema.copied_columns import copied_columns, missing_column_notes
from .schema.inspection import InputInfo, inspect_inputs, plan_units
from .units.fingerprint import fingerprint
from .units.manifest import Manifest, earlier_columns, hash_fingerprint
from .units.progress import Progress
from .units.work import Job

_CODECS = ("zstd", "snappy", "gzip", "lz4", "brotli", "none")
# Seconds before a warning says what the planning is waiting for.
_SLOW_S = 10.0


@dataclass(frozen=True)
class JobOptions:
    """The parameters of `embed_parquet` that the plan depends on, besides stage and target."""

    sources: Sequence[str]
    columns: Sequence[str] | None
    rows_per_part: int
    storage_options: dict[str, Any] = field(repr=False)
    compression: str
    sample_bytes: int


@dataclass(frozen=True)
class JobPlan:
    """A job that is ready to start.

    Attributes
    ----------
    job : Job
        What all units share.
    manifest : Manifest
    digests : dict
        Hashes of the model's files: see `model_digests`.
    notes : list of str
        What the user should know, such as files that are left out.
    """

    job: Job
    manifest: Manifest
    digests: dict[str, str]
    notes: list[str]


def plan_job(
    options: JobOptions,
    target: Target,
    stage: EmbeddingCreatorStage,
    digests: Callable[[], dict[str, str]],
    progress: Progress,
) -> JobPlan:
    """Look into all inputs and plan the job.

    Parameters
    ----------
    options : JobOptions
    target : Target
        The target.
    stage : EmbeddingCreatorStage
    digests : callable
        Finds the model and hashes its files. It is called last, because it may be slow.
    progress : Progress
        Shows a warning if this takes long.

    Raises
    ------
    ConfigError, ColumnError, ModelError, JobError
        The job cannot start.
    """
    _check_options(options)
    _check_stage(stage)
    with progress.warn_if_slow(f"reading what the target {mask_secrets(target.address)} holds", _SLOW_S):
        target.check_reachable()
        earlier = earlier_columns(target)
    with progress.warn_if_slow(f"looking into {mask_secrets(', '.join(options.sources))}", _SLOW_S):
        files, notes = find_inputs(options.sources, target, options.storage_options)
        inspected = inspect_inputs(
            files,
            stage.text_field,
            options.columns,
            options.storage_options,
            options.sample_bytes,
        )
        columns = _source_columns(inspected, options, stage, earlier)
    copied = _without_replaced(columns, inspected, stage)
    units = plan_units(inspected, options.rows_per_part)
    model = digests()
    job_fingerprint = fingerprint(stage, model, copied, options.rows_per_part)
    job = Job(
        target=target,
        text_field=stage.text_field,
        task=stage.task,
        copied_columns=copied,
        fingerprint_hash=hash_fingerprint(job_fingerprint, copied),
        options=options.storage_options,
        compression=options.compression,
        copy_all=options.columns is None,
        overwrite=stage.overwrite,
        model=model,
    )
    manifest = Manifest(job_fingerprint, units, copied)
    return JobPlan(job, manifest, model, [*notes, *missing_column_notes(inspected, copied, stage.text_field)])


def _check_options(options: JobOptions) -> None:
    if options.rows_per_part < 1:
        raise JobError(f"rows_per_part={options.rows_per_part} must be a positive whole number")
    if not options.sources:
        raise JobError("there is no source; name files, globs or folders")
    if options.compression not in _CODECS:
        raise ConfigError(f"compression={options.compression!r} is unknown; choose one of {', '.join(_CODECS)}")
    if options.sample_bytes < 1:
        raise JobError(f"sample_bytes={options.sample_bytes} must be a positive whole number")


def _check_stage(stage: EmbeddingCreatorStage) -> None:
    if stage.tokenizer == "cudf":
        raise ConfigError(
            "tokenizer='cudf' cannot be used in jobs, because they read files into host memory; apply the "
            "stage to a dask_cudf collection instead"
        )
    settings = stage.settings
    dtypes = [settings.embedding_dtype, *(output.dtype for output in settings.extra_outputs)]
    calibrated = next((dtype for dtype in dtypes if dtype in CALIBRATED), None)
    if calibrated and not settings.ranges:
        raise ConfigError(
            f"vectors as {calibrated} need the ranges of their values; make them with calibrate(stage, texts, "
            "path), and pass calibration=path"
        )


def _source_columns(
    inspected: Sequence[InputInfo], options: JobOptions, stage: EmbeddingCreatorStage, earlier: pa.Schema | None
) -> pa.Schema:
    """Return the columns that the user asked for, with types that hold the values of all inputs."""
    names = None if options.columns is None else list(dict.fromkeys(options.columns))
    return copied_columns(inspected, stage.text_field, names, earlier, options.storage_options)


def _without_replaced(
    columns: pa.Schema, inspected: Sequence[InputInfo], stage: EmbeddingCreatorStage
) -> pa.Schema:
    """Return the columns without those that the stage replaces, which needs ``overwrite``.

    Raises
    ------
    ColumnError
        The stage would replace a column without ``overwrite``; the error names an input that has it.
    """
    new = {*stage.task.all_names}
    try:
        check_new_columns(stage.task.all_names, columns.names, overwrite=stage.overwrite)
    except ColumnError as error:
        files = [
            info.file.address
            for info in inspected
            if info.schema is not None and new.intersection(info.schema.names)
        ]
        more = f" and {len(files) - 1} more files" if len(files) > 1 else ""
        where = f"{files[0]}{more}: " if files else ""
        raise ColumnError(f"{where}{error}") from None
    return pa.schema([field for field in columns if field.name not in new])
