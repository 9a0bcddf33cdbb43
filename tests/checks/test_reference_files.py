"""The reference's own reading of tokenizers: the same ids as the engine, by other code."""

from __future__ import annotations

import json

import pytest

from nemo_embed_dask.checks.reference_files import load_tokenizer
from nemo_embed_dask.models.card import ModelCard
from nemo_embed_dask.tokens.huggingface import Tokenizer

from ..helpers import tokenizer_files as files

TEXTS = [*files.TEXTS, files.LITERALS, "hello " * 30]
ADDED = {"lstrip": True, "rstrip": False, "normalized": False, "single_word": False, "special": True}


def both(path, limit=16):
    """Return the ids of the reference and of the engine."""
    tokenize, _ = load_tokenizer(ModelCard(path, limit), limit)
    ids = Tokenizer.from_directory(path).encode(TEXTS, limit).ids
    return [tokenize(text) for text in TEXTS], [ids.row(i).tolist() for i in range(len(TEXTS))]


@pytest.mark.parametrize("case", files.cases())
def test_options_mean_the_same_in_the_reference(case, tmp_path):
    theirs, ours = both(files.write_case(tmp_path / "m", case))
    assert theirs == ours


@pytest.mark.parametrize("name", ["Bert", None, "PreTrained", "Roberta", "NomicBert"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_lower_case": False},
        {"tokenize_chinese_chars": False},
        {"added_tokens_decoder": {"3": {"content": "[SEP]", **ADDED}}},
        {"truncation_side": "left"},
    ],
    ids=str,
)
def test_classes_mean_the_same_in_the_reference(name, options, tmp_path):
    path = files.write(tmp_path / "m", files.wordpiece(lowercase=True), name, options)
    (path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (path / "added_tokens.json").write_text(
        json.dumps({"hello world": files.wordpiece(lowercase=True).get_vocab_size()})
    )
    theirs, ours = both(path)
    assert theirs == ours
