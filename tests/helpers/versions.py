"""Skip tests of what a library can do only since some version, which the environment of lowest versions lacks."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from packaging.version import Version

# The version with which all tests are known to pass.
TRANSFORMERS = "5.24"


def is_older(library: str, than: str) -> bool:
    """Return whether the installed version of a library is older than this one."""
    return Version(version(library)) < Version(than)


def needs(library: str, than: str, why: str) -> pytest.MarkDecorator:
    """A mark that skips a test with older versions of a library, and says why."""
    return pytest.mark.skipif(is_older(library, than), reason=f"needs {library} {than}: {why}")


NEEDS_OPENVINO = needs("torch", "2.13", "OpenVINO cannot convert models with torch 2.6")
NEEDS_PACKED_CUDA = needs("torch", "2.10", "older ones have no attention kernel for packed rows on a GPU")
NEEDS_PICKLES = needs("torch", "2.10", "older ones cannot read pickled files safely")
NEEDS_LISTINGS = needs("huggingface_hub", "1.23", "older ones keep no list of the files of a repository")
NEEDS_GTE = needs("transformers", TRANSFORMERS, "older ones do not have the architecture gte")
