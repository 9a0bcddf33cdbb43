"""The number type of most weights, from a file's header or the configuration."""

import json

import pytest
import torch
from safetensors.torch import save_file

from nemo_embed_dask.models.stored_type import stored_type


def test_values_are_counted_and_not_tensors(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    tensors = {"a": torch.zeros(100, dtype=torch.bfloat16), "b": torch.zeros(3), "c": torch.zeros(3)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert stored_type(tmp_path) == torch.bfloat16


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("stated", ["bfloat16", "float16", "float32", "float64", None])
def test_pickled_weights_have_the_type_of_the_configuration(key, stated, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({key: stated}))
    torch.save({"a": torch.zeros(3)}, tmp_path / "pytorch_model.bin")
    expected = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(stated, torch.float32)
    assert stored_type(tmp_path) == expected


def test_a_damaged_file_is_left_to_the_loader(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"no header")
    assert stored_type(tmp_path) == torch.float32
    assert stored_type(tmp_path / "nowhere") == torch.float32
