"""Find the ranges that int8 and uint8 columns need, from a sample of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..engine import embed_texts, load_model
from ..engine.calibrated import vector_source
from ..errors import ConfigError
from ..number_types import Calibration, Range
from ..settings import Settings
from ..stages import EmbeddingCreatorStage
from ..vectors.quantization import find_ranges, save_calibration
from .sampling import list_texts


def calibrate(stage: EmbeddingCreatorStage, texts: Sequence[str], path: str | Path) -> Path:
    """Write a calibration file with the ranges that a stage's int8 and uint8 columns need.

    Parameters
    ----------
    stage : EmbeddingCreatorStage
        The model, pooling, prompts and widths are those of this stage; it need not have int8 columns yet.
    texts : sequence of str
        A few thousand of your own texts. Values outside the ranges of this sample will be clipped.
    path : str or Path
        A JSON file, which is overwritten: the ranges at each of the stage's widths, and what they are valid
        for, such as hashes of the model's files.

    Returns
    -------
    Path
        Pass it as ``calibration=`` to a stage.

    Examples
    --------
    >>> texts = ["Whales sing.", "Bread is baked.", "Jazz is played at night."]
    >>> path = calibrate(EmbeddingCreatorStage(embedding_pooling="auto"), texts, "ranges.json")
    >>> EmbeddingCreatorStage(embedding_pooling="auto", embedding_dtype="int8", calibration=path).calibration
    Calibration(widths=(384,))
    """
    # Ranges come from float32 vectors, because int8 vectors cannot be made without ranges.
    if stage.settings.gives_lists:
        raise ConfigError(
            f"calibrate needs one vector per text, and embedding_pooling={stage.embedding_pooling!r} gives "
            "lists, which are stored as float32 or float16 without a calibration"
        )
    texts = list_texts(texts, "calibrate")
    settings = replace(stage.settings, embedding_dtype="float32", extra_outputs=(), long_documents="truncate")
    dims = [stage.truncate_dim, *(output.dim for output in stage.settings.extra_outputs)]
    distinct_dims = dict.fromkeys(dims)
    ranges = tuple(_ranges_of_width(texts, settings, dim) for dim in distinct_dims)
    made_for = tuple(vector_source(settings, load_model(settings)).items())
    save_calibration(path, Calibration(ranges, made_for), rows=len(texts), model=stage.model_identifier)
    return Path(path)


def _ranges_of_width(texts: Sequence[str], settings: Settings, dim: int | None) -> Range:
    out = embed_texts(texts, replace(settings, truncate_dim=dim))
    return find_ranges(out.matrix[out.valid.tolist()])
