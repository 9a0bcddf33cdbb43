"""What a job will do: its inputs, columns, units and fingerprint. Reads inputs' footers and samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ..errors import ColumnError, ConfigError, JobError
from ..stages import EmbeddingCreatorStage
from ..stages.mapping import check_names
from ..vectors.quantization import CALIBRATED
from .files.inputs import find_inputs
from .files.masking import mask_secrets
from .files.target import Target
from .schema.carried import carried_columns, lacking
from .schema.hive import with_types
from .schema.ranges import Ranges
from .schema.survey import Survey, plan_units, survey
from .units.fingerprint import digest, fingerprint
from .units.manifest import Manifest, earlier_columns
from .units.progress import Progress
from .units.work import Job

_CODECS = ("zstd", "snappy", "gzip", "lz4", "brotli", "none")
# Seconds of looking into the inputs until it is said.
_TELL_S = 10.0


@dataclass(frozen=True)
class Asked:
    """What a caller of `embed_parquet` asks for, besides the stage and the target."""

    sources: Sequence[str]
    columns: Sequence[str] | None
    rows_per_part: int
    options: dict[str, Any] = field(repr=False)
    compression: str
    sample_bytes: int


@dataclass(frozen=True)
class Planned:
    """A job that can start: what its units share, its plan, its model's digests, what is to be said."""

    job: Job
    manifest: Manifest
    digests: dict[str, str]
    notes: list[str]


def make_plan(
    asked: Asked,
    store: Target,
    stage: EmbeddingCreatorStage,
    digests: Callable[[], dict[str, str]],
    progress: Progress,
) -> Planned:
    """Look into all inputs and plan the job.

    Parameters
    ----------
    asked : Asked
    store : Target
        The target.
    stage : EmbeddingCreatorStage
    digests : callable
        Finds the model and hashes it; called once everything else is known to be right.
    progress : Progress
        Where it is said that this takes long.

    Raises
    ------
    ConfigError, ColumnError, ModelError, JobError
        The job cannot start.
    """
    if asked.rows_per_part < 1:
        raise JobError(f"rows_per_part={asked.rows_per_part} must be a positive whole number")
    if not asked.sources:
        raise JobError("there is no source; name files, globs or folders")
    if asked.compression not in _CODECS:
        raise ConfigError(f"compression={asked.compression!r} is unknown; choose one of {', '.join(_CODECS)}")
    if asked.sample_bytes < 1:
        raise JobError(f"sample_bytes={asked.sample_bytes} must be a positive whole number")
    _check_stage(stage)
    with progress.warn_if_slow(f"reading what the target {mask_secrets(store.address)} holds", _TELL_S):
        earlier = earlier_columns(store)
    with progress.warn_if_slow(f"looking into {mask_secrets(', '.join(asked.sources))}", _TELL_S):
        files, notes = find_inputs(asked.sources, store, asked.options)
        surveys = survey(
            with_types(files, stage.text_field),
            stage.text_field,
            asked.columns,
            asked.options,
            asked.sample_bytes,
        )
        wanted = None if asked.columns is None else list(dict.fromkeys(asked.columns))
        columns = carried_columns(surveys, stage.text_field, wanted, earlier, Ranges(asked.options))
    carried = _without_new(columns, surveys, stage)
    units = plan_units(surveys, asked.rows_per_part)
    found = digests()
    marks = fingerprint(stage, found, carried, asked.rows_per_part)
    mark = digest([marks, carried.to_string(show_field_metadata=False)])
    job = Job(store, stage.text_field, stage.task, carried, mark, asked.options, asked.compression,
              copy_all=asked.columns is None, overwrite=stage.overwrite)  # fmt: skip
    notes = [*notes, *lacking(surveys, carried)]
    return Planned(job, Manifest(marks, units, carried), found, notes)


def _check_stage(stage: EmbeddingCreatorStage) -> None:
    if stage.tokenizer == "cudf":
        raise ConfigError(
            "tokenizer='cudf' is not for jobs, which read files on the host; map the stage over a dask_cudf "
            "collection"
        )
    settings = stage.settings
    dtypes = [settings.embedding_dtype, *(output.dtype for output in settings.extra_outputs)]
    asked = next((dtype for dtype in dtypes if dtype in CALIBRATED), None)
    if asked and not settings.ranges:
        raise ConfigError(
            f"vectors as {asked} need their ranges; make them with calibrate(stage, texts, path), and pass "
            "calibration=path"
        )


def _without_new(columns: pa.Schema, surveys: Sequence[Survey], stage: EmbeddingCreatorStage) -> pa.Schema:
    """The columns without those that the stage makes anew, which ``overwrite`` allows."""
    new = {*stage.task.all_names}
    try:
        check_names(stage.task, columns.names, overwrite=stage.overwrite)
    except ColumnError as error:
        having = [s.file.address for s in surveys if s.schema is not None and new.intersection(s.schema.names)]
        more = f" and {len(having) - 1} more files" if len(having) > 1 else ""
        where = f"{having[0]}{more}: " if having else ""
        raise ColumnError(f"{where}{error}") from None
    return pa.schema([field for field in columns if field.name not in new])
