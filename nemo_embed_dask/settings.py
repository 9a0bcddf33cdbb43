"""Every parameter, declared once, in groups.

A new parameter is one field: of `Reading` if only the tokenizer stage needs it, of `Computing` if only the
model stage does, of `Shared` if both do. Checks, command-line flags, docstrings, `decompose` and the
fingerprint of jobs follow.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal

from .lists import LIST_COLUMNS
from .models.locate import ModelRef
from .number_types import Calibration, NumberType, Output, Ranges
from .options import option, option_from, required
from .ragged import Side


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Parameters of the engine that both the tokenizer stage and the model stage need."""

    max_seq_length: int | None = option(
        None,
        minimum=1,
        help="Tokens per row, special tokens included. Default: the limit of the card (256 for MiniLM), with "
        "which the published results were measured; Curator takes the tokenizer's ``model_max_length`` (512).",
    )
    on_error: Literal["raise", "null"] = option(
        "raise",
        keeps_vectors=True,
        help='What to do with a row that cannot be embedded: "raise" stops with an error that names it, '
        '"null" gives it a null vector.',
    )
    prompt: str | None = option(
        None,
        help='Text to put before each text, "" for none. Default: the model\'s default prompt, because its '
        "vectors are made for it; Curator applies none.",
    )
    prompt_name: str | None = option(
        None,
        minimum=1,
        help="Name of one of the model's own prompts, instead of ``prompt``; 'auto' for its prompt for "
        "documents, or none if it has no such prompt. 'query' also chooses the query side of a model with a "
        "Router.",
    )
    long_documents: Literal["truncate", "mean", "explode"] = option(
        "truncate",
        help='What to do with texts over the token limit: "truncate" cuts them, "mean" averages the vectors of '
        'their windows, weighted by tokens, "explode" returns one row per window, with columns ``chunk``, '
        "``char_start`` and ``char_end``.",
    )
    overlap: int = option(
        0,
        minimum=0,
        help='Tokens that a window shares with the one before, for ``long_documents`` "mean" and "explode".',
    )


@dataclass(frozen=True, kw_only=True)
class Batching:
    """Parameters that the engine needs, and that Curator's model stage takes by position."""

    model_inference_batch_size: int = option(
        1024,
        minimum=1,
        keeps_vectors=True,
        help="Most rows per batch, which is limited by tokens too. On a GPU the default, 1024, means 65,535.",
    )
    sort_by_length: bool = option(
        True, keeps_vectors=True, help="Batch rows of similar length together; the row order never changes."
    )
    padding_side: Side = option(
        "right",
        keeps_vectors=True,
        help="No effect on the vectors of texts: models that need padding are padded on the right.",
    )
    autocast: bool = option(
        True,
        by_content=True,
        help="Compute in a 16-bit type of the hardware, else in float32; False: always in float32. On a GPU it "
        "is float16, as in Curator, or bfloat16 for models that float16 does not fit; on a CPU bfloat16.",
    )


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Parameters of the engine that only the tokenizer stage needs."""

    max_chars: int | None = option(None, minimum=1, help="Most characters of a text that are read.")
    tokenizer: Literal["auto", "huggingface", "cudf"] = option(
        "auto",
        keeps_vectors=True,
        help='Library that tokenizes: "huggingface", on the CPU; or "cudf", for cuDF frames and BERT\'s '
        'WordPiece, on the GPU, except for rows that cuDF could tokenize in another way. "auto" is '
        '"huggingface", until a GPU has shown equal ids in every row of every test corpus.',
    )


@dataclass(frozen=True, kw_only=True)
class Computing:
    """Parameters of the engine that only the model stage needs."""

    normalize: bool | None = option(
        None,
        help='Scale vectors to unit length. Default: as the model\'s card says if the pooling is "auto", else '
        "True, as in Curator.",
    )
    truncate_dim: int | None = option(
        None,
        minimum=1,
        help="Leading dimensions to keep (Matryoshka); unit vectors are scaled to unit length again. Default: "
        'the model\'s own if the pooling is "auto", else all.',
    )
    embedding_dtype: NumberType = option(
        "float32", help="Number type of the stored vectors, as sentence-transformers defines it."
    )
    share_equal_texts: bool = option(
        True, keeps_vectors=True, help="Embed equal texts of a partition once, if there are enough of them."
    )
    runtime: Literal["torch", "openvino"] = option(
        "torch", help="Library that runs the model; OpenVINO on CPUs only."
    )
    compile: bool = option(
        False,
        keeps_vectors=True,
        help="With ``runtime='torch'`` on a GPU: compile the model at load, which may take half a minute per "
        "process and needs a C compiler, and use it if it is faster and its states are equal up to rounding.",
    )
    adapter: str | None = option(
        None,
        minimum=1,
        by_content=True,
        help="PEFT adapter to merge: directory, repository (``org/name@revision``), or folder of the model.",
    )


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Parameters of every stage: the model and where it is. `EmbeddingCreatorStage` has a default model."""

    model_identifier: str = field(
        kw_only=False,
        metadata=required(minimum=1, by_content=True, help="Directory, or name on the Hugging Face hub."),
    )
    revision: str | None = option(None, minimum=1, help="Commit, branch or tag of a model on the hub.")
    cache_dir: str | None = option(None, minimum=1, keeps_vectors=True, help="Hugging Face cache folder.")
    trust_remote_code: bool = option(
        False,
        by_content=True,
        help="Run the Python code of the model's repository, which its files name (``auto_map``), in place of "
        "transformers' own. It can do anything that you can do: read it first. The commit is found when the "
        "stage is made, and all processes run it.",
    )
    code_revision: str | None = option(
        None,
        by_content=True,
        help="Commit, branch or tag of the model's code, if it is in another repository than the model. "
        "Default: the newest commit when the stage is made.",
    )
    transformers_init_kwargs: dict[str, Any] | None = option(
        None,
        keeps_vectors=True,
        help="Curator's arguments for ``from_pretrained``. ``trust_remote_code``, ``revision``, "
        "``code_revision`` and ``dtype`` (``autocast``) set these parameters of the stage; "
        "``attn_implementation`` has no effect; others are refused.",
    )


