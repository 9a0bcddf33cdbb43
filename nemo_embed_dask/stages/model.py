"""Tokens to vectors."""

from __future__ import annotations

import os
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import dask
import numpy as np
import torch

from .. import engine
from ..frames import frame_ops
from ..ragged import Side
from ..vectors.pooling import pool, unpad
from ..vectors.quantization import Calibration
from .base import ATTENTION_MASK_FIELD, INPUT_ID_FIELD, SEQ_ORDER_FIELD, Fields, Stage
from .mapping import map_column
from .tasks import ModelTask


@dataclass(frozen=True)
class ModelStage(Stage):
    """Base of the stages that run a model over the column ``input_ids``.

    Subclasses declare the rest of Curator's parameters, in Curator's order.

    Parameters
    ----------
    model_identifier : str
    max_seq_length : int, optional
        Clip token rows: the first ones are kept, or the last ones if ``padding_side`` is "left".
    revision, cache_dir : str, optional
        Which commit of a hub model, and where the Hugging Face cache is.
    """

    model_identifier: str
    max_seq_length: int | None = field(default=None, kw_only=True)
    revision: str | None = field(default=None, kw_only=True)
    cache_dir: str | None = field(default=None, kw_only=True)

    def inputs(self) -> Fields:
        """Reads the token column."""
        return ["data"], [INPUT_ID_FIELD]

    def setup(self, _: Any = None) -> None:
        """Load the model into this process, once, whatever the number of stages."""
        engine.load_runtime(self.settings)

    @abstractmethod
    def process_model_output(
        self, outputs: Any, model_input_batch: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """One padded batch's model output to one result a row."""

    @abstractmethod
    def collect_outputs(self, processed_outputs: list[torch.Tensor]) -> Any:
        """All batches' results as one."""

    @abstractmethod
    def create_output_dataframe(self, df: Any, collected_output: Any) -> Any:
        """The frame with the results as a column."""


@dataclass(frozen=True)
class EmbeddingModelStage(ModelStage):
    """Tokens to vectors: drops ``input_ids`` and adds ``embedding_field``, list<float32>, unit length.

    Parameters
    ----------
    model_identifier : str
    embedding_field : str
        The new column.
    pooling : str
        A key of `nemo_embed_dask.vectors.pooling.POOLINGS`; Curator has ``mean_pooling`` and ``last_token``.
    hf_token : str, optional
        For gated models; it stays in this process.
    model_inference_batch_size : int
        Rows a batch at most; batches are cut by tokens long before, so that it seldom matters.
    has_seq_order : bool
        Sort rows by length before they are batched. A column ``_curator_seq_order`` is obeyed and dropped.
    padding_side : "left" or "right"
        Where a model that has to be padded is; vectors do not depend on it.
    autocast : bool
        bfloat16 where the hardware has it, else float32. (Curator: float16 on CUDA, which overflows in some
        models.)
    max_seq_length, revision, cache_dir
        See `ModelStage`.
    overwrite : bool
        Whether an existing column of that name is replaced.
    on_error : "raise" or "null"
        What a row without a finite vector does: stop with its position, or get a null.
    prompt, prompt_name, long_documents, overlap, normalize, truncate_dim, embedding_dtype, extra_embeddings,
    calibration, share_equal_texts, runtime, adapter
        See `EmbeddingCreatorStage`. Prompts are already among the tokens; here they say what is not pooled.
    """

    embedding_field: str = "embeddings"
    pooling: str = "mean_pooling"
    hf_token: str | None = field(default=None, repr=False, compare=False)
    model_inference_batch_size: int = 1024
    has_seq_order: bool = True
    padding_side: Side = "right"
    autocast: bool = True
    overwrite: bool = field(default=False, kw_only=True)
    on_error: Literal["raise", "null"] = field(default="raise", kw_only=True)
    prompt: str | None = field(default=None, kw_only=True)
    prompt_name: str | None = field(default=None, kw_only=True)
    long_documents: Literal["truncate", "mean", "explode"] = field(default="truncate", kw_only=True)
    overlap: int = field(default=0, kw_only=True)
    normalize: bool | None = field(default=None, kw_only=True)
    truncate_dim: int | None = field(default=None, kw_only=True)
    embedding_dtype: str = field(default="float32", kw_only=True)
    extra_embeddings: tuple[str, ...] = field(default=(), kw_only=True)
    calibration: str | os.PathLike[str] | Calibration | None = field(default=None, kw_only=True)
    share_equal_texts: bool = field(default=True, kw_only=True)
    runtime: str = field(default="torch", kw_only=True)
    adapter: str | None = field(default=None, kw_only=True)

    _dropped: ClassVar[tuple[str, ...]] = (INPUT_ID_FIELD, ATTENTION_MASK_FIELD, SEQ_ORDER_FIELD)

    def outputs(self) -> Fields:
        """Adds the vectors."""
        return ["data"], [self.embedding_field]

    def __call__(self, df: Any) -> Any:
        """Add the vectors, drop the tokens; restore Curator's order column if there is one."""
        columns = list(df.columns)
        if dask.is_dask_collection(df) and {ATTENTION_MASK_FIELD, SEQ_ORDER_FIELD} & {*columns}:
            return df.map_partitions(self, meta=self(df._meta), token="embed")
        if ATTENTION_MASK_FIELD in columns:
            df = _without_padding(df)
        task = ModelTask(self.settings, self.embedding_field, limit=self.max_seq_length)
        out = map_column(df, INPUT_ID_FIELD, task, overwrite=self.overwrite, label="embed")
        if SEQ_ORDER_FIELD in columns and self.has_seq_order:
            out = out.sort_values(SEQ_ORDER_FIELD, ignore_index=True)
        return out.drop(columns=[name for name in self._dropped if name in columns])

    def process_model_output(
        self, outputs: Any, model_input_batch: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Pool a padded batch: ``outputs[0]``, ``[n, longest, h]``, to float32 ``[n, h]`` of unit length.

        Without ``model_input_batch`` (its ``attention_mask``, ``[n, longest]``) every cell is a token.
        """
        mask = None if model_input_batch is None else model_input_batch[ATTENTION_MASK_FIELD]
        return self._pool(self.pooling, outputs, mask).cpu()

    def collect_outputs(self, processed_outputs: list[torch.Tensor]) -> np.ndarray[Any, Any]:
        """Batches of vectors as one float32 matrix ``[n, d]`` (Curator: nested Python lists)."""
        return torch.cat(processed_outputs).float().numpy()

    def create_output_dataframe(self, df: Any, collected_output: Any) -> Any:
        """The frame with the matrix ``[n, d]`` as its list column, row by row."""
        matrix = np.ascontiguousarray(collected_output, dtype=np.float32)
        column = frame_ops(df).vectors(matrix, None, index=df.index, name=self.embedding_field)
        return df.assign(**{self.embedding_field: column})

    def _mean_pooling(self, model_output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
        """Mean over a padded batch's tokens, unit length."""
        return self._pool("mean_pooling", model_output, attention_mask)

    def _get_last_token(self, model_output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
        """A padded batch's last tokens, whichever side is padded, unit length."""
        return self._pool("last_token", model_output, attention_mask)

    def _pool(self, name: str, model_output: Any, mask: torch.Tensor | None) -> torch.Tensor:
        block = model_output[0]
        states, offsets = unpad(block, torch.ones(block.shape[:2]) if mask is None else mask)
        if name == "auto":
            return engine.load_model(self.settings).head(states, offsets)
        return pool(name, states, offsets, normalize=self.normalize is not False)


def _without_padding(df: Any) -> Any:
    """Curator's padded token lists as ragged ones, by their mask."""
    ops = frame_ops(df)
    ids, valid = ops.ragged(df[INPUT_ID_FIELD])
    mask = ops.ragged(df[ATTENTION_MASK_FIELD])[0]
    kept = mask.values.astype(np.bool_)
    lengths = np.add.reduceat(np.append(kept, False), mask.offsets[:-1]) * (mask.lengths > 0)
    ragged = type(ids).from_lengths(ids.values[kept], lengths)
    column = ops.tokens(ragged, valid, index=df.index, name=INPUT_ID_FIELD)
    return df.assign(**{INPUT_ID_FIELD: column})
