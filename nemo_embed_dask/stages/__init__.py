"""The stages, under NeMo Curator's names, parameters and defaults, for Dask, pandas and cuDF frames.

A stage is a frozen configuration; calling it maps it over a frame. The docstrings of stages name the defaults
and the behaviour that differ from Curator's.
"""

from .base import ATTENTION_MASK_FIELD, INPUT_ID_FIELD, SEQ_ORDER_FIELD, Stage
from .creator import EmbeddingCreatorStage, embed
from .model import EmbeddingModelStage, ModelStage, SentenceTransformerEmbeddingModelStage
from .tokenizer import TokenizerStage

__all__ = [
    "ATTENTION_MASK_FIELD",
    "INPUT_ID_FIELD",
    "SEQ_ORDER_FIELD",
    "EmbeddingCreatorStage",
    "EmbeddingModelStage",
    "ModelStage",
    "SentenceTransformerEmbeddingModelStage",
    "Stage",
    "TokenizerStage",
    "embed",
]
