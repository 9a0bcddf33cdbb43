"""Snapshots in the Hugging Face cache, as other programs leave them: complete, or completed, or refused."""

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
from nemo_embed_dask.models import hub as hub_module
from nemo_embed_dask.models.locate import ModelRef, find_model
from nemo_embed_dask.models.names import MINILM
from nemo_embed_dask.settings import Settings

from ..helpers.cards import TEXTS, build, reference
from ..helpers.hub import COMMIT, serving
from ..helpers.versions import NEEDS_LISTINGS

# Whether the cache has a list of the files of the repository.
LISTED = [pytest.param(True, marks=NEEDS_LISTINGS), False]
# Makers of caches: what other programs fetch. Each gets the model's name and a cache.
_MAKE = """
import subprocess, sys
from pathlib import Path
from huggingface_hub import snapshot_download
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

def weights(name, cache):
    AutoModel.from_pretrained(name, cache_dir=cache)

def tokenizer(name, cache):
    AutoTokenizer.from_pretrained(name, cache_dir=cache)

def both(name, cache):
    weights(name, cache)
    tokenizer(name, cache)

def selected(name, cache):
    snapshot_download(name, cache_dir=cache, allow_patterns=["*.safetensors", "config.json", "tokenizer*"])

def without_onnx(name, cache):
    snapshot_download(name, cache_dir=cache, ignore_patterns=["onnx/*", "*.bin"])

def sentences(name, cache):
    SentenceTransformer(name, cache_folder=cache)

def whole(name, cache):
    hf = Path(sys.executable).with_name("hf")
    subprocess.run([hf, "download", name, "--cache-dir", cache], check=True, capture_output=True)

root = Path(sys.argv[1])
for make in (weights, tokenizer, both, selected, without_onnx, sentences, whole):
    for name in ("some/cls", "some/plain"):
        make(name, str(root / make.__name__))
weights("sentence-transformers/all-MiniLM-L6-v2", str(root / "weights"))
"""
INCOMPLETE = {
    "weights": ["tokenizer.json", "modules.json"],
    "tokenizer": ["model.safetensors", "modules.json"],
    "both": ["modules.json"],
    "selected": ["modules.json"],
}
COMPLETE = ["without_onnx", "sentences", "whole"]


def _run(code, url, *arguments, offline="0"):
    """Run Python with this hub; return what it prints as JSON."""
    lines = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": offline, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(lines, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None


@pytest.fixture(scope="module")
def repositories(tiny, minilm, tmp_path_factory):
    path = tmp_path_factory.mktemp("repositories")
    prompts = {"prompts": {"doc": "title: "}, "default_prompt_name": "doc"}
    build(tiny("bert"), path / "cls", pooling="cls", dense="tanh", **prompts)
    shutil.copytree(tiny("bert"), path / "plain")
    for name in ("cls", "plain"):
        (path / name / "onnx").mkdir()
        (path / name / "onnx" / "config.json").write_text("{}")
        (path / name / "pytorch_model.bin").write_text("pickled")
        (path / name / ".gitattributes").write_text("*.bin filter=lfs\n")
    return {"some/cls": path / "cls", "some/plain": path / "plain", MINILM: minilm}


@pytest.fixture(scope="module")
def caches(repositories, tmp_path_factory):
    path = tmp_path_factory.mktemp("caches")
    with serving(repositories) as hub:
        _run(_MAKE, hub.url, path)
    return path


@pytest.fixture
def copied(caches, tmp_path):
    """``copied("both")``: a copy of that cache; ``listed=False`` as a hub client left it that kept no listings."""

    def copy(name, *, listed=True):
        shutil.copytree(caches / name, tmp_path / name, symlinks=True)
        for listing in [] if listed else list((tmp_path / name).glob("*/trees")):
            shutil.rmtree(listing)
        return str(tmp_path / name)

    return copy


@pytest.mark.parametrize("listed", LISTED)
@pytest.mark.parametrize("model", ["some/cls", "some/plain"])
@pytest.mark.parametrize("made", INCOMPLETE)
def test_an_incomplete_snapshot_is_refused_offline(made, model, listed, copied):
    ref = ModelRef(model, cache_dir=copied(made, listed=listed))
    if (made, model, listed) == ("selected", "some/plain", True):
        assert find_model(ref).name == COMMIT  # the listing shows that there is no modules.json
        return
    with pytest.raises(ModelError, match="has only a part of model") as caught:
        find_model(ref)
    for text in (*INCOMPLETE[made], COMMIT, f"hf download {model}", "pass it as model_identifier"):
        assert text in str(caught.value)


