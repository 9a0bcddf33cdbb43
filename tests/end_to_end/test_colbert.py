"""Late interaction models (ColBERT) give the token vectors of their authors' libraries."""

from __future__ import annotations

import json
import string
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from transformers import AutoModel, AutoTokenizer

from nemo_embed_dask import EmbeddingCreatorStage, embed, verify
from nemo_embed_dask.errors import ConfigError, ModelError

from ..helpers.cards import TEXTS, rewrite
from ..helpers.colberts import PYLATE, STANFORD, multi_vector, pylate, reference, stanford

MORE = [*TEXTS, "[D] a marker, in a text! [unused1] [Q]", "...", "A.B!C, d?"]
FRAME = pd.DataFrame({"text": ["A text, with two marks."]})


def ours(path, texts=MORE, **options):
    options = {"embedding_pooling": "none", "autocast": False, **options}
    frame = pd.DataFrame({"text": pd.array(texts, "string")})
    rows = embed(frame, model_identifier=str(path), **options).embeddings
    return [np.array(row.tolist() if hasattr(row, "tolist") else row, np.float32) for row in rows]


def check(path, *, texts=MORE, task="document", **options):
    """Compare with sentence-transformers, and return how many vectors each text has."""
    expected = reference(path, texts, task=task)
    found = ours(path, texts, **options)
    for row, wanted in zip(found, expected, strict=True):
        assert len(row) == len(wanted)
        if len(wanted):
            np.testing.assert_allclose(row, wanted, atol=1e-5)
    return [len(row) for row in found]


@pytest.mark.parametrize("kind", ["bert", "modernbert", "xlm-roberta", "distilbert"])
def test_models_of_sentence_transformers(kind, tiny, tmp_path):
    prompts = {"query": "[Q] ", "document": "[D] "}
    path = multi_vector(tiny(kind), tmp_path / "m", prompts=prompts, document_length=20)
    assert max(check(path)) <= 20


def test_other_modules_of_sentence_transformers(tiny, tmp_path):
    torch.manual_seed(0)
    token = {"module_input_name": "token_embeddings"}
    layers = [
        Dense(32, 48, activation_function=torch.nn.GELU(), **token),
        MultiVectorMask(["a", "[UNK]", "not a token"], skiplist_tasks=["query", "document"]),
        Dense(48, 16, bias=False, use_residual=True, activation_function=torch.nn.Identity(), **token),
    ]
    path = multi_vector(tiny("bert"), tmp_path / "m", layers=layers)
    check(path)
    lengths = np.linalg.norm(ours(path)[0], axis=1)
    assert lengths.std() > 0.01  # the model does not scale them
    unit = ours(path, normalize=True)[0]
    np.testing.assert_allclose(unit, ours(path)[0] / lengths[:, None], atol=1e-6)


def test_a_skip_list_for_queries_only_leaves_documents_alone(tiny, tmp_path):
    mask = MultiVectorMask(["the", "."], skiplist_tasks="query")
    path = multi_vector(tiny("bert"), tmp_path / "m", layers=[mask, Normalize("token_embeddings")])
    check(path)


@pytest.mark.parametrize("kind", ["bert", "modernbert", "xlm-roberta"])
@pytest.mark.parametrize("changes", [{}, {"model_type": "left out"}])
def test_models_of_pylate(kind, changes, tiny, tmp_path):
    path = pylate(tiny(kind), tmp_path / "m", residual=kind == "modernbert", **changes)
    assert max(check(path)) <= PYLATE["document_length"]


@pytest.mark.parametrize(
    "changes",
    [
        {"skiplist_words": None},
        {"skiplist_words": []},
        {"document_prefix": "", "query_prefix": ""},
        {"document_prefix": "passage: "},  # not a token
        {"prompts": {"document": "title: none", "query": None}},
        {"document_length": 5},
        {"document_length": None},
    ],
)
def test_settings_of_pylate(changes, tiny, tmp_path):
    path = pylate(tiny("bert"), tmp_path / "m", **changes)
    check(path, texts=[text for text in MORE if text])


