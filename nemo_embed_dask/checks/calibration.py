"""Ranges for int8 and uint8 from a sample of texts, kept in a file. Knows the engine and no frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..engine import embed_texts
from ..settings import Range, Settings
from ..stages import EmbeddingCreatorStage
from ..vectors import quantization as storage


def calibrate(stage: EmbeddingCreatorStage, texts: Sequence[str], path: str | Path) -> Path:
    """Write the ranges that a stage's int8 and uint8 columns need.

    Parameters
    ----------
    stage : EmbeddingCreatorStage
        Its model, pooling, prompts and widths; it need not ask for int8 yet.
    texts : sequence of str
        The sample, some thousands of your own texts: values outside its ranges are clipped.
    path : str or Path
        A JSON file, written anew: the model, the number of texts, the ranges at each of the stage's widths.

    Returns
    -------
    Path
        To be passed as ``calibration=`` of a stage, which reads it at once.
    """
    # Ranges come from float32 vectors; a stage that asks for int8 could not run without its ranges.
    settings = replace(stage.settings, embedding_dtype="float32", extra_outputs=(), long_documents="truncate")
    dims = [stage.truncate_dim, *(output.dim for output in stage.settings.extra_outputs)]
    ranges = tuple(_ranges(texts, settings, dim) for dim in dict.fromkeys(dims))
    storage.save_ranges(path, ranges, rows=len(texts), model=stage.model_identifier)
    return Path(path)


def _ranges(texts: Sequence[str], settings: Settings, dim: int | None) -> Range:
    out = embed_texts(texts, replace(settings, truncate_dim=dim))
    return storage.find_ranges(out.matrix[out.valid.tolist()])
