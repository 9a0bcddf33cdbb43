"""Warn once per process about the same thing."""

from __future__ import annotations

import warnings
from collections.abc import Hashable

_given: set[tuple[Hashable, ...]] = set()


def warn_once(*key: Hashable, message: str) -> None:
    """Give a warning, unless one with the same key was given in this process.

    A model is loaded for every partition, and a warning for each would hide the others.

    Parameters
    ----------
    *key
        What the warning is about, such as the model's directory and the kind of warning.
    message : str
    """
    if key not in _given:
        _given.add(key)
        warnings.warn(message, stacklevel=2)
