"""Text to vectors: the composite stage, and `embed`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..mapping import EmbedTask, map_column
from ..models import MINILM
from ..ragged import Side
from .base import Fields, Stage
from .model import EmbeddingModelStage
from .tokenizer import TokenizerStage

_SHARED = ("model_identifier", "hf_token", "padding_side", "revision", "cache_dir", "on_error")


@dataclass(frozen=True, kw_only=True)
class EmbeddingCreatorStage(Stage):
    """Text to vectors in one task a partition: `TokenizerStage` and `EmbeddingModelStage`, fused.

    Parameters
    ----------
    model_identifier : str
        A directory, or a name on the Hugging Face hub.
    text_field, embedding_field : str
        The column read, and the one added: list<float32>, null where the text is.
    max_chars : int, optional
        Characters of a text that are read.
    max_seq_length : int, optional
        Tokens a row, special tokens among them. Default: what the model's card says (256 for MiniLM), where
        Curator takes the tokenizer's ``model_max_length`` (512).
    padding_side : "left" or "right"
        Vectors do not depend on it.
    embedding_pooling : str
        A key of `nemo_embed_dask.pooling.POOLINGS`.
    model_inference_batch_size : int
        Rows a batch at most; batches are cut by tokens long before.
    autocast : bool
        bfloat16 where the hardware has it, else float32; False for float32 always.
    sort_by_length : bool
        Batch rows of similar length together; the order of rows never changes.
    hf_token : str, optional
        For gated models; it stays in this process (other processes read HF_TOKEN).
    revision, cache_dir : str, optional
        Which commit of a hub model, and where the Hugging Face cache is.
    overwrite : bool
        Whether an existing column ``embedding_field`` is replaced.
    on_error : "raise" or "null"
        What a row that cannot be embedded does: stop with its partition and position, or get a null.

    Raises
    ------
    ConfigError
        A parameter cannot work.
    """

    model_identifier: str = MINILM
    text_field: str = "text"
    embedding_field: str = "embeddings"
    max_chars: int | None = None
    max_seq_length: int | None = None
    padding_side: Side = "right"
    embedding_pooling: str = "mean_pooling"
    model_inference_batch_size: int = 1024
    autocast: bool = True
    sort_by_length: bool = True
    hf_token: str | None = field(default=None, repr=False, compare=False)
    revision: str | None = None
    cache_dir: str | None = None
    overwrite: bool = False
    on_error: Literal["raise", "null"] = "raise"

    def inputs(self) -> Fields:
        """Reads the text column."""
        return ["data"], [self.text_field]

    def outputs(self) -> Fields:
        """Adds the vectors."""
        return ["data"], [self.embedding_field]

    def decompose(self) -> list[Stage]:
        """The two stages that this one is made of, every parameter forwarded."""
        shared = {name: getattr(self, name) for name in _SHARED}
        tokenizer = TokenizerStage(
            **shared, text_field=self.text_field, max_chars=self.max_chars,
            max_seq_length=self.max_seq_length, sort_by_length=self.sort_by_length,
        )  # fmt: skip
        model = EmbeddingModelStage(
            **shared, embedding_field=self.embedding_field, pooling=self.embedding_pooling,
            model_inference_batch_size=self.model_inference_batch_size, autocast=self.autocast,
            has_seq_order=self.sort_by_length, overwrite=self.overwrite,
        )  # fmt: skip
        return [tokenizer, model]

    def setup(self, _: Any = None) -> None:
        """Load tokenizer and model into this process."""
        for stage in self.decompose():
            stage.setup()

    def __call__(self, df: Any) -> Any:
        """Add the vectors."""
        task = EmbedTask(self.settings, self.embedding_field)
        return map_column(df, self.text_field, task, overwrite=self.overwrite, label="embed")


def embed(df: Any, **parameters: Any) -> Any:
    """Add an embeddings column: ``ddf.pipe(embed)``.

    Parameters
    ----------
    df : Dask, pandas or cuDF DataFrame
        Lazy in, lazy out: building the graph reads no data and loads no model.
    **parameters
        Those of `EmbeddingCreatorStage`.

    Returns
    -------
    DataFrame
        The same rows, order, index, divisions and columns, and ``embedding_field``: list<float32>.
    """
    return EmbeddingCreatorStage(**parameters)(df)
