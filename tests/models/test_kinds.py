from __future__ import annotations

import pytest

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card

from ..helpers.cards import build, rewrite


def test_an_adapter_is_not_a_model(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m", adapter_config={"peft_type": "LORA"})
    with pytest.raises(ModelError, match="adapter="):
        read_card(path)


def test_custom_code_is_not_run_and_a_warning_says_so(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m", config={"auto_map": {"AutoModel": "modeling_x.Model"}})
    with pytest.warns(UserWarning, match="custom model code, which is not run; transformers' own 'bert'"):
        read_card(path)


@pytest.mark.parametrize("kind", ["SparseEncoder", "CrossEncoder", None, 3])
def test_error_for_a_model_that_was_saved_as_another_kind(kind, tiny, tmp_path):
    """sentence-transformers would ignore its modules, or run a cross encoder's as those of an embedding model."""
    made = build(tiny("bert"), tmp_path / "made", pooling="cls")
    path = rewrite(made, tmp_path / "m", config_sentence_transformers={"model_type": kind})
    with pytest.raises(ModelError, match=r"config_sentence_transformers\.json: 'model_type' is .*saved as a"):
        read_card(path)
    assert read_card(made).pooling == "cls"
