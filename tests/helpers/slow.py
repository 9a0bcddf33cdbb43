"""Mark parameters of tests that run only with ``--slow``, because another parameter runs always."""

from __future__ import annotations

import pytest


def slow(*values: object) -> list[object]:
    """``["bert", *slow("t5")]``: the test of bert always runs, the test of t5 only with ``--slow``."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
