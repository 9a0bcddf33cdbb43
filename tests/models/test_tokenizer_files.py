"""A tokenizer without its files is an error."""

from __future__ import annotations

import pytest
import transformers

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.files import missing_files
from nemo_embed_dask.models.tokenizer_files import check_tokenizer
from nemo_embed_dask.tokens.loading import load_with_transformers

from ..helpers.cards import rewrite


def test_an_empty_vocabulary_is_no_tokenizer(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m")
    (path / "tokenizer.json").unlink()
    (path / "tokenizer_config.json").unlink()
    (path / "vocab.txt").touch()
    assert missing_files(path) == ["tokenizer.json"]
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_with_transformers(path)


def test_a_tokenizer_of_bytes_needs_no_files(tmp_path):
    check_tokenizer(tmp_path, transformers.ByT5Tokenizer.vocab_files_names)
    with pytest.raises(ModelError, match="has no tokenizer"):
        check_tokenizer(tmp_path, transformers.GemmaTokenizer.vocab_files_names)
