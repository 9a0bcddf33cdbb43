"""Pickled files that hold anything but weights are refused, and nothing in them is run."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.torch_version import TorchVersion

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.weights import load_weights

from ..helpers.cards import build, rewrite
from ..helpers.versions import NEEDS_PICKLES
from .test_pickled import pickle_weights, vectors

pytestmark = [
    NEEDS_PICKLES,
    pytest.mark.filterwarnings("ignore:.*has no safetensors", "ignore:Detected pickle protocol"),
]


class _WritesAFile:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def _tar(path, _tensors):
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "storages")


def _cut(path, tensors):
    torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _whole_model(path, _tensors):
    torch.save(torch.nn.Linear(2, 2), path)


def _code(path, tensors):
    torch.save(tensors | {"code": _WritesAFile(path.with_name("written"))}, path)


def _plain_code(path, _tensors):
    path.write_bytes(pickle.dumps(_WritesAFile(path.with_name("written"))))


REFUSED = {
    "code": (_code, "as weights alone"),
    "code in a plain pickle": (_plain_code, "as weights alone"),
    "a whole model": (_whole_model, "as weights alone"),
    "a tar file": (_tar, "as weights alone"),
    "half a file": (_cut, "as weights alone"),
    "protocol 4": (lambda path, tensors: torch.save(tensors, path, pickle_protocol=4), "as weights alone"),
    "empty": (lambda path, _: path.write_bytes(b""), "as weights alone"),
    "a page": (lambda path, _: path.write_text("<html>"), "as weights alone"),
    "a list": (lambda path, tensors: torch.save(list(tensors.values()), path), "other than weights by name"),
    "nested": (lambda path, tensors: torch.save({"model": tensors}, path), "other than weights by name"),
    "numbers for names": (lambda path, _: torch.save({1: torch.ones(2)}, path), "other than weights by name"),
    "sparse": (
        lambda path, tensors: torch.save(tensors | {"x": torch.eye(2).to_sparse()}, path),
        "other than weights by name",
    ),
    "complex": (
        lambda path, tensors: torch.save(tensors | {"x": torch.ones(2, dtype=torch.complex64)}, path),
        "other than weights by name",
    ),
    "without data": (
        lambda path, tensors: torch.save(tensors | {"x": torch.empty(2, device="meta")}, path),
        "other than weights by name",
    ),
    "others": (lambda path, tensors: torch.save({}, path), "lacks weights"),
}


@pytest.mark.parametrize("damage", REFUSED)
def test_anything_but_weights_is_refused_and_never_run(damage, tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "model")
    write, message = REFUSED[damage]
    tensors = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    write(path / "pytorch_model.bin", tensors)
    with pytest.raises(ModelError, match=rf"pytorch_model\.bin .*{message}|model 'model' {message}"):
        load_weights(path, torch.float32)
    assert not (path / "written").exists()
    layer = build(tiny("bert"), tmp_path / "d", pooling="mean", dense="none")
    (layer / "2_Dense" / "model.safetensors").unlink()
    write(layer / "2_Dense" / "pytorch_model.bin", tensors)
    with pytest.raises(ModelError, match=r"2_Dense/pytorch_model\.bin"):
        vectors(layer)
    assert not (layer / "2_Dense" / "written").exists()


def test_the_pickle_of_these_tests_does_write_a_file(tmp_path):
    _plain_code(tmp_path / "pytorch_model.bin", {})
    pickle.loads((tmp_path / "pytorch_model.bin").read_bytes())
    assert (tmp_path / "written").exists()


def test_versions_of_torch_that_cannot_read_them_safely(tiny, tmp_path, monkeypatch):
    path = pickle_weights(rewrite(tiny("bert"), tmp_path / "m"))
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1+cpu"))
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ModelError, match=r"pickled file, and torch 2\.9\.1\+cpu .*upgrade to torch 2\.10"):
        load_weights(path, torch.float32)
