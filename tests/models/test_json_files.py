from __future__ import annotations

import pytest

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.json_files import JsonObject, read_json


def test_values_of_the_right_type(tmp_path):
    values = {"name": "a", "yes": True, "no": None, "n": 512.0, "many": 1e30, "list": ["a"], "object": {"b": 1}}
    found = JsonObject(tmp_path, values)
    assert (found.text("name"), found.text("no"), found.text("absent")) == ("a", None, None)
    assert (found.flag("yes", False), found.flag("no", True), found.flag("absent", True)) == (True, False, True)
    assert (found.count("n"), found.count("many"), found.count("no")) == (512, int(1e30), None)
    assert (found.list_of_text("list"), found.list_of_text("no")) == (["a"], [])
    assert (found.section("object"), found.section("absent")) == ({"b": 1}, {})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", 1), ("text", []), ("flag", "true"), ("flag", 1), ("count", "512"), ("count", True),
        ("count", 0), ("count", 1.5), ("count", float("nan")), ("count", float("inf")), ("count", [1]),
        ("list_of_text", "a"), ("list_of_text", [1]), ("section", ["a"]), ("section", 0),
    ],
    ids=str,
)  # fmt: skip
def test_error_for_a_value_of_another_type_names_file_and_key(kind, value, tmp_path):
    found = JsonObject(tmp_path / "config.json", {"the_key": value})
    with pytest.raises(ModelError, match=r"config\.json: 'the_key' is .*correct the file"):
        found.flag("the_key", False) if kind == "flag" else getattr(found, kind)("the_key")


@pytest.mark.parametrize(
    "content", [b"[]", b'"a"', b"{", b"\xff", b"", b"[" * 10**6], ids=lambda content: content[:3]
)
def test_error_for_a_file_without_an_object(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        read_json(tmp_path / "config.json")


def test_a_missing_file_is_an_empty_object_and_a_missing_key_is_named(tmp_path):
    found = read_json(tmp_path / "config.json")
    assert found == {}
    with pytest.raises(ModelError, match=r"config\.json has no 'in_features'"):
        found.require("in_features")


@pytest.mark.parametrize("kind", ["a directory", "a link to itself"])
def test_error_for_a_file_that_cannot_be_read(kind, tmp_path):
    """It is not a missing file, without which a model would have other settings."""
    file = tmp_path / "modules.json"
    file.mkdir() if kind == "a directory" else file.symlink_to(file.name)
    with pytest.raises(ModelError, match=r"modules\.json cannot be read .*fetch the model again"):
        read_json(file)
