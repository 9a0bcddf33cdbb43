"""Tokens to vectors."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import dask
import numpy as np
import torch

from .. import engine
from ..errors import ConfigError
from ..frames import frame_ops
from ..lists import LIST_COLUMNS
from ..options import option_from
from ..ragged import Side
from ..settings import Batching, Computing, CuratorNames, Settings, Shared, VectorColumns
from ..tokens.texts import raise_failures
from ..vectors.head import Head
from ..vectors.pooling import pool, unpad
from .base import ATTENTION_MASK_FIELD, INPUT_ID_FIELD, SEQ_ORDER_FIELD, Names, Stage
from .mapping import map_column
from .signature import parameters
from .tasks import ModelTask

_CLIP_HELP = 'Clip rows of tokens: keep the first ones, or the last ones if ``padding_side`` is "left".'


@parameters("model_identifier", "max_seq_length")
@dataclass(frozen=True, kw_only=True)
class ModelStage(Stage):
    """Base of the stages that run a model over the column ``input_ids``.

    Subclasses declare the rest of Curator's parameters, in Curator's order.
    """

    max_seq_length: int | None = option_from(Shared, "max_seq_length", help=_CLIP_HELP)

    def inputs(self) -> Names:
        """Return the names of what the stage reads: the token column."""
        return ["data"], [INPUT_ID_FIELD]

    def setup(self, _: Any = None) -> None:
        """Load the model into this process. Stages with the same model share it."""
        engine.load_runtime(self.settings)

    @abstractmethod
    def process_model_output(
        self, outputs: Any, model_input_batch: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Return one result per row from the model's output for a padded batch."""

    @abstractmethod
    def collect_outputs(self, processed_outputs: list[torch.Tensor]) -> Any:
        """Return the results of all batches as one."""

    @abstractmethod
    def create_output_dataframe(self, df: Any, collected_output: Any) -> Any:
        """Return the frame with the results as a column."""


@parameters("model_identifier", "embedding_field", "pooling", "hf_token", "model_inference_batch_size",
            "has_seq_order", "padding_side", "autocast", "max_seq_length")  # fmt: skip
