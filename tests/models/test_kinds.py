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


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("SparseEncoder", "a SparseEncoder"),
        ("CrossEncoder", "a CrossEncoder"),
        (None, "of the unknown kind None"),
        (3, "of the unknown kind 3"),
        ("SentenceTransformer", ""),
    ],
)
def test_the_kind_that_a_model_was_saved_as(kind, named, tiny, tmp_path):
    made = build(tiny("bert"), tmp_path / "made", pooling="cls")
    path = rewrite(made, tmp_path / "m", config_sentence_transformers={"model_type": kind})
    assert read_card(path).other_kind == named


@pytest.mark.parametrize(
    ("architecture", "named"),
    [
        ("BertForSequenceClassification", "a BertForSequenceClassification"),
        ("XLMRobertaForTokenClassification", "a XLMRobertaForTokenClassification"),
        ("BertForQuestionAnswering", "a BertForQuestionAnswering"),
        ("HF_ColBERT", "a HF_ColBERT"),
        ("BertForSequenceRegression", "a BertForSequenceRegression"),
        ("BertReranker", "a BertReranker"),
        ("BertForMaskedLM", ""),
        ("BertModel", ""),
        ("Qwen3ForCausalLM", ""),
    ],
)
def test_the_head_that_a_model_without_modules_was_saved_with(architecture, named, tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m", config={"architectures": [architecture]})
    assert read_card(path).other_kind == named
    with_modules = build(path, tmp_path / "made", pooling="cls")
    assert read_card(with_modules).other_kind == ""


@pytest.mark.parametrize(
    ("first", "named"),
    [("BertForMaskedLM", "a BertForSequenceClassification"), ("BertModel", ""), ("HF_ColBERT", "a HF_ColBERT")],
)
def test_every_class_that_a_file_lists_counts(first, named, tiny, tmp_path):
    """The second case is that of gte-multilingual-base, an embedding model."""
    architectures = {"architectures": [first, "BertForSequenceClassification"]}
    assert read_card(rewrite(tiny("bert"), tmp_path / "m", config=architectures)).other_kind == named


def test_files_of_colbert_name_its_kind(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m")
    (path / "artifact.metadata").write_text("{}")
    assert read_card(path).other_kind == "a ColBERT model"


def test_a_decoder_with_own_code_must_say_what_its_tokens_attend_to(tiny, tmp_path):
    """As gte-Qwen2 and stella_en_1.5B_v5, whose code makes Qwen2 bidirectional."""
    code = {"architectures": ["Qwen2ForCausalLM"], "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}}
    path = rewrite(tiny("qwen2"), tmp_path / "m", config=code)
    with pytest.raises(ModelError, match=r"model 'm' has custom code .*is_causal.*trust_remote_code=True"):
        read_card(path)
    said = rewrite(path, tmp_path / "said", config={"is_causal": False})
    with pytest.warns(UserWarning, match="which is not run"):
        assert read_card(said).pooling == "mean_pooling"
    generates = {"auto_map": {"AutoModelForCausalLM": "modeling_qwen.Qwen2ForCausalLM"}}
    other = rewrite(tiny("qwen2"), tmp_path / "other", config=code | generates)
    assert read_card(other).pooling == "last_token"
