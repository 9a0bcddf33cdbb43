"""Tokens to vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import dask
import numpy as np
import torch

from .. import engine
from ..errors import ConfigError
from ..frames import frame_ops
from ..lists import LIST_COLUMNS
from ..options import option, option_from
from ..ragged import Side
from ..settings import Batching, Computing, Settings, Shared
from ..stage_settings import CuratorNames, VectorColumns
from ..tokens.texts import raise_failures
from ..vectors.head import Head
from ..vectors.pooling import pool, unpad
from .base import ATTENTION_MASK_FIELD, INPUT_ID_FIELD, SEQ_ORDER_FIELD, Names
from .mapping import check_new_columns, map_column
from .padded import PaddedStage
from .padding import without_padding
from .plain_model import load_plain_head
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
    """Tokens to vectors: drops ``input_ids`` and adds ``embedding_field``, ``list<float32>``, unit length.

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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self._has_own_hooks():
            _check_hooks_can(self.settings)

    def setup(self, _: Any = None) -> None:
        """Load the model into this process, and check that the calibration, if there is one, is for it."""
        if self._has_own_hooks():
            super().setup()
            if not self._overrides("process_model_output"):
                object.__setattr__(self, "_head", load_plain_head(self.settings, self._own.model))
            return
        engine.load_runtime(self.settings)
        engine.check_calibration(self.settings)

    def outputs(self) -> Names:
        """Return the names of what the stage adds: the column of vectors."""
        task = ModelTask(self.settings, self.embedding_field)
        return ["data"], [*task.vector_names]

    def __call__(self, df: Any) -> Any:
        """Add the vectors and drop the tokens. Sort by Curator's order column if there is one."""
        if self._has_own_hooks():
            existing = [name for name in df.columns if name not in self._dropped]
            check_new_columns([self.embedding_field], existing, overwrite=self.overwrite)
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

    def _checked(self, collected: Any) -> Any:
        """Raise for vectors that are not finite."""
        matrix = np.asarray(collected, dtype=np.float32)
        wrong = np.flatnonzero(~np.isfinite(matrix).all(axis=tuple(range(1, matrix.ndim))))
        raise_failures(dict.fromkeys(wrong.tolist(), "the hooks gave NaN or infinite values"), self.settings)
        return collected

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
        head = self.__dict__.get("_head")
        if head is not None and name in (self.pooling, head.pooling):
            return cast("torch.Tensor", head(states, offsets))
        if name in LIST_COLUMNS:
            raise ConfigError(f"pooling={name!r} gives no single vector per row; name another pooling")
        if name == "auto":
            head = engine.load_model(self.settings).head
            assert isinstance(head, Head)  # "auto" gives one vector per row
            return head(states, offsets)
        return pool(name, states, offsets, normalize=self.normalize is not False)


def _check_hooks_can(settings: Settings) -> None:
    """Raise if a stage with hooks of its own has a parameter that only the engine applies."""
    wrong = {
        "embedding_dtype": settings.embedding_dtype != "float32",
        "truncate_dim": settings.truncate_dim is not None,
        "extra_embeddings": bool(settings.extra_outputs),
        "calibration": bool(settings.ranges),
        "runtime": settings.runtime != "torch",
        "long_documents": settings.long_documents == "mean",
        "pooling": settings.gives_lists,
        "on_error": settings.on_error == "null",
    }
    name = next((name for name, is_wrong in wrong.items() if is_wrong), None)
    if name is not None:
        raise ConfigError(
            f"a stage that overrides a hook cannot apply {name}; leave it out, or use the stage without hooks"
        )


# EmbeddingModelStage is a ModelStage, as in Curator. It does not inherit from it, because the positions of its
# parameters differ.
ModelStage.register(EmbeddingModelStage)


@parameters("model_identifier", "embedding_field", "pooling", "hf_token", "model_inference_batch_size",
            "has_seq_order", "padding_side", "autocast", "max_seq_length")  # fmt: skip
@dataclass(frozen=True)
class SentenceTransformerEmbeddingModelStage(EmbeddingModelStage):
    """`EmbeddingModelStage` with the model's own pooling, as in Curator; it needs no sentence-transformers."""

    pooling: str = option_from(CuratorNames, "embedding_pooling", default="auto")