class DefaultPooling(str):
    """The default pooling, which can be told apart from the same name passed by a user."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class CuratorNames:
    """Parameters that only stages need, and that Curator's model stage takes by position."""

    embedding_field: str = option(
        "embeddings", minimum=1, help="Column to add: ``list<float32>``, null where the text is null."
    )
    embedding_pooling: str = option(
        DefaultPooling("mean_pooling"),
        help='"auto" for the model\'s own pooling; a key of `nemo_embed_dask.vectors.pooling.POOLINGS`, of '
        'which Curator has "mean_pooling" and "last_token"; or several joined by "+". "none" gives the vectors '
        'of all tokens, a list of lists per row (ColBERT); "splade" the weights of the vocabulary\'s tokens, '
        "largest first, and their ids in a second column, ``{embedding_field}_ids``. Where it is not the "
        "model's own, a warning is given once. Layers after the pooling (Dense, LayerNorm) always run; Curator "
        "leaves them out.",
    )
    use_sentence_transformer: bool = option(
        False,
        keeps_vectors=True,
        help="True: the model's own pooling and layers, as with ``embedding_pooling='auto'``. In Curator it is "
        "True by default since 1.2, and ``embedding_pooling`` is then ignored; here they must not differ.",
    )
    hf_token: str | None = option(
        None,
        keeps_vectors=True,
        secret=True,
        help="Access token for gated models. It stays in this process; other processes read HF_TOKEN.",
    )


@dataclass(frozen=True, kw_only=True)
class TextColumns:
    """Parameters of the tokenizer stage that the engine does not need."""

    text_field: str = option("text", minimum=1, help="Column of the texts. It is never changed.")
    n_tokens_field: str | None = option(
        None, minimum=1, help="Column to add: how many tokens of the text were read (int64)."
    )
    truncated_field: str | None = option(None, minimum=1, help="Column to add: whether a text was cut (bool).")


@dataclass(frozen=True, kw_only=True)
class VectorColumns:
    """Parameters of the model stage that the engine does not need."""

    overwrite: bool = option(False, keeps_vectors=True, help="Replace an existing column with the same name.")
    extra_embeddings: tuple[str, ...] = option(
        (), help='More columns from the same forward pass, each "name:dtype" or "name:dim:dtype".'
    )
    calibration: str | os.PathLike[str] | Calibration | None = option(
        None,
        by_content=True,
        help="File written by `nemo_embed_dask.calibrate`: the ranges that int8 and uint8 need. It is read "
        "when the stage is made; from then on the stage holds its content, a `nemo_embed_dask.Calibration`. "
        "One that was made for another model, adapter, pooling, ``normalize`` or prompt is refused when the "
        "model is loaded.",
    )


@dataclass(frozen=True)
class Settings(Computing, Reading, Batching, Shared):
    """Everything that the engine needs to compute vectors: no names of columns, and no secrets."""

    model: ModelRef
    pooling: str = option_from(CuratorNames, "embedding_pooling")
    extra_outputs: tuple[Output, ...] = ()
    ranges: Ranges = ()
    calibrated_for: tuple[tuple[str, str], ...] = ()

    @property
    def gives_lists(self) -> bool:
        """Whether the pooling gives a list per row instead of one vector."""
        return self.pooling in LIST_COLUMNS
