from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from nemo_embed_dask import EmbeddingCreatorStage, calibrate, engine
from nemo_embed_dask.checks import reference_files
from nemo_embed_dask.checks.reference import reference
from nemo_embed_dask.checks.verification import verify
from nemo_embed_dask.cli.main import main
from nemo_embed_dask.errors import ConfigError
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens.texts import tokenize_texts

from ..helpers.cards import TEXTS, build, rewrite
from ..helpers.cards import reference as sentence_transformers


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    return build(
        tiny("bert"), tmp_path_factory.mktemp("verify") / "m", pooling=("mean", "weightedmean"), dense="tanh",
        normalize=True, include_prompt=False, prompts={"q": "query: "}, default_prompt_name="q",
    )  # fmt: skip


def stage_of(path, **changes):
    return EmbeddingCreatorStage(
        model_identifier=str(path), **{"embedding_pooling": "auto", "autocast": False, **changes}
    )


def test_reference_equals_sentence_transformers(model):
    settings = Settings(ModelRef(str(model)), pooling="auto", truncate_dim=7)
    expected = sentence_transformers(model, TEXTS, truncate_dim=7, normalize_embeddings=True)
    np.testing.assert_allclose(reference(TEXTS, settings), expected, atol=1e-5)


def test_right_vectors_pass(model):
    verdict = verify(stage_of(model, embedding_dtype="binary"), TEXTS, threshold=0.99999)
    assert verdict.passed
    assert verdict.third_opinion > 0.99999
    assert verdict.minimum <= verdict.mean
    assert verdict.truncated == 1 / len(TEXTS)
    np.testing.assert_allclose(verdict.norms, 1, atol=1e-5)
    assert "passed" in str(verdict)
    assert "worst rows" in str(verdict)


@pytest.fixture
def wrong_weights(model):
    """Change the weights of the loaded model, as a broken load would."""
    weight = engine.load_runtime(stage_of(model).settings).model.embeddings.word_embeddings.weight
    before = weight.clone()
    with torch.no_grad():
        weight[:] = weight.flip(0)
    yield
    with torch.no_grad():
        weight[:] = before


@pytest.mark.usefixtures("wrong_weights")
def test_wrong_vectors_fail(model):
    verdict = verify(stage_of(model), TEXTS, threshold=0.99)
    assert not verdict.passed
    assert verdict.worst[0][1] == verdict.minimum < 0.99
    assert "FAILED" in str(verdict)


def test_another_pooling_than_the_model_s_own_fails(model):
    with pytest.warns(UserWarning, match="made with"):
        verdict = verify(stage_of(model, embedding_pooling="cls+max"), TEXTS, threshold=0.99)
    assert verdict.minimum > 0.9999
    assert verdict.own_pooling < 0.99
    assert not verdict.passed
    assert "embedding_pooling='auto' uses it" in str(verdict)
    assert verify(stage_of(model, embedding_pooling="cls+max"), TEXTS, third_opinion=False).passed


@pytest.mark.parametrize(
    "changes",
    [{"prompt": "x: "}, {"prompt_name": "q"}, {"prompt": ""}, {"truncate_dim": 5}, {"max_seq_length": 12},
     {"max_chars": 9, "prompt": "y "}, {"padding_side": "left"}, {"normalize": False}],
    ids=str,
)  # fmt: skip
def test_the_third_opinion_uses_the_same_parameters(model, changes):
    verdict = verify(stage_of(model, **changes), TEXTS)
    assert min(verdict.minimum, verdict.third_opinion) > 0.99999


def test_files_in_half_precision(tiny, tmp_path):
    path = build(tiny("bert"), tmp_path / "m", pooling="mean")
    transformers.AutoModel.from_pretrained(tiny("bert"), dtype=torch.bfloat16).save_pretrained(path)
    assert verify(stage_of(path), TEXTS).third_opinion > 0.9999999


