"""What the files of a static model say: which library wrote it, its limit, and what is refused."""

from __future__ import annotations

import json

import pytest
from safetensors.numpy import load_file, save_file
from sentence_transformers.sentence_transformer import modules
from tokenizers import Tokenizer

from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.files import missing_files, missing_options
from nemo_embed_dask.models.limits import NO_LIMIT
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.stamps import stamp_model
from nemo_embed_dask.models.static import StaticTable
from nemo_embed_dask.settings import Settings

from ..helpers.cards import rewrite
from ..helpers.static import make_model2vec, make_st, size


def embed(path, **changes):
    return embed_texts(["a fox"], Settings(ModelRef(str(path)), pooling="auto", **changes)).matrix.numpy()


def test_a_table_of_sentence_transformers(tiny, tmp_path):
    path = make_st(tiny("bert"), tmp_path / "m", modules.Normalize(), prompts={"query": "q: "}, truncate_dim=8)
    card = read_card(path)
    assert card.static == StaticTable("sentence-transformers", size(tiny("bert")), NO_LIMIT)
    assert (card.pooling, [layer.kind for layer in card.layers]) == ("mean_pooling", ["Normalize"])
    assert (card.prompts["query"], card.truncate_dim, card.max_seq_length) == ("q: ", 8, NO_LIMIT)


def test_sentence_transformers_truncates_as_the_tokenizer_file_says(tiny, tmp_path):
    assert read_card(make_st(tiny("bert"), tmp_path / "m", truncation=30)).max_seq_length == 30


@pytest.mark.parametrize(
    ("stated", "limit"),
    [({}, 512), ({"max_length": 20}, 20), ({"max_length": None}, NO_LIMIT), ({"max_length": 1e300}, NO_LIMIT)],
)
def test_the_limit_of_model2vec(stated, limit, tiny, tmp_path):
    assert read_card(make_model2vec(tiny("bert"), tmp_path / "m", **stated)).max_seq_length == limit


@pytest.mark.parametrize("with_modules", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_config_json_of_model2vec_says_whether_it_normalizes(normalize, with_modules, tiny, tmp_path):
    path = make_model2vec(tiny("bert"), tmp_path / "m", normalize=normalize, with_modules=with_modules)
    card = read_card(path)
    assert card.static.layout == "model2vec"
    assert [layer.kind for layer in card.layers] == ["Normalize"] * normalize
    assert missing_files(path) == []


def test_files_that_a_static_model_needs_or_may_have(tiny, tmp_path):
    path = make_st(tiny("bert"), tmp_path / "m")
    assert missing_options(path) == ["config.json"]  # model2vec's, which would change the vectors
    before = stamp_model(path)
    (path / "config.json").write_text("{}")
    assert missing_options(path) == []
    assert stamp_model(path) != before
    for name in ("tokenizer.json", "model.safetensors"):
        (path / name).unlink()
    assert missing_files(path) == ["model.safetensors", "tokenizer.json"]


def test_a_table_in_a_folder_of_its_own(tiny, tmp_path):
    path = make_st(tiny("bert"), tmp_path / "m")
    expected = embed(path)
    (path / "0_StaticEmbedding").mkdir()
    for name in ("tokenizer.json", "model.safetensors"):
        (path / name).rename(path / "0_StaticEmbedding" / name)
    listed = json.loads((path / "modules.json").read_text())
    (path / "modules.json").write_text(json.dumps([{**listed[0], "path": "0_StaticEmbedding"}]))
    assert missing_files(path) == []
    assert (embed(path) == expected).all()
    (path / "0_StaticEmbedding" / "tokenizer.json").unlink()
    assert missing_files(path) == ["0_StaticEmbedding/tokenizer.json"]


def _without(name):
    return lambda path: (path / name).unlink()


def _tensors(change):
    def damage(path):
        tensors = load_file(path / "model.safetensors")
        save_file(change(tensors), path / "model.safetensors")

    return damage


def _cut(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def _add_token(path):
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.add_tokens(["brandnew"])
    tokenizer.save(str(path / "tokenizer.json"))


def _add_dense(path):
    listed = json.loads((path / "modules.json").read_text())
    dense = {"idx": 1, "name": "9", "path": "9_Dense", "type": "sentence_transformers.models.Dense"}
    (path / "modules.json").write_text(json.dumps([*listed, dense]))
    modules.Dense(16, 8).save(str(path / "9_Dense"))


DAMAGES = {
    "no table": (_without("model.safetensors"), "model.safetensors is missing"),
    "a pickled table": (
        lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"),
        "model.safetensors is missing, and a pickled table .* is not read: load the model with sentence-",
    ),
    "no tokenizer": (_without("tokenizer.json"), "has no tokenizer"),
    "no configuration": (_without("config.json"), "no config.json, which says whether"),
    "half a table": (_cut, "is not a safetensors file"),
    "another name": (_tensors(lambda t: {"vectors": t["embeddings"]}), "has no table of token vectors"),
    "a flat table": (_tensors(lambda t: {**t, "embeddings": t["embeddings"][:, 0]}), "do not fit each other"),
    "fewer weights": (_tensors(lambda t: {**t, "weights": t["weights"][1:]}), "do not fit each other"),
    "a mapping of truth values": (
        _tensors(lambda t: {**t, "mapping": t["mapping"] > 3}),
        "do not fit each other",
    ),
    "fewer rows": (_tensors(lambda t: {**t, "embeddings": t["embeddings"][:2]}), "maps a token to row"),
    "another tokenizer": (_add_token, "belong to different models"),
    "a layer": (_add_dense, "model2vec would leave it out"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_refused(name, tiny, tmp_path):
    damage, message = DAMAGES[name]
    path = make_model2vec(tiny("bert"), tmp_path / "m", shared=True, weighted=True, normalize=True)
    (path / "9_Dense").mkdir()
    embed(path)
    damage(path)
    with pytest.raises(ModelError, match=message):
        embed(path)


def test_a_tokenizer_with_fewer_tokens_than_the_table(tiny, tmp_path):
    """model2vec refuses it, and sentence-transformers does not."""
    path = make_model2vec(tiny("bert"), tmp_path / "m")
    shorter = make_st(tiny("bert"), tmp_path / "st")
    for folder, name in ((path, "embeddings"), (shorter, "embedding.weight")):
        table = load_file(folder / "model.safetensors")[name]
        save_file({name: table.repeat(2, axis=0)[: len(table) + 1]}, folder / "model.safetensors")
    embed(shorter)
    with pytest.raises(ModelError, match="belong to different models"):
        embed(path)


def test_a_damaged_tokenizer_is_refused(tiny, tmp_path):
    path = rewrite(make_st(tiny("bert"), tmp_path / "st"), tmp_path / "m")
    (path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer of model 'm' cannot be used"):
        embed(path)


def test_integers_are_a_table_of_model2vec_only(tiny, tmp_path):
    path = make_st(tiny("bert"), tmp_path / "m")
    table = load_file(path / "model.safetensors")["embedding.weight"]
    save_file({"embedding.weight": table.astype("int8")}, path / "model.safetensors")
    with pytest.raises(ModelError, match="do not fit each other"):
        embed(path)
