"""Stamps of files, and what is loaded once per stamp: tests of `nemo_embed_dask.models.stamps`."""

from __future__ import annotations

import os
import shutil

import pytest

from nemo_embed_dask.models.stamps import load_once, stamp_model

from ..helpers.cards import build


def test_a_stamp_follows_links_and_sees_every_file_that_is_read(tiny, tmp_path):
    path = build(tiny("bert"), tmp_path / "m", pooling="cls", dense="tanh")
    stamp = stamp_model(path)
    for file in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
    ):
        os.utime(path / file, ns=(1, 1 + len(file)))
        stamp, before = stamp_model(path), stamp
        assert stamp != before, file
    (path / "README.md").write_text("changed")
    assert stamp_model(path) == stamp
    blob = shutil.move(path / "tokenizer.json", tmp_path / "blob")
    (path / "tokenizer.json").symlink_to(blob)
    stamp = stamp_model(path)
    os.utime(blob, ns=(1, 99))
    stamp, before = stamp_model(path), stamp
    assert stamp != before
    (path / "broken.json").symlink_to(tmp_path / "nowhere")
    (path / "loop.json").symlink_to("loop.json")
    assert stamp_model(path) == stamp
    (path / "openvino").mkdir()
    (path / "openvino" / "openvino_model.bin").write_text("x")
    assert stamp_model(path) != stamp


def test_load_once_drops_what_was_made_from_other_files():
    loaded, first, second = {}, (("a", 1, 1),), (("a", 1, 2),)
    assert load_once(loaded, "key", first, lambda: "old") == "old"
    assert load_once(loaded, "key", first, lambda: "never made") == "old"

    def fail():
        assert not loaded  # the old value is freed before the new one is made
        raise ValueError

    with pytest.raises(ValueError, match="^$"):
        load_once(loaded, "key", second, fail)
    assert load_once(loaded, "key", second, lambda: "new") == "new"
    assert loaded == {"key": (second, "new")}