def test_pylate_by_hand(tiny, tmp_path):
    """PyLate puts the id of the marker behind the first token, and cuts before that."""
    path = pylate(tiny("bert"), tmp_path / "m")
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path)
    marker, skipped = tokenizer.convert_tokens_to_ids("[D] "), tokenizer.convert_tokens_to_ids(list("!.,"))
    weights = [
        load_file(path / folder / "model.safetensors")["linear.weight"] for folder in ("1_Dense", "2_Dense")
    ]
    for text, row in zip(TEXTS, ours(path, TEXTS), strict=True):
        ids = tokenizer(text, truncation=True, max_length=PYLATE["document_length"] - 1)["input_ids"]
        ids = [ids[0], marker, *ids[1:]]
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        states = states[[index not in skipped for index in ids]] @ weights[0].T @ weights[1].T
        np.testing.assert_allclose(row, torch.nn.functional.normalize(states, dim=1), atol=1e-5)


@pytest.mark.parametrize(
    "metadata",
    [STANFORD, None, {**STANFORD, "mask_punctuation": False, "doc_token_id": None}, {"doc_maxlen": 9}],
)
def test_models_of_stanford(metadata, tiny, tmp_path):
    path = stanford(tiny("bert"), tmp_path / "m", metadata=metadata)
    counts = check(path)
    if metadata is STANFORD:
        assert max(counts) <= STANFORD["doc_maxlen"]
        tokenizer = AutoTokenizer.from_pretrained(path)
        marks = [tokenizer.convert_tokens_to_ids(mark) for mark in string.punctuation]
        ids = tokenizer(MORE[0])["input_ids"]
        assert counts[0] == len(ids) + 1 - sum(index in marks for index in ids)  # [unused1] is one token


@pytest.mark.parametrize("modules", [True, False])
@pytest.mark.parametrize("architecture", ["HF_ColBERT", "BertModel"])
def test_other_files_beside_those_of_stanford(architecture, modules, tiny, tmp_path):
    """mxbai-colbert-large-v1 has a modules.json, and other repositories have renamed the architecture."""
    path = stanford(tiny("bert"), tmp_path / "m")
    expected = reference(path, MORE)
    files = {"config": {"architectures": [architecture]}}
    if modules:
        transformer = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
        files["modules"] = [transformer]
    for row, wanted in zip(ours(rewrite(path, tmp_path / "n", **files)), expected, strict=True):
        np.testing.assert_allclose(row, wanted, atol=1e-5)


def test_queries_of_models_without_expansion(tiny, tmp_path):
    path = pylate(tiny("bert"), tmp_path / "m")
    assert max(check(path, task="query", prompt_name="query")) == PYLATE["query_length"]
    other = multi_vector(tiny("bert"), tmp_path / "n", prompts={"query": "q: "}, query_length=10)
    check(other, task="query", prompt_name="query")


@pytest.mark.parametrize("layout", ["pylate", "old pylate", "stanford", "multi vector"])
def test_queries_with_expansion_are_refused(layout, tiny, tmp_path):
    make = {
        "pylate": lambda path: pylate(tiny("bert"), path, do_query_expansion=True),
        "old pylate": lambda path: pylate(tiny("bert"), path, do_query_expansion="left out"),
        "stanford": lambda path: stanford(tiny("bert"), path),
        "multi vector": lambda path: multi_vector(
            tiny("bert"), path, query_expansion={"strategy": "fixed", "attend": True, "length": 32}
        ),
    }
    path = make[layout](tmp_path / "m")
    check(path, texts=TEXTS[:2])
    with pytest.raises(ModelError, match=r"model 'm' pads its queries .*encode_query"):
        ours(path, prompt_name="query")


def test_another_prompt_is_for_documents_too(tiny, tmp_path):
    path = pylate(tiny("bert"), tmp_path / "m")
    expected = reference(path, MORE, prompt="a prompt: ")
    for row, wanted in zip(ours(path, prompt="a prompt: "), expected, strict=True):
        np.testing.assert_allclose(row, wanted, atol=1e-5)


