"""The tokenizer that a model's authors used, against tokenizers' own reading of tokenizer.json and transformers 4."""

from __future__ import annotations

import json
import sys

import pytest
import transformers
from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Hf

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.tokens.huggingface import Tokenizer
from nemo_embed_dask.tokens.loading import _PROBES

from ..helpers import tokenizer_files as files
from ..helpers.versions import TRANSFORMERS, needs

STORED = json.loads(files.STORED.read_text(encoding="utf-8"))
PLAIN = [*files.TEXTS, *_PROBES]


def rows(path, texts):
    """What this package makes of texts."""
    ids = Tokenizer.from_directory(path).encode(texts, 1 << 20).ids
    return [ids.row(i).tolist() for i in range(len(texts))]


def as_written(path, texts):
    """What the tokenizers library makes of texts by tokenizer.json."""
    return [encoding.ids for encoding in Hf.from_file(str(path / "tokenizer.json")).encode_batch(texts)]


def as_built(path, texts):
    """What transformers makes of texts."""
    try:
        loaded = transformers.AutoTokenizer.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
    except Exception:
        return None
    return [encoding.ids for encoding in loaded.backend_tokenizer.encode_batch(texts)]


@pytest.mark.parametrize("case", STORED["ids"])
def test_options_mean_what_they_meant_in_transformers_4(case, tmp_path):
    assert rows(files.write_case(tmp_path / "m", case), [*files.TEXTS, files.LITERALS]) == STORED["ids"][case]


def test_the_stored_ids_are_those_of_all_cases():
    assert STORED["transformers"] == "4.57.6"
    assert list(STORED["ids"]) == list(files.cases())


def _metaspace(scheme="always"):
    return pre_tokenizers.Metaspace(prepend_scheme=scheme)


def _unigram(charsmap):
    """A tokenizer with a sentencepiece model's character map, which keeps its blanks apart."""
    squeezed = normalizers.Replace(Regex(" {2,}"), " ")
    normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Lowercase(), squeezed])
    return files.unigram(
        before=["<s>"], after=["</s>"], normalizer=normalizer, pre_tokenizer=_metaspace("first")
    )


@pytest.fixture(scope="module")
def charsmap():
    """The character map that sentencepiece puts into models with NFKC normalization."""
    import io

    import sentencepiece
    from transformers.convert_slow_tokenizer import import_protobuf

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(files.TEXTS * 9), model_writer=model, vocab_size=40, hard_vocab_limit=False,
        minloglevel=2,
    )  # fmt: skip
    parsed = import_protobuf().ModelProto()
    parsed.ParseFromString(model.getvalue())
    return parsed.normalizer_spec.precompiled_charsmap


@pytest.mark.parametrize(
    "name",
    [
        "DebertaV2",
        "XLMRoberta",
        "T5",
        "Camembert",
        "Albert",
        "BigBird",
        "RemBert",
        "XLNet",
        "Pegasus",
        "Udop",
        "XGLM",
    ],
)
def test_a_sentencepiece_class_is_read_as_its_file_says(name, charsmap, tmp_path):
    path = files.write(tmp_path / "m", _unigram(charsmap), name, files.ROBERTA)
    assert rows(path, PLAIN) == as_written(path, PLAIN)
    assert as_built(path, PLAIN) != as_written(path, PLAIN)  # so the file decides


