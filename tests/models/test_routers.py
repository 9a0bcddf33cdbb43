"""Models with modules of their own for queries and documents: tests of `nemo_embed_dask.models.routers`."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer import modules as st

from nemo_embed_dask import EmbeddingCreatorStage, embed, to_matrix, verify
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.files import missing_files
from nemo_embed_dask.models.modules import all_modules, read_modules
from nemo_embed_dask.models.stamps import stamp_model

from ..helpers.cards import TEXTS, rewrite


def save(path, *modules, **options):
    SentenceTransformer(modules=[*modules], device="cpu", **options).save_pretrained(str(path))
    return path


def two_models(tiny, path, **options):
    """A Router of two whole models, with a Normalize for both."""
    torch.manual_seed(0)
    query = [st.Transformer(str(tiny("bert"))), st.Pooling(32, "mean"), st.Dense(32, 16)]
    document = [st.Transformer(str(tiny("roberta"))), st.Pooling(32, "cls"), st.Dense(32, 16)]
    router = Router.for_query_document(query, document, **options)
    return save(path, router, st.Normalize(), prompts={"document": "text: "})


def two_layers(tiny, path):
    """One transformer, and a Router of two Dense layers."""
    torch.manual_seed(0)
    router = Router.for_query_document([st.Dense(32, 16)], [st.Dense(32, 16)])
    return save(path, st.Transformer(str(tiny("bert"))), st.Pooling(32, "mean"), router, st.Normalize())


def ours(path, **options):
    frame = pd.DataFrame({"text": TEXTS})
    return to_matrix(
        embed(frame, model_identifier=str(path), embedding_pooling="auto", autocast=False, **options).embeddings
    )


@pytest.mark.parametrize("make", [two_models, two_layers])
def test_documents_by_default_and_queries_by_name(make, tiny, tmp_path):
    path = make(tiny, tmp_path / "m")
    model = SentenceTransformer(str(path), device="cpu")
    documents = np.concatenate([model.encode_document([text]) for text in TEXTS])
    queries = np.concatenate([model.encode_query([text]) for text in TEXTS])
    assert np.abs(documents - queries).max() > 0.1
    np.testing.assert_allclose(ours(path, prompt_name="auto"), documents, atol=1e-5)
    np.testing.assert_allclose(ours(path, prompt_name="query"), queries, atol=1e-5)
    assert read_card(path).name == "m"
    # Both in one process, in the other order.
    np.testing.assert_allclose(ours(path, prompt_name="auto"), documents, atol=1e-5)


def test_verify_compares_the_same_side(tiny, tmp_path):
    path = two_layers(tiny, tmp_path / "m")
    for name in ("auto", "query"):
        stage = EmbeddingCreatorStage(
            model_identifier=str(path), embedding_pooling="auto", prompt_name=name, autocast=False
        )
        verdict = verify(stage, TEXTS[:4], threshold=0.9999)
        assert verdict.passed, str(verdict)
        assert verdict.third_opinion is not None


def test_all_routes_take_part_in_files_and_stamps(tiny, tmp_path):
    path = two_models(tiny, tmp_path / "m")
    assert missing_files(path) == []
    folders = {folder for _, folder in all_modules(path)}
    assert {folder for _, folder in read_modules(path, "query")} < folders
    before = stamp_model(path)
    weights = next(folder for kind, folder in read_modules(path, "query") if kind == "Transformer")
    (path / weights / "model.safetensors").unlink()
    assert missing_files(path) == [f"{weights}/model.safetensors"]
    assert stamp_model(path) != before


def change_router(source, target, **changes):
    path = rewrite(source, target)
    file = next(path.rglob("router_config.json"))
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return path


def test_routes_are_chosen_as_in_sentence_transformers(tiny, tmp_path):
    made = two_layers(tiny, tmp_path / "made")
    mapped = {"route_mappings": {"('document', None)": "query", "(None, 'text')": "document"}}
    path = change_router(made, tmp_path / "mapped", parameters=mapped)
    model = SentenceTransformer(str(path), device="cpu")
    for name, expected in (
        ("auto", model.encode_document(TEXTS[:1])),
        ("query", model.encode_query(TEXTS[:1])),
    ):
        np.testing.assert_allclose(ours(path, prompt_name=name)[:1], expected, atol=1e-5)


def test_a_router_without_a_side_is_refused(tiny, tmp_path):
    made = two_layers(tiny, tmp_path / "made")
    structure = json.loads(next(made.rglob("router_config.json")).read_text())["structure"]
    only = change_router(made, tmp_path / "only", structure={"query": structure["query"]})
    with pytest.raises(ModelError, match="no modules for texts of the kind 'document': .* the routes query"):
        ours(only)
    assert ours(only, prompt_name="query").shape == (len(TEXTS), 16)
    neither = {"left": structure["query"], "right": structure["document"]}
    path = change_router(made, tmp_path / "neither", structure=neither, parameters={"default_route": "right"})
    np.testing.assert_allclose(ours(path), ours(made), atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [{"structure": {}}, {"structure": {"document": ["lost"]}}, {"types": 3}, {"structure": {"document": [""]}}],
)
def test_a_damaged_router_is_an_error(changes, tiny, tmp_path):
    path = change_router(two_layers(tiny, tmp_path / "made"), tmp_path / "m", **changes)
    with pytest.raises(ModelError, match="router_config"):
        ours(path)


def test_a_route_of_another_kind_is_refused_by_name_only_where_it_is_used(tiny, tmp_path):
    made = two_layers(tiny, tmp_path / "made")
    config = json.loads(next(made.rglob("router_config.json")).read_text())
    sparse = "sentence_transformers.sparse_encoder.models.SparseStaticEmbedding"
    types = {**config["types"], config["structure"]["query"][0]: sparse}
    path = change_router(made, tmp_path / "m", types=types)
    np.testing.assert_allclose(ours(path), ours(made), atol=1e-6)
    with pytest.raises(ModelError, match="SparseStaticEmbedding"):
        ours(path, prompt_name="query")


def test_a_router_without_its_file_is_an_error(tiny, tmp_path):
    path = two_layers(tiny, tmp_path / "m")
    next(path.rglob("router_config.json")).unlink()
    with pytest.raises(ModelError, match=r"router_config\.json.* is missing"):
        ours(path)
