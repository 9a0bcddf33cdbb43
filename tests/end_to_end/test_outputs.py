"""Several outputs of one stage, their columns, and the length and width of vectors."""

from __future__ import annotations

import shutil
from dataclasses import replace

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from nemo_embed_dask import EmbeddingCreatorStage, calibrate, to_matrix
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ColumnError, ConfigError, RowError
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.number_types import Output
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.vectors.head import Head

from ..helpers.cards import TEXTS, build, reference, rewrite
from ..helpers.versions import needs


def settings_of(path, **changes):
    return Settings(ModelRef(str(path)), **{"autocast": False, **changes})


@pytest.fixture(scope="module")
def frame():
    texts = [None, *TEXTS, "Все люди рождаются свободными. " * 20, "a 人人生而自由 " * 30]
    index = pd.Index(range(10, 10 + len(texts)))
    return pd.DataFrame({"text": pd.array(texts, dtype="string"), "id": range(len(texts))}, index=index)


@needs("pandas", "3.0", "older ones read text as another string type")
def test_several_outputs_need_one_forward_pass(tiny, frame, tmp_path, monkeypatch):
    forwards = []
    call = Head.__call__
    monkeypatch.setattr(Head, "__call__", lambda *a, **k: forwards.append(len(a[2]) - 1) or call(*a, **k))
    base = {"model_identifier": str(tiny("bert")), "autocast": False}
    asked = EmbeddingCreatorStage(**base, extra_embeddings=("q:8:int8",))
    path = calibrate(asked, TEXTS * 3, tmp_path / "r.json")
    forwards.clear()
    stage = EmbeddingCreatorStage(
        **base, extra_embeddings=("q:8:int8", "b:ubinary"), calibration=str(path), share_equal_texts=False
    )
    out = stage(dd.from_pandas(frame, npartitions=1)).compute(scheduler="sync")
    assert sum(forwards) == frame.text.notna().sum()
    assert [str(out[name].dtype) for name in ("embeddings", "q", "b")] == [
        f"list<item: {leaf}>[pyarrow]" for leaf in ("float", "int8", "uint8")
    ]
    assert out.q.isna().tolist() == frame.text.isna().tolist()
    out.to_parquet(tmp_path / "o.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "o.parquet"), out)
    assert not stage(dd.from_pandas(frame, npartitions=1))[["id"]].compute(scheduler="sync").empty
    assert sum(forwards) == frame.text.notna().sum()


def test_existing_columns_and_invalid_settings_are_errors(tiny, frame):
    base = {"model_identifier": str(tiny("bert"))}
    with pytest.raises(ColumnError, match="'id' already"):
        EmbeddingCreatorStage(**base, n_tokens_field="id")(frame)
    with pytest.raises(ColumnError, match="'embeddings' already"):
        EmbeddingCreatorStage(**base, truncated_field="embeddings", overwrite=True)(frame)
    for wrong in (
        {"overlap": -1},
        {"embedding_dtype": "int4"},
        {"embedding_pooling": "cls+median"},
        {"long_documents": "skip"},
        {"extra_embeddings": ("x",)},
        {"calibration": "/no/file"},
    ):
        with pytest.raises(ConfigError):
            EmbeddingCreatorStage(**base, **wrong)
    with pytest.raises(ConfigError, match="leave no room"):
        embed_texts(["a"], settings_of(tiny("bert"), prompt="very long prompt " * 30))


def test_the_default_pooling_warns_once_if_the_model_specifies_another(tiny, tmp_path):
    path = build(tiny("bert"), tmp_path / "m", pooling="cls")
    with pytest.warns(UserWarning, match="embedding_pooling='auto'") as caught:
        embed_texts(["a"], settings_of(path))
    assert len(caught) == 1
    embed_texts(
        ["b"], settings_of(path, normalize=False)
    )  # pytest turns warnings into errors: there is no second one


def test_normalize_and_truncate_dim(tiny, tmp_path):
    path = build(tiny("bert"), tmp_path / "m", pooling="mean", normalize=True)
    raw = embed_texts(TEXTS, settings_of(path, pooling="auto", normalize=False)).matrix.cpu()
    assert not torch.allclose(raw.norm(dim=1), torch.ones(len(TEXTS)))
    for changes in ({"pooling": "auto"}, {"pooling": "mean_pooling"}, {"pooling": "auto", "truncate_dim": 8}):
        norms = embed_texts(TEXTS, settings_of(path, **changes)).matrix.norm(dim=1).cpu()
        torch.testing.assert_close(norms, torch.ones(len(TEXTS)))
    narrow = rewrite(path, tmp_path / "n", config_sentence_transformers={"truncate_dim": 8})
    got = embed_texts(TEXTS, settings_of(narrow, pooling="auto")).matrix.cpu()
    expected = reference(narrow, TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.fixture
def large(tiny, tmp_path):
    """Return a model whose vectors are 1e5 times as long, without a Normalize layer."""
    return times(1e5, build(tiny("bert"), tmp_path / "m", pooling="mean", dense="none"))


def times(factor, path):
    """Multiply the weights of the last layer, and so all vectors."""
    file = path / "2_Dense" / "model.safetensors"
    save_file({name: tensor * factor for name, tensor in load_file(file).items()}, file)
    return path


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("outputs", [{"embedding_dtype": "float16"}, {"extra_embeddings": ("half:4:float16",)}])
def test_vectors_too_large_for_float16_are_failed_rows(large, share, outputs):
    stage = EmbeddingCreatorStage(
        model_identifier=str(large),
        embedding_pooling="auto",
        autocast=False,
        share_equal_texts=share,
        **outputs,
    )
    frame = pd.DataFrame({"text": [TEXTS[0], None, TEXTS[1], TEXTS[0]]})
    name = "embedding_dtype" if "embedding_dtype" in outputs else "column 'half'"
    with pytest.raises(
        RowError, match=rf"row 0 and 2 more rows: {name}: float16 cannot hold a vector whose largest"
    ):
        stage(frame)
    out = replace(stage, on_error="null")(frame)
    for column in set(out.columns) - {"text"}:  # the whole row failed, also in the columns that could hold it
        assert out[column].isna().all()
    unit = replace(stage, normalize=True)(frame)
    assert unit.embeddings.isna().tolist() == [False, True, False, False]
    assert np.isfinite(to_matrix(unit.embeddings.dropna()).astype(np.float32)).all()


def test_only_the_rows_that_do_not_fit_fail(large, tmp_path):
    """Largest values of rows lie on both sides of float16's limit; the rows that fit keep their exact vectors."""
    exact = embed_texts(TEXTS * 2, settings_of(large, pooling="auto")).matrix.cpu()
    scale = 60_000 / exact.abs().amax(1).median()
    scaled = times(scale, shutil.copytree(large, tmp_path / "scaled"))
    settings = settings_of(scaled, pooling="auto", extra_outputs=(Output("half", None, "float16"),))
    exact = embed_texts(TEXTS * 2, settings_of(scaled, pooling="auto")).matrix.cpu()
    fits = (exact.abs().amax(1) < 65_520).numpy()
    assert 0 < fits.sum() < len(fits)
    out = embed_texts(TEXTS * 2, replace(settings, on_error="null"))
    assert out.valid.tolist() == fits.tolist()
    assert [*out.failures] == np.flatnonzero(~fits).tolist()
    assert torch.equal(out.matrix.cpu()[fits], exact[fits])
    assert torch.equal(out.extra["half"].cpu()[fits], exact[fits].half())
    assert (out.extra["half"][~fits] == 0).all() and (out.matrix[~fits] == 0).all()
