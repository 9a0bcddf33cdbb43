"""Repositories with pickled weights only: what is downloaded, and when a cached one is complete."""

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

from ..helpers.cards import TEXTS, build, rewrite
from ..helpers.hub import COMMIT, serving
from ..helpers.versions import NEEDS_PICKLES
from .test_pickled import pickle_weights

pytestmark = [NEEDS_PICKLES, pytest.mark.filterwarnings("ignore:.*has no safetensors")]
_FIND = """
import sys
from nemo_embed_dask.models.locate import ModelRef, find_model
find_model(ModelRef("some/model", cache_dir=sys.argv[1]))
"""
# A program that knows no safetensors.
_FETCH = """
import sys
from huggingface_hub import hf_hub_download
for name in sys.argv[2].split():
    hf_hub_download("some/model", name, cache_dir=sys.argv[1])
"""


def run(code, url, *arguments):
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def safe(tiny, tmp_path_factory):
    return build(tiny("bert"), tmp_path_factory.mktemp("safe") / "m", pooling="cls", dense="tanh")


def test_they_are_downloaded_and_later_used_offline(safe, tmp_path):
    path = rewrite(safe, tmp_path / "m")
    for folder in (path, path / "2_Dense"):
        pickle_weights(folder)
    (path / "training_args.bin").write_text("not read")
    cache = str(tmp_path / "cache")
    with serving({"some/model": path}) as hub:
        run(_FIND, hub.url, cache)
        asked = {name.partition("main/")[2] or name for name in hub.requests if name.endswith(".bin")}
        hub.requests.clear()
        run(_FIND, hub.url, cache)
        assert hub.requests == []
    assert {name.rpartition(f"{COMMIT}/")[2] for name in asked} == {
        "pytorch_model.bin", "2_Dense/pytorch_model.bin",
    }  # fmt: skip
    ref = ModelRef("some/model", cache_dir=cache)
    got, expected = (embed_texts(TEXTS, Settings(r, pooling="auto")) for r in (ref, ModelRef(str(safe))))
    np.testing.assert_array_equal(got.matrix, expected.matrix)


def test_a_cache_with_pickled_weights_only_gets_the_safetensors(safe, tmp_path):
    path, cache = rewrite(safe, tmp_path / "m"), str(tmp_path / "cache")
    (path / "pytorch_model.bin").write_text("damaged")
    files = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    with serving({"some/model": path}) as hub:
        run(_FETCH, hub.url, cache, " ".join(name for name in files if name != "model.safetensors"))
        with pytest.raises(ModelError, match=r"has only a part .* whether the model has model\.safetensors"):
            find_model(ModelRef("some/model", cache_dir=cache))
        run(_FIND, hub.url, cache)
    found = find_model(ModelRef("some/model", cache_dir=cache))
    assert (found / "model.safetensors").is_file()
