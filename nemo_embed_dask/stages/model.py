"""Tokens to vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import dask
import numpy as np
import torch

from .. import engine
from ..errors import ConfigError
from ..frames import frame_ops
from ..lists import LIST_COLUMNS
from ..options import option, option_from
from ..ragged import Side
from ..settings import Batching, Computing, CuratorNames, Shared, VectorColumns
from ..vectors.head import Head
from ..vectors.pooling import pool, unpad
from .base import ATTENTION_MASK_FIELD, INPUT_ID_FIELD, SEQ_ORDER_FIELD, Names
from .mapping import map_column
from .padded import PaddedStage
from .padding import without_padding
from .signature import parameters
from .tasks import ModelTask

_ORDER_HELP = (
    "Sort the rows by the column ``_curator_seq_order`` of Curator's tokenizer stage, if there is one."
)


@parameters("model_identifier", "hf_token", "model_inference_batch_size", "has_seq_order", "padding_side",
            "max_seq_length", "unpack_inference_batch", "autocast")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class ModelStage(PaddedStage):
    """Base for stages of your own that run a model over the column ``input_ids``, as in Curator.

    A subclass defines `outputs`, `process_model_output` and `create_output_dataframe`, and may define the other
    hooks of `padded.HOOKS`. Rows are padded, in batches of ``model_inference_batch_size`` rows. A row without
    tokens has null results. For Dask it may define `output_meta`.
    """

    hf_token: str | None = option_from(CuratorNames, "hf_token")
    model_inference_batch_size: int = option_from(
        Batching, "model_inference_batch_size", default=256, help="Most rows per batch."
    )
    has_seq_order: bool = option_from(Batching, "sort_by_length", help=_ORDER_HELP)
    padding_side: Side = option_from(Batching, "padding_side", help="Side on which rows are padded.")
    unpack_inference_batch: bool = option(
        False, help="Call the model with keyword arguments, ``model(**batch)``, and not with the batch."
    )
    autocast: bool = option_from(Batching, "autocast", help="Run the model under torch.autocast on a GPU.")


@parameters("model_identifier", "embedding_field", "pooling", "hf_token", "model_inference_batch_size",
            "has_seq_order", "padding_side", "autocast", "max_seq_length")  # fmt: skip
@dataclass(frozen=True)
class EmbeddingModelStage(PaddedStage, VectorColumns, Computing, Shared):
    """Tokens to vectors: drops ``input_ids`` and adds ``embedding_field``, list<float32>, unit length.

    If a subclass overrides one of Curator's hooks, rows run in padded batches, see `ModelStage`.
    Prompts are already among the tokens; ``prompt`` and ``prompt_name`` say which tokens are not pooled.
    A column ``_curator_seq_order`` restores the order of the rows, and is dropped.
    """

    # By position, in Curator's order.
    embedding_field: str = option_from(CuratorNames, "embedding_field")
    pooling: str = option_from(CuratorNames, "embedding_pooling")
    hf_token: str | None = option_from(CuratorNames, "hf_token")
    model_inference_batch_size: int = option_from(Batching, "model_inference_batch_size")
    has_seq_order: bool = option_from(Batching, "sort_by_length", help=_ORDER_HELP)
    padding_side: Side = option_from(Batching, "padding_side")
    autocast: bool = option_from(Batching, "autocast")

    unpack_inference_batch: ClassVar[bool] = True
    _dropped: ClassVar[tuple[str, ...]] = (INPUT_ID_FIELD, ATTENTION_MASK_FIELD, SEQ_ORDER_FIELD)

    def setup(self, _: Any = None) -> None:
        """Load the model into this process, and check that the calibration, if there is one, is for it."""
        if self._has_own_hooks():
            super().setup()
            return
        engine.load_runtime(self.settings)
        engine.check_calibration(self.settings)

    def outputs(self) -> Names:
        """Return the names of what the stage adds: the column of vectors."""
        return ["data"], [self.embedding_field]

    def __call__(self, df: Any) -> Any:
        """Add the vectors and drop the tokens. Sort by Curator's order column if there is one."""
        if self._has_own_hooks():
            return self._run(df)
        columns = list(df.columns)
        from_curator = ATTENTION_MASK_FIELD in columns or SEQ_ORDER_FIELD in columns
        if from_curator and dask.is_dask_collection(df):  # padding and order are those of one partition
            return df.map_partitions(self, meta=self(df._meta), token="embed")
        if ATTENTION_MASK_FIELD in columns:
            df = without_padding(df, self.settings)
        task = ModelTask(self.settings, self.embedding_field, limit=self.max_seq_length)
        out = map_column(df, INPUT_ID_FIELD, task, overwrite=self.overwrite, label="embed")
        if SEQ_ORDER_FIELD in columns and self.has_seq_order:
            out = out.sort_values(SEQ_ORDER_FIELD, ignore_index=True)
        return out.drop(columns=[name for name in self._dropped if name in columns])

    def output_meta(self, meta: Any) -> Any:
        """Return the result for a frame without rows; loads no model unless a subclass makes the frame."""
        if self._overrides("create_output_dataframe"):
            return super().output_meta(meta)
        return self._finish(self.create_output_dataframe(meta.iloc[:0], np.empty((0, 1))))

    def _finish(self, out: Any) -> Any:
        return out.drop(columns=[name for name in self._dropped if name in out.columns])

    def process_model_output(
        self, outputs: Any, model_input_batch: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Pool a padded batch: ``outputs[0]``, ``[n, longest, h]``, to float32 ``[n, h]`` of unit length.

        Without ``model_input_batch`` (its ``attention_mask``, ``[n, longest]``) every position is a token.
        """
        mask = None if model_input_batch is None else model_input_batch[ATTENTION_MASK_FIELD]
        if mask is None:
            mask = torch.ones(outputs[0].shape[:2])
        own = {"mean_pooling": self._mean_pooling, "last_token": self._get_last_token}.get(self.pooling)
        return (own(outputs, mask) if own else self._pool(self.pooling, outputs, mask)).cpu()

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

    def _pool(self, name: str, model_output: Any, mask: torch.Tensor) -> torch.Tensor:
        """Return the pooled rows of a padded batch."""
        states, offsets = unpad(model_output[0], mask)
        if name in LIST_COLUMNS:
            raise ConfigError(f"pooling={name!r} gives no single vector per row; name another pooling")
        if name == "auto":
            head = engine.load_model(self.settings).head
            assert isinstance(head, Head)  # "auto" gives one vector per row
            return head(states, offsets)
        return pool(name, states, offsets, normalize=self.normalize is not False)


# EmbeddingModelStage is a ModelStage, as in Curator. It does not inherit from it, because the positions of its
# parameters differ.
ModelStage.register(EmbeddingModelStage)


@parameters("model_identifier", "embedding_field", "pooling", "hf_token", "model_inference_batch_size",
            "has_seq_order", "padding_side", "autocast", "max_seq_length")  # fmt: skip
@dataclass(frozen=True)
class SentenceTransformerEmbeddingModelStage(EmbeddingModelStage):
    """`EmbeddingModelStage` with the model's own pooling, as in Curator; it needs no sentence-transformers."""

    pooling: str = option_from(CuratorNames, "embedding_pooling", default="auto")
