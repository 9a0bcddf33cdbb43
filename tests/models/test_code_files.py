from __future__ import annotations

import json

import pytest

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.code_files import (
    Reference,
    code_files,
    hash_code,
    missing_code,
    read_references,
)


def write(folder, config=None, tokenizer=None):
    (folder / "config.json").write_text(json.dumps({"auto_map": config}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": tokenizer}))
    return read_references(folder)


def test_classes_that_files_name(tmp_path):
    assert write(tmp_path) == []
    both = {"AutoConfig": "c.Config", "AutoModel": "org/code--m.Model", "AutoModelForMaskedLM": "m.Other"}
    config, model = (
        Reference("AutoConfig", "c", "Config", None),
        Reference("AutoModel", "m", "Model", "org/code"),
    )
    assert write(tmp_path, both) == [config, model]
    assert write(tmp_path, {"AutoConfig": "c.Config"}) == []  # its model is transformers'


@pytest.mark.parametrize(
    "named",
    [
        ["t.Slow", "t.Fast"],
        {"AutoTokenizer": ["t.Slow", "t.Fast"]},
        {"AutoTokenizer": "t.Fast"},
        ["t.Fast", None],
    ],
)
def test_the_fast_tokenizer_is_taken(named, tmp_path):
    assert write(tmp_path, tokenizer=named) == [Reference("AutoTokenizer", "t", "Fast", None)]
    assert write(tmp_path, {"AutoTokenizer": ["t.Slow", "t.Fast"]}) == [
        Reference("AutoTokenizer", "t", "Fast", None)
    ]


@pytest.mark.parametrize("named", ["m", "../m.Model", "a.b.Model", 3, "/m.Model", "org--m.Model"])
def test_names_that_are_not_of_a_class(named, tmp_path):
    with pytest.raises(ModelError, match=r"config.json: auto_map names .* for AutoModel.*correct the file"):
        write(tmp_path, {"AutoModel": named})


def test_files_that_are_imported_with_a_module(tmp_path):
    (tmp_path / "m.py").write_text(
        "from .a import x\nfrom . import b\nimport torch\nfrom transformers import y\n"
    )
    (tmp_path / "a.py").write_text("def f():\n    from .m import z\n    from .sub.c import w\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.py").write_text("from ..a import x\n")
    (tmp_path / "other.py").write_text("")
    names = {file.relative_to(tmp_path).as_posix() for file in code_files(tmp_path, "m")}
    assert names == {"m.py", "a.py", "b.py", "sub/c.py"}
    write(tmp_path, {"AutoModel": "m.Model"})
    assert missing_code(tmp_path) == ["b.py"]
    write(tmp_path, {"AutoModel": "org/code--m.Model"})
    assert missing_code(tmp_path) == []
    (tmp_path / "m.py").write_text("this is not Python")
    assert code_files(tmp_path, "m") == [tmp_path / "m.py"]


def test_a_hash_of_code(tmp_path):
    file = tmp_path / "m.py"
    file.write_text("a = 1")
    first = hash_code([file])
    assert hash_code([file]) == first
    file.write_text("a = 2")
    assert hash_code([file]) != first
