"""Adapters with pickled weights, and adapters whose name is that of a directory too."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nemo_embed_dask.checks.reference import reference
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.engine.digests import model_digests
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.files import missing_files, missing_options, model_files
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings

from ..helpers.cards import TEXTS, rewrite
from ..helpers.hub import serving
from ..helpers.versions import NEEDS_PICKLES
from .test_adapter_files import PLAIN, any_peft, base, ours, train  # noqa: F401
from .test_adapters_on_hub import NAMED, set_up

pytestmark = [NEEDS_PICKLES, pytest.mark.filterwarnings("ignore:.*pickled weights are read")]
SAFE, PICKLED = "adapter_model.safetensors", "adapter_model.bin"


def pickle_adapter(path, change=lambda tensors: tensors):
    """Write an adapter's weights as older versions of peft did."""
    torch.save(change(load_file(path / SAFE)), path / PICKLED)
    (path / SAFE).unlink()
    return path


def test_they_have_the_vectors_of_their_safetensors(base, tmp_path):  # noqa: F811
    path = train(base, tmp_path / "adapter")
    expected = ours(path)
    pickle_adapter(path)
    with pytest.warns(UserWarning, match=r"adapter 'adapter' has no safetensors.*adapter_model\.bin"):
        assert np.array_equal(ours(path), expected)
    assert np.array_equal(ours(base, adapter=str(path)), expected)
    assert not np.allclose(ours(base), expected, atol=1e-2)
    np.testing.assert_allclose(reference(TEXTS, Settings(ModelRef(str(path)), **PLAIN)), expected, atol=1e-5)


def test_safetensors_are_preferred(base, tmp_path):  # noqa: F811
    path = train(base, tmp_path / "adapter")
    (path / PICKLED).write_text("not read")
    assert not np.allclose(ours(path), ours(base), atol=1e-2)
    assert model_files([SAFE, PICKLED, "training_args.bin"], [""]) == [SAFE]
    assert model_files([PICKLED, "training_args.bin"], [""]) == [PICKLED]
    assert model_files([PICKLED, "model.safetensors"], [""]) == ["model.safetensors"]


def test_other_content_is_refused(base, tmp_path):  # noqa: F811
    path = pickle_adapter(train(base, tmp_path / "adapter"), lambda tensors: torch.nn.Linear(2, 2))
    with pytest.raises(
        ModelError, match=r"adapter_model\.bin cannot be read as weights alone.*ask its authors"
    ):
        ours(path)


def test_digests_and_the_cache_see_them(base, tmp_path):  # noqa: F811
    path = pickle_adapter(train(base, tmp_path / "adapter"))
    other = pickle_adapter(train(base, tmp_path / "other", seed=4))

    def digests(model, adapter=None):
        return model_digests(Settings(ModelRef(str(model)), adapter=adapter and str(adapter)))

    assert digests(base, path)["adapter"] != digests(base, other)["adapter"]
    assert digests(path)["weights"] != digests(other)["weights"]
    first = ours(base, adapter=str(path))
    shutil.copy(other / PICKLED, path / PICKLED)
    assert not np.allclose(ours(base, adapter=str(path)), first, atol=1e-2)
    assert missing_files(path) == []
    assert SAFE in missing_options(path)
    (path / PICKLED).unlink()
    assert missing_files(path) == [SAFE]


def test_on_the_hub(base, tmp_path):  # noqa: F811
    named = rewrite(train(base, tmp_path / "lora"), tmp_path / "named", adapter_config=NAMED)
    expected = ours(base, adapter=str(named))
    pickle_adapter(named)
    tasks = shutil.copytree(base, tmp_path / "tasks")
    shutil.copytree(named, tasks / "task")
    stages = [
        {"model_identifier": "some/base", "adapter": "some/lora"},
        {"model_identifier": "some/lora"},
        {"model_identifier": "some/tasks", "adapter": "task"},
    ]
    caches = [str(tmp_path / f"cache{i}") for i in range(len(stages))]
    asked = [stage | {"cache_dir": cache} for stage, cache in zip(stages, caches, strict=True)]
    with serving({"some/base": base, "some/lora": named, "some/tasks": tasks}) as hub:
        assert set_up(hub.url, asked) == [None] * 3
        hub.requests.clear()
        assert set_up(hub.url, asked) == [None] * 3
        assert hub.requests == []  # what is cached needs no hub
    for stage, cache in zip(stages, caches, strict=True):
        ref = ModelRef(stage["model_identifier"], cache_dir=cache)
        got = embed_texts(TEXTS, Settings(ref, adapter=stage.get("adapter"), **PLAIN)).matrix
        assert np.array_equal(got, expected)


def test_a_directory_with_a_task_s_name_does_not_hide_the_task(base, tmp_path, monkeypatch):  # noqa: F811
    model = shutil.copytree(base, tmp_path / "model")
    train(base, model / "task")
    (tmp_path / "work" / "task").mkdir(parents=True)
    (tmp_path / "work" / "org" / "name").mkdir(parents=True)
    expected = ours(model, adapter=str(model / "task"))
    monkeypatch.chdir(tmp_path / "work")
    assert np.array_equal(ours(model, adapter="task"), expected)
    assert np.array_equal(ours(model, adapter="task/"), expected)
    for name in ("./task", "org/name"):
        with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
            ours(model, adapter=name)
    train(base, tmp_path / "work" / "task", seed=8)
    assert not np.allclose(ours(model, adapter="task"), expected, atol=1e-2)  # an adapter comes first