def test_a_failed_third_opinion_is_reported(tiny, tmp_path):
    """sentence-transformers pads even a single text, which fails without a padding token."""
    path = build(tiny("qwen3"), tmp_path / "m", pooling="lasttoken")
    settings = json.loads((path / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    verdict = verify(stage_of(path), TEXTS, threshold=0.99999)
    assert (verdict.third_opinion, verdict.passed) == (None, True)
    assert "sentence-transformers: failed: ValueError: Asking to pad" in str(verdict)


def test_a_third_opinion_that_fails_with_any_error_is_reported(tiny, tmp_path):
    """sentence-transformers raises a TypeError for names that are not strings, which this package does not use."""
    made = build(tiny("bert"), tmp_path / "made", pooling="cls")
    modules = json.loads((made / "modules.json").read_text())
    path = rewrite(
        made, tmp_path / "m", modules=[{**module, "name": index} for index, module in enumerate(modules)]
    )
    verdict = verify(stage_of(path), ["red"])
    assert (verdict.third_opinion, verdict.passed) == (None, True)
    assert verdict.no_third_opinion.startswith("failed: TypeError: ")


def test_rows_whose_vectors_overflow_are_reported(model):
    weight = engine.load_runtime(stage_of(model).settings).model.embeddings.word_embeddings.weight
    token = tokenize_texts(["jugs"], stage_of(model, prompt="").settings).ids.row(0)[1]
    before = weight[token].clone()
    with torch.no_grad():
        weight[token] = torch.inf
    try:
        verdict = verify(stage_of(model, prompt=""), ["fine", "liquor jugs", "fine too"], threshold=-1)
    finally:
        with torch.no_grad():
            weight[token] = before
    assert (verdict.failed, verdict.passed) == ([1], False)
    assert "without a finite vector: [1]" in str(verdict)


def test_a_row_without_a_vector_fails_at_any_threshold(model):
    verdict = verify(stage_of(model), TEXTS, threshold=-1)
    assert verdict.passed
    assert not dataclasses.replace(verdict, failed=[0]).passed


def test_lowercasing_is_that_of_sentence_transformers(tiny, tmp_path):
    """Python's `lower` differs: it knows a final sigma, and makes a special token of a typed "</S>"."""
    path = build(tiny("xlm-roberta"), tmp_path / "m", pooling="mean")
    path = rewrite(path, tmp_path / "lower", sentence_bert_config={"do_lower_case": True})
    verdict = verify(stage_of(path), [*TEXTS, "ΟΔΥΣΣΕΥΣ ΣΟΦΟΣ", "a </S> b <PAD>"], threshold=0.99999)
    assert verdict.passed
    assert verdict.third_opinion > 0.99999


def _without_special_tokens(path):
    """Remove the special tokens that the tokenizer of a model directory adds."""
    state = json.loads((path / "tokenizer.json").read_text())
    state["post_processor"] = None
    (path / "tokenizer.json").write_text(json.dumps(state))
    return path


@pytest.mark.parametrize("pooling", ["mean", "lasttoken"])
def test_a_text_without_tokens_has_no_vector_and_passes(pooling, tiny, tmp_path):
    path = _without_special_tokens(build(tiny("qwen3"), tmp_path / "m", pooling=pooling))
    verdict = verify(stage_of(path), ["", "fox", "dogs are lazy"], threshold=0.99999, third_opinion=False)
    assert (verdict.passed, verdict.failed) == (True, [])
    assert verify(stage_of(path), [""], threshold=0.99999).passed


@pytest.mark.parametrize("pooling", ["mean", "weightedmean", "lasttoken", "max", "cls"])
@pytest.mark.parametrize("prompt", ["query: ", "query:<|end|>", "<|end|>"])
@pytest.mark.parametrize("kind", ["qwen3", "bert"])
def test_tokens_of_a_prompt_that_are_not_pooled(kind, pooling, prompt, tiny, tmp_path):
    """Also where the prompt ends in a special token and nothing is appended (sentence-transformers#3598)."""
    path = build(tiny(kind), tmp_path / "m", pooling=pooling, include_prompt=False, prompts={"q": prompt})
    if kind == "qwen3":
        _without_special_tokens(path)
    else:
        prompt = prompt.replace("<|end|>", "[SEP]")
    texts = [text for text in TEXTS if text]
    expected = sentence_transformers(path, texts, prompt=prompt)
    vectors = engine.embed_texts(texts, stage_of(path, prompt=prompt).settings).matrix.numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert verify(stage_of(path, prompt=prompt), [*texts, ""], threshold=0.99999).passed


def test_verify_sees_what_a_tokenizer_has_lost(model):
    [backend] = [copy._backend for copy in engine.load_model(stage_of(model).settings).reader.tokenizer._copies]
    before = backend.normalizer
    backend.normalizer = None
    try:
        verdict = verify(stage_of(model, share_equal_texts=False), TEXTS)
    finally:
        backend.normalizer = before
    assert not verdict.passed
    assert verdict.minimum < 0.99


def test_verify_sees_a_weight_that_was_not_loaded(model, monkeypatch):
    """The reference assigns the weights in the file by itself."""
    monkeypatch.setattr(reference_files, "load_weights", None)
    weight = engine.load_runtime(stage_of(model).settings).model.embeddings.word_embeddings.weight.data
    before = weight.clone()
    weight.normal_()
    try:
        verdict = verify(stage_of(model), TEXTS, third_opinion=False)
    finally:
        weight.copy_(before)
    assert not verdict.passed
    assert verify(stage_of(model), TEXTS, third_opinion=False).passed


def test_the_reference_reads_only_the_weights_of_the_model(model, tmp_path):
    """Some repositories have the weights in another number type beside them."""
    path = shutil.copytree(model, tmp_path / "m")
    weights = load_file(path / "model.safetensors")
    save_file({name: value * 0 for name, value in weights.items()}, path / "model_fp16.safetensors")
    assert verify(stage_of(path), TEXTS, third_opinion=False).passed


def test_the_reference_does_not_depend_on_the_order_of_the_texts(tiny, tmp_path):
    """BigBird keeps full attention after a short text."""
    shutil.copytree(tiny("bert"), tmp_path / "m")
    config = transformers.BigBirdConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, initializer_range=0.5,
        max_position_embeddings=128, block_size=2, num_random_blocks=1, vocab_size=300, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BigBirdModel(config).save_pretrained(tmp_path / "m")
    settings = stage_of(tmp_path / "m", embedding_pooling="mean_pooling", max_seq_length=100).settings
    texts = ["jugs", "the fox jumps over the lazy dog " * 6, "jugs"]
    assert np.array_equal(reference(texts, settings)[1], reference(texts[1:], settings)[0])


def test_no_third_opinion_where_transformers_tokenizes_in_another_way(tiny, tmp_path):
    path = build(tiny("xlm-roberta"), tmp_path / "m", pooling="mean")
    path = rewrite(path, tmp_path / "class", tokenizer_config={"tokenizer_class": "XLMRobertaTokenizer"})
    verdict = verify(stage_of(path), [*TEXTS, "ﬁne ½"], threshold=0.99999)
    assert (verdict.passed, verdict.third_opinion) == (True, None)
    assert "texts differently from tokenizer.json" in verdict.no_third_opinion


@pytest.mark.parametrize("texts", ["a text", pd.DataFrame({"text": ["a"]})])
def test_one_text_or_a_frame_is_not_a_list_of_texts(texts, model, tmp_path):
    """Its characters, or the names of its columns, would be the texts."""
    stage = EmbeddingCreatorStage(model_identifier=str(model))
    with pytest.raises(ConfigError, match=r"^verify takes a list of texts, not a (str|DataFrame); pass"):
        verify(stage, texts)
    with pytest.raises(ConfigError, match=r"^calibrate takes a list of texts, not a (str|DataFrame); pass"):
        calibrate(stage, texts, tmp_path / "ranges.json")


def test_no_texts(model):
    for texts in ([], ["a", None]):
        with pytest.raises(ConfigError, match="without nulls"):
            verify(stage_of(model), texts)


@pytest.mark.usefixtures("wrong_weights")
def test_the_command_s_exit_code_is_1_under_the_threshold(model, tmp_path):
    pd.DataFrame({"text": TEXTS * 2}).to_parquet(tmp_path / "t.parquet")
    arguments = [str(tmp_path / "t.parquet"), "--model-identifier", str(model), "--embedding-pooling", "auto"]
    bad = CliRunner().invoke(main, ["verify", *arguments, "--no-autocast", "--threshold", "0.99"])
    assert (bad.exit_code, "FAILED" in bad.output) == (1, True), bad.output
    good = CliRunner().invoke(main, ["verify", *arguments, "--no-autocast", "--threshold", "-1"])
    assert good.exit_code == 0, good.output
    wrong = CliRunner().invoke(main, ["verify", *arguments, "--text-field", "nothing"])
    assert (wrong.exit_code, "there is no column 'nothing'" in wrong.output) == (2, True), wrong.output
    planned = CliRunner().invoke(main, ["plan", *arguments, "--seconds", "0", "--sample-rows", "10"])
    assert "rows truncated" in planned.output, planned.output
