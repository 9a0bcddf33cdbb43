"""Messages about models that cannot be loaded, and errors of their own code."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.settings import Settings

from ..helpers.alibaba import make_new
from ..helpers.cards import rewrite
from ..helpers.own_code import AUTO_MAP, change_json, make_own
from ..helpers.versions import NEEDS_GTE, NEEDS_PICKLES

pytestmark = pytest.mark.filterwarnings("ignore:.*custom model code", "ignore:trust_remote_code=True")
JINA = {"AutoConfig": "configuration_bert.JinaBertConfig", "AutoModel": "modeling_bert.JinaBertModel"}
ALIBI = {"position_embedding_type": "alibi", "attn_implementation": "torch"}


def refusal(path, **changes):
    """The message with which a model is refused; ``changes`` are fields of its ModelRef."""
    with pytest.raises(ModelError) as caught:
        embed_texts(["a"], Settings(ModelRef(str(path), **changes), pooling="mean_pooling"))
    return str(caught.value)


def test_a_model_that_needs_code_is_not_only_called_damaged(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "with", config={**ALIBI, "auto_map": JINA})
    with pytest.raises(ModelError, match=r"trust_remote_code=True .* or use .*gte-base-en.* fetch the model"):
        load_weights(path, torch.float32)
    path = rewrite(tiny("bert"), tmp_path / "without", config=ALIBI)
    with pytest.raises(ModelError, match="load.* use a model that transformers implements.*gte-base.* fetch"):
        load_weights(path, torch.float32)


@NEEDS_PICKLES
def test_a_refused_pickle_keeps_its_advice(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "model")
    weights = load_file(path / "model.safetensors")
    torch.save({"state_dict": weights}, path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    message = refusal(path)
    assert "something other than weights by name: ask its authors for safetensors" in message
    assert "cannot be loaded by transformers" not in message


@pytest.mark.parametrize("file", ["modeling_own.py", "configuration_own.py"])
@pytest.mark.parametrize("line", ["raise SystemExit(3)", "raise type('Stop', (BaseException,), {})('now')"])
def test_code_cannot_end_the_process(file, line, tmp_path):
    path = make_own(tmp_path / "own")
    source = path / file
    source.write_text(source.read_text() + f"\n{line}\n")
    assert f"{file} of model 'own' cannot be imported" in refusal(path, trust_remote_code=True)


def test_code_that_exits_when_its_model_is_built(tmp_path):
    path = make_own(tmp_path / "own")
    source = path / "modeling_own.py"
    text = source.read_text()
    assert "super().__init__(config)" in text
    source.write_text(text.replace("super().__init__(config)", "raise SystemExit(3)"))
    message = refusal(path, trust_remote_code=True)
    assert "'own' cannot be loaded with its own code (SystemExit: 3)" in message


def test_an_auto_map_that_names_no_class(tmp_path):
    path = make_own(tmp_path / "own")
    change_json(path / "config.json", auto_map={**AUTO_MAP, "AutoModel": "modeling_own.torch"})
    assert "modeling_own.torch for AutoModel, which is not a class" in refusal(path, trust_remote_code=True)


def test_trust_is_not_advised_twice(tmp_path):
    path = make_own(tmp_path / "own")
    change_json(path / "config.json", auto_map={"AutoModel": "modeling_own.OwnModel"})
    message = refusal(path, trust_remote_code=True)
    assert "none for its configuration (AutoConfig in auto_map" in message
    assert "trust_remote_code" not in message


@NEEDS_GTE
def test_code_is_named_for_a_setting_that_the_renamed_type_lacks(tmp_path):
    path = make_new(tmp_path / "new", logn_attention_clip1=True)
    message = refusal(path)
    assert "logn_attention_clip1" in message
    assert "trust_remote_code=True" in message


def test_a_tokenizer_that_exits_when_it_is_built(tmp_path):
    path = make_own(tmp_path / "own")
    (path / "tokenization_own.py").write_text(
        "class Exits:\n    def from_pretrained(*args, **options):\n        raise SystemExit(3)\n"
    )
    change_json(path / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "tokenization_own.Exits"]})
    message = refusal(path, trust_remote_code=True)
    assert "cannot load the tokenizer of model 'own'" in message
    assert "SystemExit: 3" in message
