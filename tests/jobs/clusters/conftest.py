from __future__ import annotations

import pytest

from nemo_embed_dask.jobs.clusters import preload


@pytest.fixture(autouse=True)
def no_early_messages(monkeypatch):
    """A slow machine loads a model in more than 10 s; the messages that a test expects do not depend on that."""
    monkeypatch.setattr(preload, "_FIRST_S", 60)
