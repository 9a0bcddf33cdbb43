"""Models whose code is trusted are pinned to the commits of their files and of their code."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest

from nemo_embed_dask import EmbeddingCreatorStage, ModelError
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.names import MINILM
from nemo_embed_dask.models.pinning import pin

from ..helpers.hub import COMMIT, serving
from ..helpers.own_code import AUTO_MAP, copy_code, make_own

A, B = "a" * 40, "b" * 40
UPSTREAM = {name: f"some/code--{reference}" for name, reference in AUTO_MAP.items()}


def cached(cache, name, commit, branch="main"):
    """Return the folder of a snapshot in a cache, to which a branch refers."""
    root = cache / f"models--{name.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / branch).write_text(commit)
    (root / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
    return root / "snapshots" / commit


def test_the_commit_of_the_cache(tmp_path):
    make_own(cached(tmp_path, "some/model", A))
    make_own(cached(tmp_path, "some/model", B, branch="new"))
    trusted = ModelRef("some/model", cache_dir=str(tmp_path), trust_remote_code=True)
    assert pin(trusted).revision == A
    assert pin(replace(trusted, revision="new")).revision == B
    assert pin(replace(trusted, revision=B)).revision == B
    assert pin(trusted).code_revision is None
    untrusted = ModelRef("some/model", cache_dir=str(tmp_path))
    assert pin(untrusted) is untrusted


def test_directories_and_packages_have_no_commit(tiny, minilm):
    for name in (str(tiny("bert")), MINILM, "/not/on/this/machine"):
        assert pin(ModelRef(name, trust_remote_code=True)) == ModelRef(name, trust_remote_code=True)


def test_the_commit_of_code_in_another_repository(tmp_path):
    path = make_own(tmp_path / "m", auto_map=UPSTREAM, with_code=False)
    ref = ModelRef(str(path), cache_dir=str(tmp_path / "cache"), trust_remote_code=True)
    with pytest.raises(
        ModelError, match="code from the repository 'some/code', whose commit is not known.*code_revision"
    ):
        pin(ref)
    copy_code(cached(tmp_path / "cache", "some/code", A))
    assert pin(ref).code_revision == A
    copy_code(cached(tmp_path / "cache", "some/code", B))
    assert pin(pin(ref)).code_revision == B
    assert pin(replace(ref, code_revision=A)).code_revision == A


def test_code_of_several_repositories_is_refused(tmp_path):
    auto_map = {**UPSTREAM, "AutoConfig": "other/code--configuration_own.OwnConfig"}
    path = make_own(tmp_path / "m", auto_map=auto_map)
    with pytest.raises(ModelError, match=r"several repositories \(other/code, some/code\): copy"):
        pin(ModelRef(str(path), trust_remote_code=True))


def test_a_commit_that_is_not_known(tmp_path):
    with pytest.raises(ModelError, match="model 'no/model' was not found"):
        pin(ModelRef("no/model", cache_dir=str(tmp_path), trust_remote_code=True))


def test_a_stage_holds_the_commits(tmp_path):
    make_own(cached(tmp_path, "some/model", A), auto_map=UPSTREAM, with_code=False)
    copy_code(cached(tmp_path, "some/code", B))
    stage = EmbeddingCreatorStage(
        model_identifier="some/model", cache_dir=str(tmp_path), trust_remote_code=True
    )
    cached(tmp_path, "some/model", "c" * 40)  # a newer commit
    for each in (stage, pickle.loads(pickle.dumps(stage)), *stage.decompose()):
        assert (each.revision, each.code_revision) == (A, B)
        model = each.settings.model
        assert (model.revision, model.trust_remote_code, model.code_revision) == (A, True, B)
    assert EmbeddingCreatorStage(model_identifier="some/model", cache_dir=str(tmp_path)).revision is None


_RUN = """
import json, sys, warnings
import pandas as pd
from nemo_embed_dask import EmbeddingCreatorStage
from nemo_embed_dask.models.hub import find_snapshot

results = []
for name in sys.argv[2:]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stage = EmbeddingCreatorStage(
            model_identifier=name, cache_dir=sys.argv[1], trust_remote_code=True, embedding_pooling="auto", autocast=False
        )
        fetched = find_snapshot(stage.settings.model)
        names = sorted(file.name for file in fetched.iterdir()) if fetched else []
        stage.setup_on_node()
        vectors = stage(pd.DataFrame({"text": ["a b", "c"]})).embeddings.tolist()
    told = [str(one.message) for one in caught if "trust_remote_code" in str(one.message)]
    results.append([stage.revision, stage.code_revision, names, len(vectors[0]), told])
print(json.dumps(results))
"""


def test_models_of_the_hub(tmp_path):
    repositories = {
        "some/own": make_own(tmp_path / "own"),
        "some/upstream": make_own(tmp_path / "upstream", auto_map=UPSTREAM, with_code=False),
        "some/code": tmp_path / "code",
    }
    (tmp_path / "code").mkdir()
    copy_code(tmp_path / "code")
    with serving(repositories) as hub:
        lines = [sys.executable, "-c", _RUN, str(tmp_path / "cache"), "some/own", "some/upstream"]
        variables = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(lines, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        # Another process without a connection finds everything in the cache.
        offline = {**variables, "HF_HUB_OFFLINE": "1"}
        again = subprocess.run(lines, env=offline, capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stderr
    own, upstream = json.loads(done.stdout.splitlines()[-1])
    assert own[:2] == [COMMIT, None] and upstream[:2] == [COMMIT, COMMIT]
    assert own[2] == ["config.json", "tokenizer_config.json"]  # a stage that is made fetches no weights
    assert own[3] == upstream[3] == 32
    assert f"of 'some/own' (commit {COMMIT})" in own[4][0] and len(own[4]) == 1
    assert f"of 'some/code' (commit {COMMIT})" in upstream[4][0]
    assert [each[:2] for each in json.loads(again.stdout.splitlines()[-1])] == [own[:2], upstream[:2]]


def test_without_trust_no_code_is_fetched(tmp_path):
    fetch = (
        "import sys; from nemo_embed_dask.models.locate import ModelRef, find_model; "
        "print(sorted(file.name for file in find_model(ModelRef('some/own', cache_dir=sys.argv[1])).iterdir()))"
    )
    with serving({"some/own": make_own(tmp_path / "own")}) as hub:
        variables = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        lines = [sys.executable, "-c", fetch, str(tmp_path / "cache")]
        done = subprocess.run(lines, env=variables, capture_output=True, text=True, check=True)
    assert "model.safetensors" in done.stdout and ".py" not in done.stdout
