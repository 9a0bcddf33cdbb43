"""Late interaction models on the hub: all files that decide vectors are downloaded, and known when offline."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.locate import ModelRef, find_model
from nemo_embed_dask.settings import Settings

from ..helpers.cards import TEXTS
from ..helpers.colberts import multi_vector, pylate, reference, stanford
from ..helpers.hub import serving

_FIND = """
import sys
from nemo_embed_dask.models.locate import ModelRef, find_model
find_model(ModelRef("some/model", cache_dir=sys.argv[1]))
"""
# What AutoModel and AutoTokenizer fetch.
_FETCH = """
import sys
from huggingface_hub import snapshot_download
patterns = ["config.json", "model.safetensors", "tokenizer*.json"]
snapshot_download("some/model", cache_dir=sys.argv[1], allow_patterns=patterns)
"""


def run(code, url, cache):
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", code, cache]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("make", [multi_vector, pylate, stanford])
def test_what_is_downloaded_is_complete_and_later_used_offline(make, tiny, tmp_path):
    path, cache = make(tiny("bert"), tmp_path / "m"), str(tmp_path / "cache")
    with serving({"some/model": path}) as hub:
        run(_FIND, hub.url, cache)
    settings = Settings(ModelRef("some/model", cache_dir=cache), pooling="none", autocast=False)
    lists = embed_texts(TEXTS, settings).lists
    expected = reference(path, TEXTS)
    assert np.diff(lists.offsets).tolist() == [len(row) for row in expected]
    np.testing.assert_allclose(lists.columns[""], np.concatenate(expected), atol=1e-5)


def test_a_cache_without_the_settings_of_stanford_is_not_complete(tiny, tmp_path):
    path, cache = stanford(tiny("bert"), tmp_path / "m"), str(tmp_path / "cache")
    with serving({"some/model": path}) as hub:
        run(_FETCH, hub.url, cache)
    ref = ModelRef("some/model", cache_dir=cache)
    with pytest.raises(ModelError, match=r"artifact\.metadata"):
        find_model(ref)
    with serving({"some/model": path}) as hub:
        run(_FIND, hub.url, cache)
    assert (find_model(ref) / "artifact.metadata").is_file()
