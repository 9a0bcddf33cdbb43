"""Names of files that not every file system accepts."""

from __future__ import annotations

import os
import sys

import pytest

# APFS, the file system of macOS, refuses names that are not UTF-8.
ACCEPTS_ANY_BYTES = sys.platform != "darwin"
needs_any_bytes = pytest.mark.skipif(
    not ACCEPTS_ANY_BYTES, reason="macOS refuses file names that are not UTF-8"
)


def not_unicode(name: bytes) -> list[str]:
    """Return the name in a list, which is empty where no file can have it."""
    return [os.fsdecode(name)] if ACCEPTS_ANY_BYTES else []
