"""One server per session and kind of store, inputs, and what a job on local files makes of them."""

from __future__ import annotations

import os
from itertools import count

import fsspec
import pytest

from nemo_embed_dask.models import locate  # noqa: F401 - the package before the client libraries

from ...helpers import faults, stores

_NUMBERS = count()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No credentials of the machine, and no file systems with those of the test before."""
    for name in [*os.environ]:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    for protocol in ("s3", "abfs", "gs"):
        fsspec.get_filesystem_class(protocol).clear_instance_cache()


def _server(kind, tmp_path_factory):
    store = stores.STORES[kind].started(tmp_path_factory.mktemp(kind))
    yield store
    store.stop()


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    yield from _server("s3", tmp_path_factory)


@pytest.fixture(scope="session")
def azure(tmp_path_factory):
    yield from _server("azure", tmp_path_factory)


@pytest.fixture(scope="session")
def google(tmp_path_factory):
    yield from _server("google", tmp_path_factory)


@pytest.fixture(params=["s3", pytest.param("azure", marks=pytest.mark.azurite), "google"])
def store(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def bucket(request):
    """The name of a bucket that does not exist yet."""
    return f"bucket{next(_NUMBERS)}"


@pytest.fixture(scope="session")
def model(tiny):
    return tiny("bert")


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    return faults.write_inputs(tmp_path_factory.mktemp("stores") / "in", files=4)


@pytest.fixture(scope="session")
def expected(source, model, tmp_path_factory):
    return faults.undisturbed(source, tmp_path_factory.mktemp("local") / "out", model)
