"""Adapters that are named as on the hub: downloaded once, with only their files, and then used offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from nemo_embed_dask import EmbeddingCreatorStage, verify
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models import adapter_files, locate
from nemo_embed_dask.models.card import find_card
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings

from ..helpers.cards import TEXTS, rewrite
from ..helpers.hub import COMMIT, serving
from ..helpers.versions import NEEDS_LISTINGS
from .test_adapter_files import any_peft, base, needs_right_reference, save_adapted, train  # noqa: F401

NAMED = {"base_model_name_or_path": "some/base"}
# Arguments of a stage, by case, and the same model and adapter by their directories.
CASES = {
    "a folder": ({"model_identifier": "some/tasks", "adapter": "retrieval_query"}, ("tasks", "tasks/retrieval_query")),
    "a nested folder": ({"model_identifier": "some/tasks", "adapter": "adapters/other"}, ("tasks", "tasks/adapters/other")),
    "a repository": ({"model_identifier": "some/base", "adapter": "some/lora"}, ("base", "lora")),
    "a revision": ({"model_identifier": "some/base", "adapter": f"some/lora@{COMMIT}"}, ("base", "lora")),
    "a repository, and a directory": ({"model_identifier": "{root}/base", "adapter": "some/lora"}, ("base", "lora")),
    "a model that is an adapter": ({"model_identifier": "some/adapted"}, ("saved", None)),
    "nothing but an adapter": ({"model_identifier": "some/lora"}, ("base", "lora")),
    "a pinned base": ({"model_identifier": "some/pinned"}, ("base", "lora")),
}  # fmt: skip
_SET_UP = """
import json, sys
from nemo_embed_dask import EmbeddingCreatorStage, verify
from nemo_embed_dask.errors import ModelError

def set_up(arguments):
    try:
        EmbeddingCreatorStage(**arguments).setup_on_node()
    except ModelError as error:
        return str(error)

