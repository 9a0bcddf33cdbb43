"""Stages whose subclasses have code of their own: padded batches and hooks, as in NeMo Curator.

A subclass overrides hooks. `setup` is called once per process. For each partition, `yield_next_batch` gives the
batches, `_model_forward` and `process_model_output` are called for each of them, and then `collect_outputs` and
`create_output_dataframe` once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import dask
import numpy as np
import torch
from dask.dataframe.dispatch import meta_nonempty

from ..errors import ColumnError
from ..frames import frame_ops
from ..options import option_from
from ..ragged import Ragged
from ..settings import Shared
from .base import ATTENTION_MASK_FIELD, INPUT_ID_FIELD, SEQ_ORDER_FIELD, Names, Stage
from .padding import (
    Batch,
    model_device,
    padded_batch,
    read_tokens,
    with_rows_without_tokens,
    with_tokens,
)
from .plain_model import load_plain_model
from .set_up import remember_state, set_up, state_before_setup, undo_setup

HOOKS = (
    "setup",
    "_setup",
    "yield_next_batch",
    "_model_forward",
    "process_model_output",
    "collect_outputs",
    "create_output_dataframe",
    "_mean_pooling",
    "_get_last_token",
)


@dataclass(frozen=True, kw_only=True)
class PaddedStage(Stage):
    """Base of the stages that run a model over the column ``input_ids``, with Curator's hooks.

    ``self.model`` is what `setup` has set. Attributes that `setup` sets are not sent to other processes: each
    process calls it once.
    """

    max_seq_length: int | None = option_from(
        Shared,
        "max_seq_length",
        help='Clip rows of tokens: keep the first ones, or the last ones if ``padding_side`` is "left".',
    )

    # These would have an effect on some kinds of frames only.
    _ignored_overrides: ClassVar[tuple[str, ...]] = ("__call__", "process")

    @property
    def _own(self) -> Any:
        """The stage itself, with the parameters that subclasses declare in Curator's order, and ``model``."""
        return self

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("setup", "_setup"):
            if name in cls.__dict__:
                setattr(cls, name, remember_state(cls.__dict__[name]))

    def __getstate__(self) -> dict[str, Any]:
        return state_before_setup(super().__getstate__()) | {"hf_token": None}

    @remember_state
    def setup(self, _: Any = None) -> None:
        """Load the model into this process, as ``self.model``; a subclass may define `_setup` instead."""
        own = getattr(self, "_setup", None)
        if own is not None:
            own(local_files_only=True)
            return
        object.__setattr__(self, "model", load_plain_model(self.settings))

    def setup_on_node(self, _node_info: Any = None, _worker_metadata: Any = None) -> None:
        """Download the model to this machine; a `_setup` of a subclass may download more."""
        super().setup_on_node(_node_info, _worker_metadata)
        own = getattr(self, "_setup", None)
        if own is not None:
            own(local_files_only=False)

    def teardown(self) -> None:
        """Drop what `setup` has set, of this and of other stages, and unload every model of this process."""
        undo_setup(self)
        super().teardown()

    def inputs(self) -> Names:
        """Return the names of what the stage reads: the token column."""
        return ["data"], [INPUT_ID_FIELD]

    def __call__(self, df: Any) -> Any:
        """Apply the stage with its hooks: at once, or lazily to a Dask DataFrame."""
        return self._run(df)

    def yield_next_batch(self, df: Any) -> Iterator[Batch]:
        """Yield the token ids and masks of a partition, padded, in batches on the model's device.

        Parameters
        ----------
        df : pandas or cuDF DataFrame
            With a column ``input_ids``.
        """
        ids, _, _ = frame_ops(df).read_tokens(df[INPUT_ID_FIELD])
        for start in range(0, len(ids), self._own.model_inference_batch_size):
            rows = ids.take(np.arange(start, min(start + self._own.model_inference_batch_size, len(ids))))
            yield padded_batch(rows, self._own.padding_side, model_device(self._own.model))

    @abstractmethod
    def process_model_output(self, outputs: Any, model_input_batch: Batch | None = None) -> Any:
        """Return the results of a batch: one tensor, or a dict of arrays, with one row per row of the batch."""

    def collect_outputs(self, processed_outputs: list[Any]) -> Any:
        """Return the results of all batches as one: arrays of the same name are joined."""
        names = processed_outputs[0]
        return {name: np.concatenate([found[name] for found in processed_outputs]) for name in names}

    @abstractmethod
    def create_output_dataframe(self, df_cpu: Any, collected_output: Any) -> Any:
        """Return the frame with the results as columns, and in the same order."""

    def output_meta(self, meta: Any) -> Any:
        """Return the stage's result for a frame without rows, for Dask.

        By default the stage runs on one made-up row, which loads the model into the process that builds the
        graph. Override this to avoid that.
        """
        tokens = [name for name in (INPUT_ID_FIELD, ATTENTION_MASK_FIELD) if name in meta.columns]
        row = meta_nonempty(meta.drop(columns=tokens)).iloc[:1]
        one, present = Ragged.from_rows([[1]]), np.ones(1, np.bool_)
        make = frame_ops(row).token_column
        row = row.assign(**{name: make(one, present, index=row.index, name=name) for name in tokens})
        row = row[list(meta.columns)]
        return self._run_hooks(row).iloc[:0]

    def _model_forward(self, model_input_batch: Batch) -> Any:
        return (
            self._own.model(**model_input_batch)
            if self._own.unpack_inference_batch
            else self._own.model(model_input_batch)
        )

    def _run(self, df: Any) -> Any:
        if INPUT_ID_FIELD not in df.columns:
            raise ColumnError(f"there is no column {INPUT_ID_FIELD!r}; apply TokenizerStage first")
        if dask.is_dask_collection(df):
            return df.map_partitions(self._run_hooks, meta=self.output_meta(df._meta), token="model")
        return self._run_hooks(df)

    def _run_hooks(self, df: Any) -> Any:
        if not len(df):
            return self.output_meta(df)
        stage = set_up(self)
        tokens = read_tokens(df, self.max_seq_length, self._own.padding_side, self.settings, stage.model)
        out = stage._run_batches(df.iloc[np.flatnonzero(tokens.valid)], tokens.of_valid_rows())
        out = with_rows_without_tokens(out, df, tokens.valid, self.outputs()[1])
        if self._own.has_seq_order and SEQ_ORDER_FIELD in out.columns:
            out = out.sort_values(SEQ_ORDER_FIELD, ignore_index=True).drop(columns=[SEQ_ORDER_FIELD])
        return self._finish(out)

    def _run_batches(self, df: Any, ids: Ragged) -> Any:
        """Call the hooks for rows that all have tokens."""
        if not len(df):
            return self.output_meta(df)
        has_mask = ATTENTION_MASK_FIELD in df.columns
        df = with_tokens(df, ids, self._own.padding_side, as_blocks=self._overrides("yield_next_batch"))
        uses_gpu = model_device(self._own.model).type == "cuda"
        with torch.inference_mode(), torch.autocast("cuda", enabled=self._own.autocast and uses_gpu):
            batches = self.yield_next_batch(df)
            results = [self.process_model_output(self._model_forward(batch), batch) for batch in batches]
        out = self.create_output_dataframe(df, self._checked(self.collect_outputs(results)))
        is_new = not has_mask and ATTENTION_MASK_FIELD in out.columns
        return out.drop(columns=[ATTENTION_MASK_FIELD]) if is_new else out

    def _checked(self, collected: Any) -> Any:
        """Return the collected results, or raise for rows that cannot be used."""
        return collected

    def _finish(self, out: Any) -> Any:
        """Return the result without columns that are not wanted."""
        return out

    def _has_own_hooks(self) -> bool:
        return any(map(self._overrides, HOOKS))

    def _overrides(self, name: str) -> bool:
        """Return whether a subclass outside of this package defines a method."""
        method = getattr(type(self), name, None)
        return method is not None and not str(method.__module__).startswith("nemo_embed_dask.")