@pytest.mark.parametrize("listed", LISTED)
@pytest.mark.parametrize("model", ["some/cls", "some/plain"])
@pytest.mark.parametrize("made", COMPLETE)
def test_a_complete_snapshot_is_used_offline(made, model, listed, copied, repositories):
    ref = ModelRef(model, cache_dir=copied(made, listed=listed))
    if (model, listed) == ("some/plain", False) and made in ("whole", "without_onnx"):
        with pytest.raises(ModelError, match=r"does not show whether the model has modules\.json"):
            find_model(ref)  # an interrupted download looks the same
        return
    assert find_model(ref).name == COMMIT
    got = embed_texts(TEXTS, Settings(ref, pooling="auto", autocast=False)).matrix
    np.testing.assert_allclose(got, reference(repositories[model], TEXTS), atol=1e-5)


def test_minilm_comes_from_its_package_if_the_cache_has_only_a_part(caches, minilm):
    assert find_model(ModelRef(MINILM, cache_dir=str(caches / "weights"))) == minilm


_FIND = """
import json, sys
from nemo_embed_dask.models import hub
from nemo_embed_dask.models.locate import ModelRef, find_model

if sys.argv[1] == "old":  # a hub client that keeps no listings
    hub.cached_listing = lambda *_: None
refs = [ModelRef(name, cache_dir=cache) for name in ("some/cls", "some/plain") for cache in sys.argv[2:]]
print(json.dumps([str(find_model(ref)) for ref in refs]))
"""


@pytest.mark.parametrize("client", ["new", "old"])
def test_an_incomplete_snapshot_is_completed_online_and_then_used_offline(
    client, copied, repositories, tmp_path, monkeypatch
):
    paths = [copied(name, listed=client == "new") for name in INCOMPLETE] + [str(tmp_path / "empty")]
    with serving(repositories) as hub:
        found = _run(_FIND, hub.url, client, *paths)
        asked = list(hub.requests)
        hub.requests.clear()
        assert _run(_FIND, hub.url, client, *paths) == found
        assert hub.requests == []  # a complete snapshot needs no hub
    if client == "old":
        monkeypatch.setattr(hub_module, "cached_listing", lambda *_: None)
    assert not [path for path in asked if "onnx" in path or path.endswith(".bin")]
    assert {path.rpartition("/")[2] for path in found} == {COMMIT}
    for name in ("some/cls", "some/plain"):
        for path in paths:
            ref = ModelRef(name, cache_dir=path)
            assert str(find_model(ref)) in found
            got = embed_texts(TEXTS[:2], Settings(ref, pooling="auto", autocast=False)).matrix
            np.testing.assert_allclose(got, reference(repositories[name], TEXTS[:2]), atol=1e-5)


_FAIL = """
import json, sys
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.locate import ModelRef, find_model

def message(name):
    try:
        return str(find_model(ModelRef(name, cache_dir=sys.argv[1])))
    except ModelError as error:
        return str(error)

print(json.dumps([message(name) for name in sys.argv[2:]]))
"""


def test_the_offline_mode_of_the_hub_s_client(caches, repositories):
    with serving(repositories) as hub:
        (refused,) = _run(_FAIL, hub.url, caches / "both", "some/cls", offline="1")
        (found,) = _run(_FAIL, hub.url, caches / "sentences", "some/cls", offline="1")
        assert hub.requests == []
    assert "it does not show whether the model has modules.json" in refused
    assert "OfflineModeIsEnabled" in refused
    assert found.endswith(COMMIT)


def test_what_the_hub_itself_lacks_is_an_error(repositories, tmp_path):
    broken = {}
    for file in ("model.safetensors", "tokenizer.json", "1_Pooling/config.json", "2_Dense/model.safetensors"):
        broken[f"no/{len(broken)}"] = shutil.copytree(repositories["some/cls"], tmp_path / str(len(broken)))
        (tmp_path / str(len(broken) - 1) / file).unlink()
        (tmp_path / str(len(broken) - 1) / "pytorch_model.bin").unlink()
    with serving(broken) as hub:
        messages = _run(_FAIL, hub.url, tmp_path / "cache", *broken, "no/repository")
    assert "has no safetensors weights (model.safetensors)" in messages[0]
    assert "lacks tokenizer.json on the hub" in messages[1]
    assert "lacks 1_Pooling/config.json on the hub" in messages[2]
    assert "has no safetensors weights (2_Dense/model.safetensors)" in messages[3]
    assert "was not found (RepositoryNotFoundError" in messages[4]
