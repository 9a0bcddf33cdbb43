"""Mark parameters of tests that run only with ``--slow``, because another parameter runs always."""

from __future__ import annotations

import pytest


def slow(*values: object) -> list[object]:
    """``["bert", *slow("t5")]``: the test of bert always runs, the test of t5 only with ``--slow``.

    A tuple has the values of several parameters.
    """
    several = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*one, marks=pytest.mark.slow) for one in several]
