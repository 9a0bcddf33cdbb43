"""A model's own code runs if the user trusts it, and gives the vectors of the plain model, one text at a time."""

from __future__ import annotations

import json
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.engine.digests import model_digests
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import find_card
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.remote_code import CODE_PACKAGE
from nemo_embed_dask.settings import Settings

from ..helpers.cards import TEXTS, load
from ..helpers.own_code import AUTO_MAP, change_json, copy_code, make_own
from ..helpers.own_model.configuration_own import OwnConfig
from ..helpers.own_model.modeling_own import OwnModel
from ..helpers.tiny import make_tiny

pytestmark = pytest.mark.filterwarnings("ignore:trust_remote_code=True", "ignore:model .* has custom")


def settings(path, *, trust=True, **changes):
    ref = ModelRef(str(path), trust_remote_code=trust)
    return Settings(ref, **{"pooling": "mean_pooling", "autocast": False, **changes})


def embed(path, texts=TEXTS, **changes):
    return np.asarray(embed_texts(texts, settings(path, **changes)).matrix)


def alone(path, texts=TEXTS):
    """Unit vectors of the class as it is imported by the tests, from one text at a time without padding."""
    model = OwnModel(OwnConfig.from_pretrained(path)).eval()
    model.load_state_dict(load_file(path / "model.safetensors"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text, truncation=True, max_length=64)])
        with torch.inference_mode():
            out = model(ids, torch.ones_like(ids))
        states = (
            out
            if isinstance(out, torch.Tensor)
            else out["last_hidden_state"]
            if isinstance(out, dict)
            else out[0]
        )
        rows.append(torch.nn.functional.normalize(states[0].mean(0), dim=0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("output", ["tuple", "dict", "tensor", "output"])
@pytest.mark.parametrize("alibi", [False, True])
def test_models_of_own_code(output, alibi, tmp_path):
    path = make_own(tmp_path / "m", output=output, alibi=alibi)
    np.testing.assert_allclose(embed(path), alone(path), atol=1e-5)


def test_tables_that_are_computed_and_not_saved(tmp_path):
    """transformers 5 builds models without memory, and leaves any values in tables that no file has."""
    path = make_own(tmp_path / "m", tables=True)
    np.testing.assert_allclose(embed(path), alone(path), atol=1e-5)
    assert (embed(path, autocast=True) * alone(path)).sum(axis=1).min() > 0.99
    assert np.abs(embed(path) - embed(make_own(tmp_path / "n"))).max() > 1e-2


@pytest.mark.parametrize("output", ["dict", "output"])
def test_sentence_transformers_gives_the_same_vectors(output, tmp_path, monkeypatch):
    path = make_own(tmp_path / "m", output=output)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    theirs = load(path, trust_remote_code=True).encode(TEXTS, batch_size=1, normalize_embeddings=True)
    np.testing.assert_allclose(embed(path), theirs, atol=1e-5)


def test_bfloat16(tmp_path):
    path = make_own(tmp_path / "m", output="tuple")
    cosines = (embed(path, autocast=True) * alone(path)).sum(axis=1)
    assert cosines.min() > 0.99


def test_models_that_give_no_token_states_are_refused(tmp_path):
    for output, why in (
        ("vectors", "its output has sentence_embeddings and no last_hidden_state"),
        ("pooled", "one vector"),
    ):
        path = make_own(tmp_path / output, output=output)
        with pytest.raises(ModelError, match=f"OwnModel of '{output}' gives no states .*{why}"):
            embed(path)


def test_code_that_fails_when_it_runs(tmp_path):
    path = make_own(tmp_path / "m")
    code = path / "modeling_own.py"
    code.write_text(
        code.read_text().replace("mask = attention_mask", "self.config.use_return_dict2; mask = attention_mask")
    )
    with pytest.raises(
        ModelError, match="OwnModel of 'm' gives no states .*use_return_dict2.*autocast=False, or the version"
    ):
        embed(path)


def test_without_trust_the_model_is_refused_and_the_message_says_how(tmp_path):
    path = make_own(tmp_path / "m")
    with pytest.raises(ModelError, match="does not know the model 'm'.*trust_remote_code=True"):
        embed(path, trust=False)


@pytest.fixture
def own_bert(tmp_path):
    path = make_tiny("bert", tmp_path / "own_bert")
    change_json(path / "config.json", auto_map={"AutoModel": "modeling_own.OwnBert"})
    copy_code(path)
    return path


def test_the_models_own_class_comes_before_that_of_transformers(own_bert):
    with pytest.warns(UserWarning, match="not run; transformers' own 'bert' is used"):
        theirs = embed(own_bert, trust=False)
    with pytest.warns(UserWarning, match=r"'own_bert' runs code in this process.*modeling_own\.py.*SHA-256"):
        own = embed(own_bert)
    np.testing.assert_allclose(own, theirs[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(embed(own_bert, trust=False), theirs, atol=0)  # each has its own cached model


def test_trusting_one_model_changes_nothing_for_others(own_bert, tiny):
    before = embed(tiny("bert"), trust=False)
    embed(own_bert)
    assert (
        transformers.AutoModel.from_pretrained(tiny("bert"), trust_remote_code=False).__class__
        is transformers.BertModel
    )
    from nemo_embed_dask import runtimes

    runtimes.unload()
    np.testing.assert_array_equal(embed(tiny("bert"), trust=False), before)


def test_one_warning_per_process(tmp_path):
    path = make_own(tmp_path / "m")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            embed(path, ["a"])
            find_card(ModelRef(str(path), trust_remote_code=True))
    mine = [str(one.message) for one in caught if "trust_remote_code=True" in str(one.message)]
    assert len(mine) == 1
    assert "configuration_own.py, modeling_own.py of 'm'" in mine[0]


def test_changed_code_is_loaded_again_and_changes_the_digests(own_bert):
    first, digests = embed(own_bert), model_digests(settings(own_bert))
    assert digests.keys() == {*model_digests(settings(own_bert, trust=False)), "code"}
    code = own_bert / "modeling_own.py"
    code.write_text(code.read_text().replace(".flip(-1)", ".clone()"))
    np.testing.assert_allclose(embed(own_bert), first[:, ::-1], atol=1e-5)
    changed = model_digests(settings(own_bert))
    assert {name for name in digests if digests[name] != changed[name]} == {"code"}


def test_importing_leaves_the_directory_as_it_was(own_bert):
    names = {path.name for path in own_bert.iterdir()}
    embed(own_bert)
    assert {path.name for path in own_bert.iterdir()} == names
    assert [name for name in sys.modules if name.startswith(CODE_PACKAGE)]


def test_code_that_cannot_be_imported_or_is_missing(tmp_path):
    path = make_own(tmp_path / "m")
    (path / "configuration_own.py").write_text("import no_such_package\n")
    with pytest.raises(
        ModelError, match="configuration_own.py of model 'm' cannot be imported .*no_such_package.*install"
    ):
        embed(path)
    (path / "configuration_own.py").unlink()
    with pytest.raises(ModelError, match="model 'm' needs configuration_own.py, a file of its own code"):
        embed(path)


def test_code_that_does_not_fit_its_files(tmp_path):
    path = make_own(tmp_path / "m")
    code = path / "modeling_own.py"
    code.write_text(code.read_text().replace("super().__init__(config)", "super().__init__(config); 1 / 0"))
    with pytest.raises(ModelError, match="'m' cannot be loaded with its own code .*ZeroDivisionError"):
        embed(path)


TOKENIZER = """
from transformers import PreTrainedTokenizerFast, PythonBackend

class OwnTokenizer(PreTrainedTokenizerFast):
    pass

class OtherIds(PreTrainedTokenizerFast):
    def _encode_plus(self, *args, **kwargs):
        out = super()._encode_plus(*args, **kwargs)
        out["input_ids"] = [7, *out["input_ids"]]
        return out

class SlowTokenizer(PythonBackend):
    vocab_files_names = {}
    @property
    def vocab_size(self):
        return 0
    def get_vocab(self):
        return {}
"""


def _with_tokenizer(path, name):
    (path / "tokenization_own.py").write_text(TOKENIZER)
    auto_map = {"AutoTokenizer": [None, f"tokenization_own.{name}"]}
    change_json(path / "tokenizer_config.json", tokenizer_class=name, auto_map=auto_map)
    return path


def test_fast_tokenizers_of_own_code(tmp_path):
    plain = make_own(tmp_path / "plain")
    own = _with_tokenizer(shutil.copytree(plain, tmp_path / "own"), "OwnTokenizer")
    np.testing.assert_array_equal(embed(own), embed(plain))
    other = _with_tokenizer(make_own(tmp_path / "other"), "OtherIds")
    with pytest.raises(
        ModelError, match="a OtherIds of its own code, gives other tokens than its tokenizer.json"
    ):
        embed(other)
    slow = _with_tokenizer(make_own(tmp_path / "slow"), "SlowTokenizer")
    with pytest.raises(ModelError, match="'slow' has a SlowTokenizer, which the tokenizers library cannot run"):
        embed(slow)


def test_code_in_another_repository_needs_its_commit(tmp_path):
    upstream = {name: f"someone/code--{reference}" for name, reference in AUTO_MAP.items()}
    path = make_own(tmp_path / "m", auto_map=upstream, with_code=False)
    with pytest.raises(
        ModelError, match="'m' takes its code from the repository 'someone/code', whose commit was not given"
    ):
        embed(path)
    cached = tmp_path / "cache" / "models--someone--code" / "snapshots" / ("a" * 40)
    cached.mkdir(parents=True)
    ref = ModelRef(str(path), cache_dir=str(tmp_path / "cache"), trust_remote_code=True, code_revision="a" * 40)
    chosen = Settings(ref, autocast=False)
    with pytest.raises(ModelError, match=f"whose commit {'a' * 40} was not found .*hf download someone/code"):
        embed_texts(TEXTS, chosen)
    copy_code(cached)
    with pytest.warns(UserWarning, match=f"of 'someone/code' .commit {'a' * 40}"):
        found = embed_texts(TEXTS, chosen).matrix
    np.testing.assert_allclose(found, alone(path), atol=1e-5)
    local = make_own(tmp_path / "local")
    assert model_digests(chosen)["code"] == model_digests(settings(local))["code"]


def test_an_adapter_for_a_model_with_code(tmp_path):
    path = make_own(tmp_path / "m", output="output")
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["qkv"], init_lora_weights=False)
    adapted = peft.get_peft_model(OwnModel.from_pretrained(path, dtype=torch.float32), config).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    found = embed(path, ["a dog"], adapter=str(tmp_path / "adapter"))
    ids = torch.tensor(
        [transformers.PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json")).encode("a dog")]
    )
    with torch.inference_mode():
        expected = adapted(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(found[0], torch.nn.functional.normalize(expected, dim=0), atol=1e-5)
    assert np.abs(found - embed(path, ["a dog"])).max() > 1e-2


def test_weights_of_tokens_need_a_class_of_transformers(own_bert):
    with pytest.raises(
        ModelError, match="head is known only in transformers' own classes: leave trust_remote_code out"
    ):
        embed(own_bert, pooling="splade")


def test_modules_of_own_code_are_refused(tmp_path):
    path = make_own(tmp_path / "m")
    module = {"idx": 0, "name": "0", "path": "", "type": "custom_st.Transformer"}
    (path / "modules.json").write_text(json.dumps([module]))
    with pytest.raises(
        ModelError, match=r"'custom_st.Transformer', .*trust_remote_code=True runs none for modules"
    ):
        embed(path)


def test_trust_is_not_advised_where_it_would_not_help(tmp_path):
    path = make_own(tmp_path / "m", auto_map={"AutoConfig": AUTO_MAP["AutoConfig"]})
    with pytest.raises(ModelError, match="does not know the model 'm'") as caught:
        embed(path)
    assert "trust_remote_code=True" not in str(caught.value)


def test_an_adapter_whose_base_has_code_is_refused(tmp_path):
    base = make_own(tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    shutil.copy(base / "model.safetensors", adapter / "adapter_model.safetensors")
    with pytest.raises(
        ModelError, match="'adapter' is a PEFT adapter of 'base', which has code of its own: pass the base"
    ):
        embed(adapter)
