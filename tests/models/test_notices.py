"""Warnings that are given once per process: tests of `nemo_embed_dask.models.notices`."""

import warnings

import pytest

from nemo_embed_dask.models.notices import warn_once


def test_a_warning_is_given_once_for_each_key(tmp_path):
    with pytest.warns(UserWarning, match="first") as caught:
        warn_once(tmp_path, "a", message="first")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_once(tmp_path, "a", message="first")
    with pytest.warns(UserWarning, match="second"):
        warn_once(tmp_path, "b", message="second")
