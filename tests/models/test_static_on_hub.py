"""Static models on the hub and in its cache: complete, completed, or refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.locate import ModelRef, find_model
from nemo_embed_dask.settings import Settings

from ..helpers.hub import COMMIT, serving
from ..helpers.static import TEXTS, make_model2vec, make_st

_FIND = """
import sys
from nemo_embed_dask.models.locate import ModelRef, find_model
for name in ("some/st", "some/m2v"):
    find_model(ModelRef(name, cache_dir=sys.argv[1]))
"""
# What model2vec itself fetches: no modules.json.
_FETCH = """
import sys
from huggingface_hub import snapshot_download
for name in ("some/st", "some/m2v"):
    patterns = ["config.json", "config_sentence_transformers.json", "model.safetensors", "tokenizer.json"]
    snapshot_download(name, cache_dir=sys.argv[1], allow_patterns=patterns)
"""


def _run(code, url, cache):
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, cache], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def repositories(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("repositories")
    make_st(tiny("bert"), path / "st", prompts={"doc": "title: "}, default_prompt_name="doc")
    make_model2vec(tiny("bert"), path / "m2v", normalize=True)
    for name in ("st", "m2v"):
        (path / name / "pytorch_model.bin").write_text("pickled")
    return {"some/st": path / "st", "some/m2v": path / "m2v"}


@pytest.mark.parametrize("cached", [False, True])
def test_what_is_downloaded_is_complete_and_later_used_offline(cached, repositories, tmp_path):
    cache = str(tmp_path)
    with serving(repositories) as hub:
        if cached:
            _run(_FETCH, hub.url, cache)
            for name in repositories:
                with pytest.raises(ModelError, match=r"has only a part of model .*modules\.json"):
                    find_model(ModelRef(name, cache_dir=cache))
        _run(_FIND, hub.url, cache)
        asked = list(hub.requests)
        hub.requests.clear()
        _run(_FIND, hub.url, cache)
        assert hub.requests == []
    assert not [path for path in asked if path.endswith(".bin")]
    for name, path in repositories.items():
        ref = ModelRef(name, cache_dir=cache)
        assert find_model(ref).name == COMMIT
        got, expected = (embed_texts(TEXTS, Settings(r, pooling="auto")) for r in (ref, ModelRef(str(path))))
        np.testing.assert_array_equal(got.matrix, expected.matrix)


def test_a_model_without_its_table_is_refused(repositories, tmp_path):
    files = [file for file in repositories["some/m2v"].iterdir() if file.name != "model.safetensors"]
    (tmp_path / "m").mkdir()
    for file in files:
        (tmp_path / "m" / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["model_type"] == "model2vec"
    with (
        serving({"some/m2v": tmp_path / "m", "some/st": tmp_path / "m"}) as hub,
        pytest.raises(AssertionError, match="has no safetensors weights"),
    ):
        _run(_FIND, hub.url, str(tmp_path / "cache"))


def test_a_pickled_table_is_not_downloaded(repositories, tmp_path):
    path = shutil.copytree(repositories["some/st"], tmp_path / "st")
    (path / "model.safetensors").unlink()
    with serving({"some/st": path, "some/m2v": path}) as hub:
        with pytest.raises(AssertionError, match="has no safetensors weights .* a pickled table is not read"):
            _run(_FIND, hub.url, str(tmp_path / "cache"))
        assert not [name for name in hub.requests if name.endswith(".bin")]
