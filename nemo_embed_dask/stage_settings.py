"""The parameters that only stages have: the model's files, Curator's own names, and the names of columns.

`settings` has the others, and all of them together.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from .number_types import Calibration
from .options import option, required


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Parameters of every stage: the model and where it is. `EmbeddingCreatorStage` has a default model."""

    model_identifier: str = field(
        kw_only=False,
        metadata=required(
            minimum=1,
            by_content=True,
            group="Model",
            common=1,
            help="Directory, or name on the Hugging Face hub.",
        ),
    )
    revision: str | None = option(
        None, minimum=1, group="Model", help="Commit, branch or tag of a model on the hub."
    )
    cache_dir: str | None = option(
        None, minimum=1, keeps_vectors=True, group="Model", help="Hugging Face cache folder."
    )
    trust_remote_code: bool = option(
        False,
        by_content=True,
        group="Model",
        help="Run the Python code of the model's repository, which its files name (``auto_map``), in place of "
        "transformers' own. It can do anything that you can do: read it first. The commit is found when the "
        "stage is made, and all processes run it.",
    )
    code_revision: str | None = option(
        None,
        by_content=True,
        group="Model",
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
        "embeddings",
        minimum=1,
        group="Output",
        common=1,
        help="Column to add: ``list<float32>``, null where the text is null.",
    )
    embedding_pooling: str = option(
        DefaultPooling("mean_pooling"),
        group="Model",
        common=2,
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
        group="Model",
        help="True: the model's own pooling and layers, as with ``embedding_pooling='auto'``. In Curator it is "
        "True by default since 1.2, and ``embedding_pooling`` is then ignored; here they must not differ.",
    )
    hf_token: str | None = option(
        None,
        keeps_vectors=True,
        secret=True,
        group="Model",
        help="Access token for gated models. It stays in this process; other processes read HF_TOKEN.",
    )


@dataclass(frozen=True, kw_only=True)
class TextColumns:
    """Parameters of the tokenizer stage that the engine does not need."""

    text_field: str = option(
        "text", minimum=1, group="Text", common=1, help="Column of the texts. It is never changed."
    )
    n_tokens_field: str | None = option(
        None, minimum=1, group="Output", help="Column to add: how many tokens of the text were read (int64)."
    )
    truncated_field: str | None = option(
        None, minimum=1, group="Output", help="Column to add: whether a text was cut (bool)."
    )


@dataclass(frozen=True, kw_only=True)
class VectorColumns:
    """Parameters of the model stage that the engine does not need."""

    overwrite: bool = option(
        False, keeps_vectors=True, group="Output", help="Replace an existing column with the same name."
    )
    extra_embeddings: tuple[str, ...] = option(
        (),
        group="Output",
        help='More columns from the same forward pass, each "name:dtype" or "name:dim:dtype".',
    )
    calibration: str | os.PathLike[str] | Calibration | None = option(
        None,
        by_content=True,
        group="Output",
        help="File written by `nemo_embed_dask.calibrate`: the ranges that int8 and uint8 need. It is read "
        "when the stage is made; from then on the stage holds its content, a `nemo_embed_dask.Calibration`. "
        "One that was made for another model, adapter, pooling, ``normalize`` or prompt is refused when the "
        "model is loaded.",
    )