def test_other_models_give_their_token_states(minilm):
    """There is no layer for tokens in MiniLM."""
    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm)
    for normalize in (None, False):
        for text, row in zip(TEXTS, ours(minilm, TEXTS, normalize=normalize), strict=True):
            ids = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            with torch.inference_mode():
                states = model(**ids).last_hidden_state[0]
            wanted = states if normalize is False else torch.nn.functional.normalize(states, dim=1)
            np.testing.assert_allclose(row, wanted, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean_pooling"])
def test_a_pooling_that_is_named_pools_the_transformer(pooling, tiny, tmp_path):
    path = pylate(tiny("bert"), tmp_path / "m", document_prefix="")
    with pytest.warns(UserWarning, match="was made with 'none'"):
        found = ours(path, TEXTS[:3], embedding_pooling=pooling)
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path)
    for text, row in zip(TEXTS[:3], found, strict=True):
        with torch.inference_mode():
            inputs = tokenizer(text, truncation=True, max_length=24, return_tensors="pt")
            states = model(**inputs).last_hidden_state[0]
        wanted = states[0] if pooling == "cls" else states.mean(0)
        np.testing.assert_allclose(row, wanted / wanted.norm(), atol=1e-5)


def test_a_module_in_the_wrong_place_is_refused(tiny, tmp_path):
    path = pylate(tiny("bert"), tmp_path / "m")
    listed = json.loads((path / "modules.json").read_text())
    listed[2]["type"] = "sentence_transformers.models.Pooling"
    with pytest.raises(ModelError, match="module 'Pooling', which is not supported"):
        ours(rewrite(path, tmp_path / "n", modules=listed))


def test_no_projection_is_an_error(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m", config={"architectures": ["HF_ColBERT"]})
    with pytest.raises(ModelError, match=r"model 'm' has no 'linear\.weight'"):
        ours(path)


def test_markers_are_part_of_prompt_checks(tiny, tmp_path):
    path = pylate(tiny("bert"), tmp_path / "m")
    with pytest.raises(ConfigError, match="prompt_name='title'"):
        ours(path, prompt_name="title")


@pytest.mark.parametrize("pooling", [{}, {"embedding_pooling": "auto"}, {"embedding_pooling": "mean_pooling"}])
def test_one_vector_per_text_is_given_only_if_its_pooling_is_named(pooling, tiny, tmp_path):
    for make in (pylate, stanford, multi_vector):
        path = make(tiny("bert"), tmp_path / make.__name__)
        if pooling.get("embedding_pooling") == "mean_pooling":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                frame = embed(FRAME, model_identifier=str(path), **pooling)
            assert np.stack(frame.embeddings).shape == (1, 32)
        else:
            with pytest.raises(ModelError, match="made for vectors of tokens .* pass embedding_pooling='none'"):
                embed(FRAME, model_identifier=str(path), **pooling)


@pytest.mark.filterwarnings("ignore:embedding_pooling='cls'")
def test_verify_knows_the_marker(tiny, tmp_path):
    """Its reference has a tokenizer of its own."""
    path = stanford(tiny("bert"), tmp_path / "m")
    stage = EmbeddingCreatorStage(model_identifier=str(path), embedding_pooling="cls", autocast=False)
    found = verify(stage, TEXTS)
    assert (found.own_pooling, found.minimum > 0.999999) == (None, True)


def test_the_two_stages_agree(tiny, tmp_path):
    path = pylate(tiny("bert"), tmp_path / "m")
    for name, task in ((None, "document"), ("query", "query")):
        stage = EmbeddingCreatorStage(
            model_identifier=str(path), embedding_pooling="none", autocast=False, prompt_name=name
        )
        first, second = stage.decompose()
        row = second(first(FRAME)).embeddings.iloc[0]
        np.testing.assert_allclose(np.stack(row), reference(path, FRAME.text, task=task)[0], atol=1e-5)
