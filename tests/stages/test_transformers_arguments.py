"""Curator's ``transformers_init_kwargs``."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import dask
import pytest
import torch

from nemo_embed_dask import ConfigError, EmbeddingCreatorStage, EmbeddingModelStage, TokenizerStage
from nemo_embed_dask.jobs.units.fingerprint import settings_by_value

from ..helpers.own_code import make_own

STAGES = [EmbeddingCreatorStage, EmbeddingModelStage, TokenizerStage]


def make(stage=EmbeddingCreatorStage, model="some/model", **changes):
    return stage(model_identifier=model, **changes)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("arguments", "meaning"),
    [
        ({}, {}),
        ({"revision": "abc"}, {"revision": "abc"}),
        ({"code_revision": "abc"}, {"code_revision": "abc"}),
        ({"trust_remote_code": False}, {"trust_remote_code": False}),
        ({"dtype": "float32"}, {"autocast": False}),
        ({"torch_dtype": torch.float32}, {"autocast": False}),
        ({"dtype": torch.bfloat16, "attn_implementation": "sdpa"}, {"autocast": True}),
        ({"dtype": "auto", "add_pooling_layer": False, "low_cpu_mem_usage": True, "use_fast": True}, {}),
    ],
)
def test_arguments_that_have_a_meaning(stage, arguments, meaning):
    found = make(stage, transformers_init_kwargs=arguments)
    known = {item.name for item in fields(stage)}
    assert found == make(stage, **{name: value for name, value in meaning.items() if name in known})
    assert found.transformers_init_kwargs is None
    assert hash(found) == hash(pickle.loads(pickle.dumps(found)))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("cache_dir", "/tmp", "pass cache_dir to the stage"),
        ("local_files_only", True, "HF_HUB_OFFLINE"),
        ("padding_side", "left", "pass padding_side"),
        ("token", "hf_secret", "pass hf_token"),
        ("use_auth_token", "hf_secret", "pass hf_token"),
        ("truncate_dim", 3, "pass truncate_dim"),
        ("prompts", {}, "pass prompt "),
        ("quantization_config", {}, "leave it out; trust_remote_code, revision"),
        ("num_labels", 3, "leave it out"),
        ("attn_implementation", "someone/kernel", "leave it out, or pass one of eager, sdpa"),
        ("use_fast", False, "leave it out, or pass one of True"),
        ("dtype", "float16", "or pass 'float32'"),
        ("torch_dtype", torch.float64, "or pass 'float32'"),
    ],
)
def test_arguments_that_have_none_are_refused_by_name(stage, name, value, advice):
    with pytest.raises(ConfigError, match=f"{name}.*{advice}") as caught:
        make(stage, transformers_init_kwargs={name: value})
    assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({"revision": "a"}, {"revision": "b"}),
        ({"trust_remote_code": False}, {"trust_remote_code": True}),
        ({"dtype": "bfloat16"}, {"autocast": False}),
        ({"code_revision": "a"}, {"code_revision": "b"}),
    ],
)
def test_contradictions(arguments, parameters):
    with pytest.raises(ConfigError, match=f"{next(iter(parameters))}=.* contradict each other; pass one"):
        make(transformers_init_kwargs=arguments, **parameters)


def test_the_same_value_twice_is_no_contradiction():
    assert make(transformers_init_kwargs={"revision": "a"}, revision="a").revision == "a"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trust_remote_code", "must be a dict"),
        ({"trust_remote_code": 1}, "trust_remote_code=1 must be True or False"),
        ({"revision": 3}, "revision=3 must be a string"),
    ],
)
def test_values_of_another_type(arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(transformers_init_kwargs=arguments)


def test_they_work_with_everything_that_is_done_with_stages(tmp_path):
    path = str(make_own(tmp_path / "m"))
    stage = make(model=path, transformers_init_kwargs={"trust_remote_code": True, "dtype": "float32"})
    plain = make(model=path, trust_remote_code=True, autocast=False)
    assert dask.base.tokenize(stage) == dask.base.tokenize(plain) != dask.base.tokenize(make(model=path))
    assert replace(stage, text_field="body") == replace(plain, text_field="body")
    assert [part.trust_remote_code for part in stage.decompose()] == [True, True]
    assert stage.decompose()[1].autocast is False
    assert "transformers_init_kwargs" not in settings_by_value(EmbeddingCreatorStage)


def test_two_number_types_that_contradict_each_other():
    for other in ("bfloat16", "auto"):
        for names in (("dtype", "torch_dtype"), ("torch_dtype", "dtype")):
            with pytest.raises(ConfigError, match="dtype and torch_dtype, which contradict"):
                make(transformers_init_kwargs=dict(zip(names, ("float32", other), strict=True)))
    same = {"dtype": "float32", "torch_dtype": torch.float32}
    assert make(transformers_init_kwargs=same) == make(autocast=False)