@pytest.mark.parametrize("name", ["Roberta", "Bert", "MPNet", "GPT2", "Bart", None])
def test_a_class_that_does_not_fit_the_file_is_read_as_its_file_says(name, charsmap, tmp_path):
    """paraphrase-multilingual-MiniLM-L12-v2 names no class and has the type bert; mmlw names RobertaTokenizer."""
    path = files.write(tmp_path / "m", _unigram(charsmap), name, files.ROBERTA)
    (path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert rows(path, PLAIN) == as_written(path, PLAIN)
    assert as_built(path, PLAIN) != as_written(path, PLAIN)


def test_roberta_over_wordpiece_is_read_as_its_file_says(tmp_path):
    path = files.write(tmp_path / "m", files.wordpiece(lowercase=True), "Roberta", {"model_max_length": 64})
    assert rows(path, PLAIN) == as_written(path, PLAIN)
    assert as_built(path, PLAIN) != as_written(path, PLAIN)


def test_gpt_neox_keeps_the_special_tokens_of_its_file(tmp_path):
    tokenizer = files.byte_level(["<bos>", "<eos>"], ["<bos>"], ["<eos>"])
    path = files.write(tmp_path / "m", tokenizer, "GPTNeoX", {"bos_token": "<bos>", "eos_token": "<eos>"})
    assert rows(path, PLAIN) == as_written(path, PLAIN)
    assert as_built(path, PLAIN) != as_written(path, PLAIN)


@pytest.mark.parametrize("name", ["Qwen2", "PreTrained", "GPTNeoX", "GPT2"])
def test_an_eos_that_only_the_options_ask_for_is_added(name, tmp_path):
    """gte-Qwen2 and e5-mistral have last-token pooling and this option (mteb#5237)."""
    tokenizer = files.byte_level(["<|endoftext|>"], [], [])
    options = {"eos_token": "<|endoftext|>", "bos_token": None, "add_eos_token": True}
    path = files.write(tmp_path / "m", tokenizer, name, options)
    assert rows(path, PLAIN) == [[*ids, 0] for ids in as_written(path, PLAIN)]


@pytest.mark.parametrize("options", [{"eos_token": None}, {}], ids=str)
def test_an_eos_that_is_not_named_is_refused(options, tmp_path):
    tokenizer = files.byte_level(["<|endoftext|>"], [], [])
    path = files.write(tmp_path / "m", tokenizer, "PreTrained", {**options, "add_eos_token": True})
    with pytest.raises(ModelError, match="add_eos_token"):
        Tokenizer.from_directory(path)


def test_a_dropout_is_refused(tmp_path):
    tokenizer = files.byte_level(["<|endoftext|>"], [], [])
    tokenizer.model.dropout = 0.5
    with pytest.raises(ModelError, match="dropout"):
        Tokenizer.from_directory(files.write(tmp_path / "m", tokenizer, "PreTrained", {}))


def test_tokens_of_other_files_are_added(tmp_path):
    added = {"content": "<new>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False,
             "special": True}  # fmt: skip
    tokenizer = files.wordpiece(lowercase=True)
    number = tokenizer.get_vocab_size()
    options = {"added_tokens_decoder": {str(number): added}}
    path = files.write(tmp_path / "m", tokenizer, "Bert", options)
    assert rows(path, ["x <new> x"])[0].count(number) == 1


def test_files_that_contradict_each_other_are_refused(tmp_path):
    """transformers 4 took the option of such a class, and transformers 5 takes the file."""
    options = {"do_lower_case": False}
    path = files.write(tmp_path / "m", files.wordpiece(lowercase=True), "ConvBert", options)
    with pytest.raises(ModelError, match=r"tokenizer.json and tokenizer_config.json .* contradict"):
        Tokenizer.from_directory(path)


def _sentencepiece_directory(path, name, file, **ids):
    """A directory whose only tokenizer is a sentencepiece model with NFKC normalization."""
    import sentencepiece

    path.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(PLAIN * 9), model_prefix=str(path / "m"), vocab_size=200, hard_vocab_limit=False,
        minloglevel=2, character_coverage=1.0, **ids,
    )  # fmt: skip
    (path / "m.model").rename(path / file)
    (path / "m.vocab").unlink()
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": f"{name}Tokenizer"}))
    return path


@needs("transformers", TRANSFORMERS, "5.6 splits texts differently from the file, and the model is refused")
@pytest.mark.parametrize(
    ("name", "file"), [("XLMRoberta", "sentencepiece.bpe.model"), ("Camembert", "sentencepiece.bpe.model")]
)
def test_a_sentencepiece_model_alone_is_enough(name, file, tmp_path):
    import sentencepiece

    path = _sentencepiece_directory(tmp_path / "m", name, file)
    tokenizer = Tokenizer.from_directory(path)
    model = sentencepiece.SentencePieceProcessor(model_file=str(path / file))
    vocabulary = {model.id_to_piece(i): i for i in range(model.get_piece_size())}
    unseen = "Some new text, 2026: naïve ﬁsh  and ｆｕｌｌ width"
    for text in [*PLAIN, unseen]:
        ids = tokenizer.encode([text], 1 << 20).ids.values.tolist()[1:-1]
        pieces = [tokenizer._backend.id_to_token(i) for i in ids]
        assert pieces == [p if p in vocabulary else "<unk>" for p in model.encode(text, out_type=str)], text


def test_a_sentencepiece_model_that_transformers_reads_differently_is_refused(tmp_path):
    path = _sentencepiece_directory(tmp_path / "m", "DebertaV2", "spm.model")
    with pytest.raises(ModelError, match=r"differently from .*spm\.model"):
        Tokenizer.from_directory(path)


@pytest.mark.parametrize("missing", ["sentencepiece", "google.protobuf"])
def test_what_to_install_for_a_sentencepiece_model_is_said(missing, tmp_path, monkeypatch):
    path = _sentencepiece_directory(tmp_path / "m", "XLMRoberta", "sentencepiece.bpe.model")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModelError, match=r"pip install 'nemo-embed-dask\[sentencepiece\]'"):
        Tokenizer.from_directory(path)
