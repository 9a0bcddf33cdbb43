"""Check the signatures of cuDF's WordPiece that we call. Their results need a GPU, see tests/gpu."""

import inspect

import numpy as np
import pandas as pd
import pytest

from nemo_embed_dask.tokens.gpu_texts import GpuTextOps

pytestmark = pytest.mark.rapids


def names(call):
    return [name for name in inspect.signature(call).parameters if name != "self"]


def test_the_calls_that_we_make():
    import cudf
    from cudf.core.accessors.string import StringMethods
    from cudf.core.character_normalizer import CharacterNormalizer
    from cudf.core.wordpiece_tokenize import WordPieceVocabulary

    assert names(CharacterNormalizer) == ["do_lower", "special_tokens"]
    assert names(CharacterNormalizer.normalize) == ["text"]
    assert names(WordPieceVocabulary) == ["vocabulary"]
    assert names(WordPieceVocabulary.tokenize) == ["text", "max_words_per_row"]
    assert names(StringMethods.slice)[:2] == ["start", "stop"]
    assert names(StringMethods.slice_replace) == ["start", "stop", "repl"]
    assert names(StringMethods.lstrip) == ["to_strip"]
    assert names(cudf.Series.factorize) == ["sort", "use_na_sentinel"]
    assert names(cudf.Series.nunique) == ["dropna"]
    assert names(StringMethods.len) == names(StringMethods.code_points) == names(cudf.Series.notna) == []
    assert "drop" in names(cudf.Series.reset_index)
    assert names(cudf.Series.dropna)[0] == "axis"
    assert cudf.dtype("str") == pd.StringDtype(na_value=np.nan)


def test_the_module_is_what_the_tokenizing_asks_for():
    from nemo_embed_dask.frames import cudf_wordpiece

    for name, call in inspect.getmembers(GpuTextOps, inspect.isfunction):
        if not name.startswith("_"):
            assert names(getattr(cudf_wordpiece, name)) == names(call), name
