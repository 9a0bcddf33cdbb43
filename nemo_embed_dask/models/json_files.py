"""Read the JSON files of a model, and check the type of each value that is used."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .names import model_file


def load_json(path: Path) -> Any:
    """Return the content of a JSON file, or None if there is no such file."""
    if not os.path.lexists(path):  # what exists but cannot be read is not a missing file
        return None
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{model_file(path)} is not valid JSON ({error}); fetch the model again") from error
    except OSError as error:
        raise ModelError(f"{model_file(path)} cannot be read ({error}); fetch the model again") from error
    if loaded is None:
        raise ModelError(f"{model_file(path)} holds null; fetch the model again")
    return loaded


class JsonObject(dict[str, Any]):
    """An object in a JSON file. Its methods return a value of the right type or raise a ModelError."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.path = path

    def text(self, key: str) -> str | None:
        """Return a string, or None for null and without the key."""
        value = self.get(key)
        return value if value is None or isinstance(value, str) else self._refuse(key, "a string")

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false. As in sentence-transformers null means false, whatever the default is."""
        value = self.get(key, default)
        return bool(value) if value is None or isinstance(value, bool) else self._refuse(key, "true or false")

    def count(self, key: str, minimum: int = 1) -> int | None:
        """Return an integer, or None for null and without the key. 512.0 and 1e30 are integers, true is not."""
        value = self.get(key)
        if value is None:
            return None
        is_integer = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not is_integer or value < minimum:
            self._refuse(key, f"an integer of at least {minimum}")
        return int(value)

    def number(self, key: str, default: float) -> float:
        """Return a number; the default for null and without the key."""
        value = self.get(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(default if value is None else value if is_number else self._refuse(key, "a number"))

    def section(self, key: str) -> JsonObject:
        """Return an object, which is empty for null and without the key."""
        value = self.get(key)
        if value is not None and not isinstance(value, dict):
            self._refuse(key, "an object")
        return JsonObject(self.path, value or {})

    def list_of_text(self, key: str) -> list[str]:
        """Return a list of strings, which is empty for null and without the key."""
        value = self.get(key)
        is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return value or [] if value is None or is_list else self._refuse(key, "a list of strings")

    def require(self, *keys: str) -> None:
        """Raise a ModelError if one of these keys is missing or null."""
        for key in keys:
            if self.get(key) is None:
                raise ModelError(
                    f"{model_file(self.path)} has no {key!r}, which the model needs; fetch the model again"
                )

    def _refuse(self, key: str, expected: str) -> Any:
        raise ModelError(
            f"{model_file(self.path)}: {key!r} is {self[key]!r:.80}, not {expected}; correct the file"
        )


def read_json(path: Path) -> JsonObject:
    """Return the object in a JSON file, or an empty one if there is no such file.

    Raises
    ------
    ModelError
        The file is not valid JSON, or holds something else than an object.
    """
    loaded = load_json(path)
    if loaded is not None and not isinstance(loaded, dict):
        raise ModelError(
            f"{model_file(path)} holds a {type(loaded).__name__}, not a JSON object; fetch the model again"
        )
    return JsonObject(path, loaded or {})