print(json.dumps([set_up(arguments) for arguments in json.loads(sys.argv[1])]))
"""


def set_up(url, arguments):
    lines = [sys.executable, "-c", _SET_UP, json.dumps(arguments)]
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(lines, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def root(base, tmp_path_factory):  # noqa: F811
    path = tmp_path_factory.mktemp("repositories")
    shutil.copytree(base, path / "base")
    shutil.copytree(base, path / "tasks")
    for seed, folder in enumerate(["tasks/retrieval_query", "tasks/separation", "tasks/adapters/other", "own"]):
        train(base, path / folder, seed)
    rewrite(path / "own", path / "lora", adapter_config=NAMED)
    for name in ("optimizer.pt", "training_args.bin"):
        (path / "lora" / name).write_text("large")
    rewrite(path / "lora", path / "pinned", adapter_config={"revision": COMMIT})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "0.17.0")
        save_adapted(base, path / "saved")
    rewrite(path / "saved", path / "adapted", adapter_config=NAMED)
    return path


def repositories(root):
    return {f"some/{name}": root / name for name in ("base", "tasks", "lora", "adapted", "pinned")}


def arguments_of(case, root):
    return {name: value.format(root=root) for name, value in CASES[case][0].items()}


@pytest.fixture(scope="module")
def caches(root, tmp_path_factory):
    """Return a folder with one cache a case, downloaded from a hub."""
    path = tmp_path_factory.mktemp("caches")
    stages = [{**arguments_of(case, root), "cache_dir": str(path / case)} for case in CASES]
    with serving(repositories(root)) as hub:
        assert set_up(hub.url, stages) == [None] * len(CASES)
        hub.requests.clear()
        assert set_up(hub.url, stages) == [None] * len(CASES)
        assert hub.requests == []  # what is cached needs no hub
    return path


def vectors(identifier, adapter=None, cache=None):
    ref = ModelRef(str(identifier), cache_dir=cache and str(cache))
    return embed_texts(TEXTS[:3], Settings(ref, pooling="auto", autocast=False, adapter=adapter)).matrix


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_is_downloaded_once_and_then_used_offline(case, caches, root):
    named = arguments_of(case, root)
    model, adapter = CASES[case][1]
    expected = vectors(root / model, adapter and str(root / adapter))
    got = vectors(named["model_identifier"], named.get("adapter"), caches / case)
    assert np.array_equal(got, expected)
    assert not np.allclose(got, vectors(root / "base"), atol=1e-3)


def test_only_the_files_that_are_used_are_downloaded(caches):
    def cached(case, name):
        snapshot = caches / case / f"models--some--{name}" / "snapshots" / COMMIT
        return {file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*") if file.is_file()}

    files = {"adapter_config.json", "adapter_model.safetensors"}
    assert cached("a repository", "lora") == cached("nothing but an adapter", "lora") == files
    tasks = {name for name in cached("a folder", "tasks") if "adapter_" in name}
    assert tasks == {f"retrieval_query/{name}" for name in files}


def test_a_message_names_the_adapter_and_not_its_commit(caches, root):
    cache = caches / "a folder"
    folder = find_card(ModelRef("some/tasks", cache_dir=str(cache)), "retrieval_query").adapter
    weights = folder / "adapter_model.safetensors"
    content = weights.resolve()
    weights.unlink()
    weights.write_text("damaged")
    with pytest.raises(ModelError, match="adapter='some/tasks/retrieval_query' cannot be read") as error:
        vectors("some/tasks", "retrieval_query", cache)
    weights.unlink()
    weights.symlink_to(content)
    assert COMMIT not in str(error.value)


UNKNOWN = {
    "no adapter": ({"model_identifier": "some/tasks", "adapter": "none"},
                   "adapter='none' .*'some/tasks' has the adapters adapters/other, retrieval_query, separation"),
    "no repository": ({"model_identifier": "some/base", "adapter": "some/none"},
                      r"adapter='some/none' was not found \(RepositoryNotFound.*`hf download some/none`"),
    "no revision": ({"model_identifier": "some/base", "adapter": "some/none@v1"}, "hf download some/none --revision v1`"),
    "not an adapter": ({"model_identifier": "some/base", "adapter": "some/base"},
                       r"was not found \(.*adapter_config\.json and adapter_model\.safetensors"),
    "no base": ({"model_identifier": "some/lost"}, "'some/lost' is a PEFT adapter, and its base model 'some/none'"),
}  # fmt: skip


def test_errors_for_what_the_hub_does_not_have(root, tmp_path):
    lost = rewrite(root / "lora", tmp_path / "lost", adapter_config={"base_model_name_or_path": "some/none"})
    with serving({**repositories(root), "some/lost": lost}) as hub:
        messages = set_up(
            hub.url, [{**arguments, "cache_dir": str(tmp_path)} for arguments, _ in UNKNOWN.values()]
        )
    for message, (_, expected) in zip(messages, UNKNOWN.values(), strict=True):
        with pytest.raises(ModelError, match=expected):
            raise ModelError(message)


@NEEDS_LISTINGS
def test_errors_without_a_connection(caches):
    cache = caches / "a repository"
    with pytest.raises(ModelError, match=r"adapter='some/other' was not found \(.*`hf download some/other`"):
        vectors("some/base", "some/other", cache)
    with pytest.raises(ModelError, match="'some/tasks' has the adapters adapters/other, retrieval_query"):
        vectors("some/tasks", "none", caches / "a folder")
    with pytest.raises(ModelError, match=r"adapter='separation' was not found \(.*hf download some/tasks"):
        vectors("some/tasks", "separation", caches / "a folder")


def test_the_access_token_of_a_stage_is_used_for_its_adapter_and_its_base(base, tmp_path, monkeypatch):  # noqa: F811
    used = {}
    monkeypatch.setattr(
        adapter_files,
        "download_files",
        lambda ref, _names, token, _pickled: used.update({ref.identifier: token}),
    )
    monkeypatch.setattr(locate, "download", lambda ref, token: used.update({ref.identifier: token}))
    path = rewrite(
        train(base, tmp_path / "lora"), tmp_path / "m", adapter_config={"base_model_name_or_path": "a/base"}
    )
    for arguments in ({"model_identifier": str(base), "adapter": "a/lora"}, {"model_identifier": str(path)}):
        stage = EmbeddingCreatorStage(hf_token="secret", cache_dir=str(tmp_path), **arguments)
        with pytest.raises(TypeError):  # nothing was downloaded
            stage.setup_on_node()
    assert used == {"a/lora": "secret", "a/base": "secret"}


@NEEDS_LISTINGS
def test_the_tasks_of_a_repository_are_known_though_they_were_not_downloaded(caches):
    with pytest.warns(UserWarning, match="with one of 'adapters/other', 'retrieval_query', 'separation'"):
        vectors("some/tasks", None, caches / "a folder")


@needs_right_reference
@pytest.mark.parametrize("case", ["a model that is an adapter", "a folder"])
def test_verify_finds_the_base_model_in_the_same_cache(case, caches, root):
    stage = EmbeddingCreatorStage(
        **arguments_of(case, root), cache_dir=str(caches / case), embedding_pooling="auto", autocast=False
    )
    verdict = verify(stage, TEXTS[:3])
    assert verdict.passed
    assert case == "a folder" or verdict.third_opinion > 0.99999, verdict.no_third_opinion
