"""The fingerprint of a job: everything that decides its vectors, as JSON; and how two of them differ.

Every parameter of the stage is part of it by its value, unless its declaration in `settings` says
``keeps_vectors`` or ``by_content``: calibration, adapter, model and number type are hashed or resolved.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ...models.names import commit_of, model_name
from ...options import option_of
from ...version import __version__

if TYPE_CHECKING:
    from ...stages import EmbeddingCreatorStage

# The order in which the first version wrote the settings; later ones follow. It decides a manifest's bytes.
_FIRST = (
    *("text_field", "embedding_field", "max_chars", "max_seq_length", "embedding_pooling", "revision"),
    *("normalize", "prompt", "prompt_name", "truncate_dim", "embedding_dtype", "extra_embeddings"),
    *("long_documents", "overlap", "n_tokens_field", "truncated_field", "runtime"),
)
# Version of how rows become parts: raise it if the same input would give another part.
_LAYOUT = 2
Fingerprint = dict[str, Any]


def settings_by_value(stage: type[EmbeddingCreatorStage]) -> list[str]:
    """Return the names of the parameters whose values are part of a fingerprint."""
    names = [
        item.name for item in fields(stage) if not (option_of(item).keeps_vectors or option_of(item).by_content)
    ]
    return [*_FIRST, *(name for name in names if name not in _FIRST)]


def fingerprint(
    stage: EmbeddingCreatorStage, model: dict[str, str], copied_columns: pa.Schema, rows_per_part: int
) -> Fingerprint:
    """Return what decides the vectors and the parts of a job, given the digests of its model."""
    named = Path(stage.model_identifier)
    folder = model_name(named) if commit_of(named) else named.name  # not the commit of a cached model
    settings = {name: getattr(stage, name) for name in settings_by_value(type(stage))}
    settings["calibration"] = digest(stage.settings.ranges) if stage.calibration is not None else None
    whole = {
        "model": {"name": folder if named.is_dir() else stage.model_identifier, **model},
        "settings": settings,
        "columns": {field.name: str(field.type) for field in copied_columns},
        "rows_per_part": rows_per_part,
        "layout": _LAYOUT,
        "nemo_embed_dask": __version__,
    }
    plain: Fingerprint = json.loads(json.dumps(whole, default=repr))
    return plain


def digest(value: Any) -> str:
    """Return a short hash of a value that JSON can represent."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()[:32]


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """Return each field that differs, as ``settings.max_seq_length: 256 before, 128 now``."""
    old, new = dict(_flat(before)), dict(_flat(now))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [f"{name}: {_short(old.get(name))} before, {_short(new.get(name))} now" for name in names]


def _flat(value: Fingerprint, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:16]}…"
