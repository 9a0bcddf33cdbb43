"""Adapters in folders of a model's own repository, in the layout of jinaai/jina-embeddings-v3-hf."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
import transformers

from nemo_embed_dask import EmbeddingCreatorStage, calibrate, verify
from nemo_embed_dask.checks.reference import reference
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.engine.digests import model_digests
from nemo_embed_dask.errors import ConfigError, JobError, ModelError
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings

from ..helpers import faults
from ..helpers.cards import TEXTS, rewrite
from ..helpers.jobs import run_again
from ..helpers.tiny import make_tokenizer
from ..helpers.versions import needs

pytestmark = pytest.mark.filterwarnings("ignore:.*has adapters for tasks")
TASKS = ("retrieval_query", "retrieval_passage", "separation", "classification", "text_matching")
# What the published files say, with smaller sizes; "dense" is the pooler's.
CONFIG = {
    "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2,
    "max_position_embeddings": 8194, "position_embedding_type": "rotary", "rotary_emb_base": 20000.0,
    "type_vocab_size": 1, "lora_adaptations": [task.replace("_", ".") for task in TASKS], "lora_rank": 4,
    "lora_alpha": 1, "load_trained_adapters": True, "emb_pooler": None, "truncate_dim": None,
    "use_flash_attn": True, "lora_main_params_trainable": False, "matryoshka_dimensions": [32],
}  # fmt: skip
ADAPTER = {
    "peft_type": "LORA", "base_model_name_or_path": None, "r": 4, "lora_alpha": 1, "lora_dropout": 0.0,
    "target_modules": ["word_embeddings", "token_type_embeddings", "q_proj", "k_proj", "v_proj", "o_proj", "fc1",
                       "fc2", "dense"],
}  # fmt: skip


def make_jina(path):
    tokenizer = make_tokenizer("unigram")
    config = transformers.JinaEmbeddingsV3Config(vocab_size=len(tokenizer), pad_token_id=1, **CONFIG)
    torch.manual_seed(0)
    transformers.JinaEmbeddingsV3Model(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    (path / "config.json").write_text(json.dumps({**json.loads((path / "config.json").read_text()), **CONFIG}))
    for seed, task in enumerate(TASKS):
        torch.manual_seed(seed)
        options = {name: value for name, value in ADAPTER.items() if name != "peft_type"}
        adapted = peft.get_peft_model(transformers.AutoModel.from_pretrained(path), peft.LoraConfig(**options))
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) / 5)
        adapted.save_pretrained(path / task)
        (path / task / "adapter_config.json").write_text(json.dumps(ADAPTER))
    return path


@pytest.fixture(scope="module")
def jina(tmp_path_factory):
    return make_jina(tmp_path_factory.mktemp("jina") / "jina-embeddings-v3-hf")


def settings(path, adapter=None):
    return Settings(ModelRef(str(path)), adapter=adapter, autocast=False)


def ours(path, adapter=None):
    return embed_texts(TEXTS, settings(path, adapter)).matrix


def theirs(path, task, monkeypatch):
    """Return the vectors of the authors' example: transformers' load_adapter, mean pooling, unit length."""
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "0.17.0")
    model = transformers.AutoModel.from_pretrained(path, dtype=torch.float32)
    if task is not None:
        model.load_adapter(str(path), adapter_name=task, adapter_kwargs={"subfolder": task})
        model.set_adapter(task)
    model.eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    with torch.inference_mode():
        rows = [model(**tokenizer(text, return_tensors="pt", truncation=True))[0][0].mean(0) for text in TEXTS]
    return torch.nn.functional.normalize(torch.stack(rows), dim=1).numpy()


@needs("peft", "0.19", "load_adapter of transformers works with no older one")
@pytest.mark.parametrize("task", TASKS)
def test_a_task_gives_the_vectors_of_transformers_load_adapter(task, jina, monkeypatch):
    got, expected = ours(jina, task), theirs(jina, task, monkeypatch)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert not np.allclose(got, ours(jina), atol=1e-3)
    np.testing.assert_allclose(reference(TEXTS, settings(jina, task)), expected, atol=1e-5)


def test_without_a_task_the_vectors_are_those_of_the_base(jina, monkeypatch):
    np.testing.assert_allclose(ours(jina), theirs(jina, None, monkeypatch), atol=1e-5)


def test_the_spelling_of_the_authors_older_repository(jina):
    assert np.array_equal(ours(jina, "retrieval.query"), ours(jina, "retrieval_query"))
    assert np.array_equal(ours(jina, "text-matching"), ours(jina, "text_matching"))


def test_error_for_a_task_that_the_model_does_not_have(jina, tiny):
    names = "classification, retrieval_passage, retrieval_query, separation, text_matching"
    with pytest.raises(ModelError, match=rf"adapter='retrieval' .*has the adapters {names}: pass one of"):
        ours(jina, "retrieval")
    with pytest.raises(ModelError, match="has no folder with an adapter"):
        ours(tiny("bert"), "retrieval_query")


def test_the_digests_are_those_of_the_adapter_s_directory(jina, tmp_path):
    shutil.copytree(jina / "separation", tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "README.md").write_text("another place")
    by_name = model_digests(settings(jina, "separation"))
    assert by_name == model_digests(settings(jina, str(tmp_path / "elsewhere")))
    assert by_name["adapter"] != model_digests(settings(jina, "classification"))["adapter"]


def test_one_warning_names_the_tasks_if_none_is_chosen(jina, tmp_path):
    path = shutil.copytree(jina, tmp_path / "copy")
    names = "'classification', 'retrieval_passage', 'retrieval_query', 'separation', 'text_matching'"
    with pytest.warns(UserWarning, match=f"copy' has adapters for tasks.* Pass adapter= with one of {names}"):
        ours(path)
    for task in (None, "separation"):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*adapters for tasks")
            ours(path, task)


def test_no_warning_for_a_single_adapter(jina, tmp_path):
    path = shutil.copytree(jina, tmp_path / "copy", ignore=shutil.ignore_patterns(*TASKS[1:]))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*adapters for tasks")
        ours(path)


def test_a_job_continues_with_the_same_adapter_and_not_with_another(jina, tmp_path):
    source, target = faults.write_inputs(tmp_path / "in", files=2, rows=6), tmp_path / "out"
    shutil.copytree(jina / "separation", tmp_path / "elsewhere")
    assert run_again(source, target, jina, adapter="separation").parts_this_run == 2
    assert run_again(source, target, jina, adapter=str(tmp_path / "elsewhere")).parts_this_run == 0
    with pytest.raises(JobError, match=r"model\.adapter: .* before, .* now"):
        run_again(source, target, jina, adapter="classification")


def test_verify_and_calibrate_with_a_task(jina, tmp_path):
    stage = EmbeddingCreatorStage(model_identifier=str(jina), adapter="separation", autocast=False)
    assert verify(stage, TEXTS).passed
    calibrate(stage, TEXTS, tmp_path / "ranges.json")
    same = replace(
        stage, adapter="retrieval.query", embedding_dtype="int8", calibration=tmp_path / "ranges.json"
    )
    with pytest.raises(ConfigError, match="adapter was '.*' and is '"):
        same.setup()
    replace(same, adapter=str(jina / "separation")).setup()


def test_the_authors_older_repository_is_refused_with_the_name_of_the_newer(jina, tmp_path):
    modules = [{"idx": 0, "name": "transformer", "path": "", "type": "custom_st.Transformer"}]
    old = rewrite(jina, tmp_path / "jina-embeddings-v3", modules=modules)
    with pytest.raises(ModelError, match="custom_st.Transformer.* use 'jinaai/jina-embeddings-v3-hf'"):
        ours(old)
