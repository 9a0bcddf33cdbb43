"""`embed_parquet`: a job from its sources to ``_SUCCESS``. Knows the order of things, and no detail."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..errors import ColumnError, ConfigError, JobError
from ..stages import EmbeddingCreatorStage
from .fingerprint import digest, fingerprint, model_digests
from .inputs import InputFile, Unit, find_files, plan_units
from .manifest import SUCCESS, Log, Manifest, Record, drop_strangers, settle, unit_key, whole_parts
from .progress import Progress
from .readers import check_text, one_line, read_schema
from .report import REPORT, Report, make_report, save_report
from .serial import here
from .storage import UNFINISHED, Store
from .work import Job, Outcome

if TYPE_CHECKING:
    from distributed import Client

# How often the target is looked over and what is missing done again, before the job gives up.
_ROUNDS = 3
# What a part does not hold: one float32 vector a row, and nothing else.
_ONLY: dict[str, Any] = {
    "embedding_dtype": "float32", "extra_embeddings": (), "n_tokens_field": None, "truncated_field": None,
}  # fmt: skip


def embed_parquet(
    source: str | Sequence[str],
    target: str,
    stage: EmbeddingCreatorStage | None = None,
    *,
    client: Client | None = None,
    columns: Sequence[str] | None = None,
    rows_per_part: int = 100_000,
    storage_options: dict[str, Any] | None = None,
    target_options: dict[str, Any] | None = None,
    force: bool = False,
    update: bool = False,
    retries: int = 2,
    compression: str = "zstd",
    progress: Progress | None = None,
) -> Report:
    """Embed files into files; run it again after a crash, and it does what is left.

    Parameters
    ----------
    source : str or sequence of str
        Files, globs or folders of Parquet or JSON lines, at any fsspec address.
    target : str
        A folder, at any fsspec address. One part a unit of input, with the same name on every run: the
        columns carried over, and ``stage.embedding_field``, fixed_size_list<float>, null where the text is.
    stage : EmbeddingCreatorStage, optional
        What to embed, and how; its defaults if None.
    client : distributed.Client, optional
        The cluster to run on; in this process if None.
    columns : sequence of str, optional
        Columns to carry over untouched; all if None.
    rows_per_part : int
        A larger Parquet file is cut at borders of row groups into parts of at most that many rows.
    storage_options, target_options : dict, optional
        For the file systems of source and target. Prefer the environment for secrets.
    force : bool
        Replace the parts of a target made with other settings, as a new generation.
    update : bool
        Embed inputs again that changed since the last run, and drop the parts of those that are gone.
    retries : int
        How often a unit is tried again after an error that may pass.
    compression : str
        Parquet codec of the columns carried over; vectors stay uncompressed.
    progress : Progress, optional
        Where to show it; nowhere if None.

    Returns
    -------
    Report
        ``report.failed`` lists files that could not be embedded; all others are done. The target has a
        file ``_SUCCESS`` if there are none.

    Raises
    ------
    ConfigError, ColumnError, ModelError, JobError
        The job cannot start, or cannot go on; what is done stays done.
    """
    stage = stage or EmbeddingCreatorStage()
    progress = progress or Progress()
    store = Store(target, target_options or {})
    sources = [source] if isinstance(source, str) else list(source)
    options = storage_options or {}
    _check_stage(stage)
    if rows_per_part < 1:
        raise JobError(f"rows_per_part={rows_per_part} must be a positive whole number")
    files = find_files(sources, store, options)
    carried = _carried(files, stage, columns, options)
    units = plan_units(files, rows_per_part, options)
    digests = _digests(stage, client)
    plan = Manifest(fingerprint(stage, digests, carried, rows_per_part), units)
    mark = digest([plan.fingerprint, carried.to_string()])
    job = Job(store, stage, carried, mark, options, compression)
    with store.locked():
        notes = settle(store, plan, force=force, update=update)
        for note in notes:
            progress.say(note)
        return _Run(job, plan, client, retries, progress, digests).complete(notes)


def _check_stage(stage: EmbeddingCreatorStage) -> None:
    for name, value in _ONLY.items():
        if getattr(stage, name) != value:
            raise ConfigError(f"{name}={getattr(stage, name)!r} is not for jobs; leave it at {value!r}, "
                              "or map the stage over a Dask dataframe")  # fmt: skip
    if stage.tokenizer == "cudf":
        raise ConfigError("tokenizer='cudf' is not for jobs, which read files on the host; "
                          "map the stage over a dask_cudf collection")  # fmt: skip
    if stage.long_documents == "explode":
        raise ConfigError(
            'long_documents="explode" is not for jobs over files: a part has the rows of its input'
        )


def _digests(stage: EmbeddingCreatorStage, client: Client | None) -> dict[str, str]:
    if client is None:
        return model_digests(stage.settings.model)
    from .preload import prepare_workers  # distributed takes a while to import

    return prepare_workers(client, stage)


def _carried(
    files: Sequence[InputFile],
    stage: EmbeddingCreatorStage,
    columns: Sequence[str] | None,
    options: dict[str, Any],
) -> pa.Schema:
    """The columns to carry over: from the first file that can be read and has the text column."""
    problem: Exception | None = None
    for file in files:
        try:
            schema = read_schema(file, options)
            check_text(schema, stage.text_field)
        except (OSError, ValueError, pa.ArrowException) as error:
            known = ColumnError(f"{file.address}: {error}")
            problem = problem or (known if isinstance(error, ColumnError) else JobError(
                f"none of the {len(files)} inputs can be read; {file.address}: {one_line(error)}"
            ))  # fmt: skip
            continue
        return _selected(schema, stage, columns)
    raise problem or JobError("there is no input")


def _selected(schema: pa.Schema, stage: EmbeddingCreatorStage, columns: Sequence[str] | None) -> pa.Schema:
    names = list(schema.names) if columns is None else list(columns)
    missing = [name for name in names if name not in schema.names]
    if missing:
        raise ColumnError(f"there is no column {missing[0]!r} to carry over; the columns are {schema.names}")
    if stage.embedding_field in names and not stage.overwrite:
        raise ColumnError(
            f"there is a column {stage.embedding_field!r} already; choose another embedding_field, leave it "
            "out of columns, or pass overwrite=True"
        )
    return pa.schema([schema.field(name) for name in names if name != stage.embedding_field])


class _Run:
    """One run of a job under its lock."""

    def __init__(
        self, job: Job, plan: Manifest, client: Client | None, retries: int, progress: Progress,
        digests: dict[str, str],
    ) -> None:  # fmt: skip
        self.job, self.plan, self.client = job, plan, client
        self.retries, self.progress, self.digests = retries, progress, digests
        self.store, self.log = job.target, Log(job.target)
        self.units = {unit.name: unit for unit in plan.units}
        self.keys = {unit.name: unit_key(unit, job.mark) for unit in plan.units}
        self.whole: dict[str, Record] = {}
        self.new: dict[str, Record] = {}
        self.failed: dict[str, str] = {}
        self.seconds = 0.0

    def complete(self, notes: list[str]) -> Report:
        """Do what is left until a listing shows all of it, then write ``_SUCCESS``."""
        known = self.log.records()
        todo = self._missing(known)
        if todo or self.store.read(SUCCESS) is None:
            self._begin()
        for _ in range(_ROUNDS):
            if not todo:
                break
            self._do(todo)
            todo = self._missing(known | self.new)
        report = self._report(notes)
        if todo:
            raise JobError(f"{len(todo)} parts, such as {todo[0].name}, vanish from {self.store.address} "
                           "after they are written; is something else at work on it?")  # fmt: skip
        drop_strangers(self.store, self.units, self.store.listing())
        if report.complete:
            self.store.write(SUCCESS, b"")
        return report

    def _missing(self, known: dict[str, Record]) -> list[Unit]:
        self.whole = {record.name: record for record in whole_parts(self.store, self.keys, known)}
        failed = self.failed.keys()
        return [unit for name, unit in self.units.items() if name not in self.whole and name not in failed]

    def _begin(self) -> None:
        self.store.remove(SUCCESS)
        self.plan.save(self.store)
        for name in self.store.listing(UNFINISHED):
            self.store.remove(f"{UNFINISHED}/{name}")

    def _do(self, todo: list[Unit]) -> None:
        outcomes = self._outcomes(todo)
        self.progress.begin(todo, len(self.units))
        start = time.monotonic()
        try:
            for outcome in outcomes:
                self._take(outcome)
        except BaseException:
            with suppress(Exception):  # what stopped the job matters more than its last log entries
                self.log.flush()
            raise
        finally:
            self.seconds += time.monotonic() - start
            self.progress.end()
        self.log.flush()

    def _outcomes(self, todo: list[Unit]) -> Iterator[Outcome]:
        if self.client is None:
            return here(todo, self.job, self.retries, self.progress.tick)
        from .cluster import on_cluster
        from .preload import load_on_workers

        load_on_workers(self.client, self.job.stage, self.digests)
        return on_cluster(self.client, todo, self.job, self.retries, self.progress.tick)

    def _take(self, outcome: Outcome) -> None:
        if outcome.verdict == "stop":
            raise JobError(f"{outcome.reason}, then run the same command again: "
                           f"{self.progress.whole} of {self.progress.parts} parts are whole")  # fmt: skip
        if outcome.record:
            self.new[outcome.record.name] = outcome.record
            self.log.add(outcome.record)
        else:
            self.failed[outcome.unit.name] = outcome.reason
        self.progress.finished(outcome)

    def _report(self, notes: list[str]) -> Report:
        failed = {self.units[name].file.address: reason for name, reason in self.failed.items()}
        report = make_report(
            self.store.address, len(self.units), self.whole.values(), self.new.values(), failed, self.seconds
        )
        report.notes = notes
        if self.new or self.failed or self.store.read(REPORT) is None:  # else the last run's stays
            save_report(self.store, report, self.whole.values())
        return report
