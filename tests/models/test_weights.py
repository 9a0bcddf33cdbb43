from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from nemo_embed_dask.checks.reference import reference
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.settings import Settings

from ..helpers.cards import TEXTS, rewrite

peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def adapter(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(3)
    model = transformers.AutoModel.from_pretrained(tiny("bert"))
    config = peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(path)
    return path, adapted.eval()


def test_an_adapter_is_merged_at_load(tiny, adapter):
    path, model = adapter
    settings = Settings(ModelRef(str(tiny("bert"))), pooling="cls", autocast=False, adapter=str(path))
    got = embed_texts(TEXTS, settings).matrix
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("bert"))
    with torch.inference_mode():
        rows = [
            model(**tokenizer(text, return_tensors="pt", truncation=True)).last_hidden_state[0, 0]
            for text in TEXTS
        ]
    expected = torch.nn.functional.normalize(torch.stack(rows), dim=1)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(got, reference(TEXTS, settings), atol=1e-5)
    without = embed_texts(TEXTS, Settings(ModelRef(str(tiny("bert"))), pooling="cls", autocast=False)).matrix
    assert not np.allclose(got, without, atol=1e-2)


def test_error_for_a_directory_without_an_adapter(tiny, tmp_path):
    settings = Settings(ModelRef(str(tiny("bert"))), adapter=str(tmp_path))
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors"):
        embed_texts(["a"], settings)


def test_errors_for_weights_that_cannot_be_loaded(tiny, tmp_path):
    strange = rewrite(tiny("bert"), tmp_path / "a", config={"model_type": "new"})
    quantized = rewrite(tiny("bert"), tmp_path / "b", config={"quantization_config": {"quant_method": "gptq"}})
    pickled = rewrite(tiny("bert"), tmp_path / "c")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    for path, why in ((strange, "does not know"), (quantized, "quantized"), (pickled, "no safetensors")):
        with pytest.raises(ModelError, match=why):
            load_weights(path, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_and_shards_are_loaded_in_the_requested_dtype(dtype, tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m")
    (path / "model.safetensors").unlink()
    transformers.AutoModel.from_pretrained(tiny("bert"), dtype=dtype).save_pretrained(
        path, max_shard_size="20KB"
    )
    assert len(list(path.glob("*.safetensors"))) > 2
    exact, got = load_weights(tiny("bert"), torch.float32), load_weights(path, torch.float32)
    for name, weight in got.named_parameters():
        assert torch.equal(weight, exact.get_parameter(name).to(dtype).float()), name
    ids = torch.arange(5, 15)[None]
    assert not torch.equal(exact(input_ids=ids)[0], got(input_ids=ids)[0])