@dataclass(frozen=True)
class EmbeddingModelStage(ModelStage, VectorColumns, Computing, Shared):
    """Tokens to vectors: drops ``input_ids`` and adds ``embedding_field``, list<float32>, unit length.

    Prompts are already among the tokens; ``prompt`` and ``prompt_name`` say which tokens are not pooled.
    A column ``_curator_seq_order`` restores the order of the rows, and is dropped.
    """

    # By position, in Curator's order.
    embedding_field: str = option_from(CuratorNames, "embedding_field")
    pooling: str = option_from(CuratorNames, "embedding_pooling")
    hf_token: str | None = option_from(CuratorNames, "hf_token")
    model_inference_batch_size: int = option_from(Batching, "model_inference_batch_size")
    has_seq_order: bool = option_from(Batching, "sort_by_length")
    padding_side: Side = option_from(Batching, "padding_side")
    autocast: bool = option_from(Batching, "autocast")

    _dropped: ClassVar[tuple[str, ...]] = (INPUT_ID_FIELD, ATTENTION_MASK_FIELD, SEQ_ORDER_FIELD)

    def setup(self, _: Any = None) -> None:
        """Load the model into this process, and check that the calibration, if there is one, is for it."""
        super().setup()
        engine.check_calibration(self.settings)

    def outputs(self) -> Names:
        """Return the names of what the stage adds: the column of vectors."""
        return ["data"], [self.embedding_field]

    def __call__(self, df: Any) -> Any:
        """Add the vectors and drop the tokens. Sort by Curator's order column if there is one."""
        columns = list(df.columns)
        from_curator = ATTENTION_MASK_FIELD in columns or SEQ_ORDER_FIELD in columns
        if from_curator and dask.is_dask_collection(df):  # padding and order are those of one partition
            return df.map_partitions(self, meta=self(df._meta), token="embed")
        if ATTENTION_MASK_FIELD in columns:
            df = _without_padding(df, self.settings)
        task = ModelTask(self.settings, self.embedding_field, limit=self.max_seq_length)
        out = map_column(df, INPUT_ID_FIELD, task, overwrite=self.overwrite, label="embed")
        if SEQ_ORDER_FIELD in columns and self.has_seq_order:
            out = out.sort_values(SEQ_ORDER_FIELD, ignore_index=True)
        return out.drop(columns=[name for name in self._dropped if name in columns])

    def process_model_output(
        self, outputs: Any, model_input_batch: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Pool a padded batch: ``outputs[0]``, ``[n, longest, h]``, to float32 ``[n, h]`` of unit length.

        Without ``model_input_batch`` (its ``attention_mask``, ``[n, longest]``) every position is a token.
        """
        mask = None if model_input_batch is None else model_input_batch[ATTENTION_MASK_FIELD]
        return self._pool(self.pooling, outputs, mask).cpu()

    def collect_outputs(self, processed_outputs: list[torch.Tensor]) -> np.ndarray[Any, Any]:
        """Return the vectors of all batches as one float32 matrix ``[n, d]`` (Curator: nested lists)."""
        return torch.cat(processed_outputs).float().numpy()

    def create_output_dataframe(self, df: Any, collected_output: Any) -> Any:
        """Return the frame with the rows of the matrix ``[n, d]`` as a list column."""
        matrix = np.ascontiguousarray(collected_output, dtype=np.float32)
        column = frame_ops(df).vector_column(matrix, None, index=df.index, name=self.embedding_field)
        return df.assign(**{self.embedding_field: column})

    def _mean_pooling(self, model_output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the mean of each row's tokens in a padded batch, scaled to unit length."""
        return self._pool("mean_pooling", model_output, attention_mask)

    def _get_last_token(self, model_output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return each row's last token in a batch padded on either side, scaled to unit length."""
        return self._pool("last_token", model_output, attention_mask)

    def _pool(self, name: str, model_output: Any, mask: torch.Tensor | None) -> torch.Tensor:
        """Return the pooled rows of a padded batch; without a mask, every position is a token."""
        padded = model_output[0]
        if mask is None:
            mask = torch.ones(padded.shape[:2])
        states, offsets = unpad(padded, mask)
        if name in LIST_COLUMNS:
            raise ConfigError(f"pooling={name!r} gives no single vector per row; name another pooling")
        if name == "auto":
            head = engine.load_model(self.settings).head
            assert isinstance(head, Head)  # "auto" gives one vector per row
            return head(states, offsets)
        return pool(name, states, offsets, normalize=self.normalize is not False)


def _without_padding(df: Any, settings: Settings) -> Any:
    """Remove the padding from the token lists of Curator's tokenizer stage, by their mask."""
    ops = frame_ops(df)
    ids, valid, failures = ops.read_tokens(df[INPUT_ID_FIELD])
    mask, _, mask_failures = ops.read_tokens(df[ATTENTION_MASK_FIELD])
    differ = np.flatnonzero(ids.lengths != mask.lengths).tolist()
    failures = dict.fromkeys(differ, "its token ids and its mask differ in length") | mask_failures | failures
    raise_failures(failures, settings)
    failed = np.isin(np.arange(len(ids)), list(failures))
    ids, mask, valid = ids.without(failed), mask.without(failed), valid & ~failed
    kept = mask.values.astype(np.bool_)
    # For an empty row reduceat returns the value at its offset instead of 0. The appended value is for empty
    # rows at the end, whose offset is the number of values.
    lengths = np.add.reduceat(np.append(kept, False), mask.offsets[:-1]) * (mask.lengths > 0)
    ragged = type(ids).from_lengths(ids.values[kept], lengths)
    column = ops.token_column(ragged, valid, index=df.index, name=INPUT_ID_FIELD)
    return df.assign(**{INPUT_ID_FIELD: column})
