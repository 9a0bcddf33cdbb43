"""Text to vectors: the composite stage, and `embed`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal

from ..models.locate import MINILM
from ..ragged import Side
from ..vectors.quantization import Calibration
from .base import Fields, Stage
from .mapping import map_column
from .model import EmbeddingModelStage
from .tasks import EmbedTask
from .tokenizer import TokenizerStage

_SHARED = ("model_identifier", "hf_token", "max_seq_length", "padding_side", "revision", "cache_dir",
           "on_error", "prompt", "prompt_name", "long_documents", "overlap")  # fmt: skip
_TOKENIZER = ("text_field", "max_chars", "sort_by_length", "n_tokens_field", "truncated_field",
              "tokenizer")  # fmt: skip
_MODEL = ("embedding_field", "model_inference_batch_size", "autocast", "overwrite", "normalize", "truncate_dim",
          "embedding_dtype", "extra_embeddings", "calibration", "share_equal_texts", "runtime",
          "adapter")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EmbeddingCreatorStage(Stage):
    """Text to vectors in one task a partition: `TokenizerStage` and `EmbeddingModelStage`, fused.

    Parameters
    ----------
    model_identifier : str
        A directory, or a name on the Hugging Face hub.
    text_field : str
        The column with the texts; it is never changed.
    embedding_field : str
        The column added: list<float32>, null where the text is.
    max_chars : int, optional
        Characters of a text that are read.
    max_seq_length : int, optional
        Tokens a row, special tokens among them. Default: what the model's card says (256 for MiniLM), where
        Curator takes the tokenizer's ``model_max_length`` (512).
    padding_side : "left" or "right"
        Vectors do not depend on it.
    embedding_pooling : str
        "auto" for the model's own; or a key of `vectors.pooling.POOLINGS`, or several joined by "+".
        The default is Curator's; where it contradicts the model, a warning says so once. Layers behind the
        pooling (Dense, LayerNorm) always run; Curator leaves them out.
    model_inference_batch_size : int
        Rows a batch at most; batches are cut by tokens long before.
    autocast : bool
        bfloat16 where the hardware has it, else float32; False for float32 always.
    sort_by_length : bool
        Batch rows of similar length together; the order of rows never changes.
    hf_token : str, optional
        For gated models; it stays in this process (other processes read HF_TOKEN).
    revision : str, optional
        Which commit of a hub model.
    cache_dir : str, optional
        Where the Hugging Face cache is.
    overwrite : bool
        Whether an existing column ``embedding_field`` is replaced.
    on_error : "raise" or "null"
        What a row that cannot be embedded does: stop with its partition and position, or get a null.
    normalize : bool, optional
        Unit length or as they come. Default: the model's own way if ``embedding_pooling`` is "auto", else unit
        length, as Curator does.
    prompt : str, optional
        What is put before every text, "" for nothing. Default: the model's default prompt, which Curator never
        applies.
    prompt_name : str, optional
        The name of one of the model's own prompts, instead.
    truncate_dim : int, optional
        Leading dimensions that are kept (Matryoshka), scaled to unit length again if vectors have it. Default:
        the model's own under "auto", else all.
    embedding_dtype : str
        float32, float16, int8, uint8, binary or ubinary, as sentence-transformers means them.
    extra_embeddings : tuple of str
        More columns from the same forward, each "name:dtype" or "name:dim:dtype".
    calibration : path or Calibration, optional
        A file written by `nemo_embed_dask.calibrate`: the ranges that int8 and uint8 need. It is read when the
        stage is made; the stage holds its content from then on, a `nemo_embed_dask.Calibration`.
    long_documents : "truncate", "mean" or "explode"
        What happens to texts over the limit: cut; windows averaged, weighted by their tokens; or a row a
        window, with columns ``chunk``, ``char_start`` and ``char_end``.
    overlap : int
        Tokens that a window shares with the one before.
    n_tokens_field : str, optional
        A column to add: how many tokens were read (int64).
    truncated_field : str, optional
        A column to add: whether the text was cut (bool).
    share_equal_texts : bool
        Embed equal texts of a partition once, where there are enough of them.
    runtime : "torch" or "openvino"
        What runs the model; OpenVINO on CPUs only.
    adapter : str, optional
        A directory with a PEFT adapter, merged into the weights at load.
    tokenizer : "auto", "huggingface" or "cudf"
        Who reads the texts: Hugging Face on the host; or, for cuDF frames and BERT's WordPiece, cuDF on the
        GPU, and Hugging Face those rows that cuDF may read otherwise. "auto" is Hugging Face, until a GPU has
        shown that ids are equal in every row of every test corpus.

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
    normalize: bool | None = None
    prompt: str | None = None
    prompt_name: str | None = None
    truncate_dim: int | None = None
    embedding_dtype: str = "float32"
    extra_embeddings: tuple[str, ...] = ()
    calibration: str | os.PathLike[str] | Calibration | None = None
    long_documents: Literal["truncate", "mean", "explode"] = "truncate"
    overlap: int = 0
    n_tokens_field: str | None = None
    truncated_field: str | None = None
    share_equal_texts: bool = True
    runtime: str = "torch"
    adapter: str | None = None
    tokenizer: Literal["auto", "huggingface", "cudf"] = "auto"

    @property
    def task(self) -> EmbedTask:
        """What runs on a partition's text column."""
        return EmbedTask(self.settings, self.embedding_field, self.n_tokens_field, self.truncated_field)

    def inputs(self) -> Fields:
        """Reads the text column."""
        return ["data"], [self.text_field]

    def outputs(self) -> Fields:
        """Adds the vectors, and what else is asked for."""
        return ["data"], [*self.task.names]

    def decompose(self) -> list[Stage]:
        """The two stages that this one is made of, every parameter forwarded."""
        tokenizer = TokenizerStage(**{name: getattr(self, name) for name in (*_SHARED, *_TOKENIZER)})
        model = EmbeddingModelStage(
            **{name: getattr(self, name) for name in (*_SHARED, *_MODEL)},
            pooling=self.embedding_pooling, has_seq_order=self.sort_by_length,
        )  # fmt: skip
        return [tokenizer, model]

    def setup(self, _: Any = None) -> None:
        """Load tokenizer and model into this process."""
        for stage in self.decompose():
            stage.setup()

    def __call__(self, df: Any) -> Any:
        """Add the vectors."""
        return map_column(df, self.text_field, self.task, overwrite=self.overwrite, label="embed")


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
