"""Check that the ranges of int8 and uint8 columns were found in vectors of the same model and settings."""

from __future__ import annotations

from ..errors import ConfigError
from ..settings import Settings
from ..vectors.quantization import CALIBRATED
from .digests import model_digests
from .model import Model, load_model

# The vectors of a text in different number types differ by rounding, about one of the 255 steps of a range: a
# calibration from a machine without bfloat16 is right on one that has it.
_NOT_COMPARED = ("computes_in",)


def vector_source(settings: Settings, model: Model) -> dict[str, str]:
    """Return what decides the vector of a text: the model's files, and the settings that change values.

    Settings that select a part of the text, such as ``max_seq_length``, are left out, because ranges are those
    of a sample of texts in any case.
    """
    head = model.head
    used = {"pooling": head.pooling, "normalize": str(head.normalize), "prompt": model.reader.prompt}
    return {**model_digests(settings), **used}


def check_calibration(settings: Settings, model: Model | None = None) -> None:
    """Check that the ranges of int8 and uint8 columns were found in vectors of these settings.

    Parameters
    ----------
    settings : Settings
    model : Model, optional
        The model of these settings, if the caller has loaded it. Otherwise it is loaded if it is needed.

    Raises
    ------
    ConfigError
        They were found in vectors of another model or settings; the message names all differences.
    """
    dtypes = {settings.embedding_dtype, *(output.dtype for output in settings.extra_outputs)}
    if not settings.ranges or dtypes.isdisjoint(CALIBRATED):
        return
    old, new = dict(settings.calibrated_for), vector_source(settings, model or load_model(settings))
    names = [name for name in {**new, **old} if name not in _NOT_COMPARED and old.get(name) != new.get(name)]
    if names:
        found = "; ".join(
            f"{name} was {_short(old.get(name))} and is {_short(new.get(name))}" for name in names
        )
        raise ConfigError(
            f"the calibration was made for vectors that differ from those of this stage: {found}. Make one for "
            "this stage with calibrate(stage, texts, path), and pass calibration=path"
        )


def _short(value: str | None) -> str:
    """Return the repr of a value; of a hash or another long one, its first and last characters."""
    return repr(value if value is None or len(value) <= 40 else f"{value[:12]}...{value[-12:]}")
