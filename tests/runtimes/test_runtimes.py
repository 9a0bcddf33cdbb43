"""What `runtimes.load` does for every runtime."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ..helpers.versions import NEEDS_OPENVINO

_PAGE_FAULTS = """
import sys, types, torch
from pathlib import Path
from nemo_embed_dask import runtimes
from nemo_embed_dask.models.card import read_card

how, path = sys.argv[1:]
if how == "cuda":
    import nemo_embed_dask.runtimes.torch as module
    module.load = lambda card, *, autocast: types.SimpleNamespace(device=torch.device("cuda"))
if how != "nothing":
    runtimes.load(read_card(Path(path)), runtime="openvino" if how == "openvino" else "torch")

from tests.helpers.page_faults import count_page_faults
print(count_page_faults())
"""


def faults(how, path) -> int:
    """The page faults of 50 allocations in a process of a Dask nanny, after a model was loaded."""
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", _PAGE_FAULTS, how, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
@NEEDS_OPENVINO
@pytest.mark.slow
def test_freed_memory_is_kept_whatever_runs_the_model(tiny):
    path = tiny("bert")
    by_default = faults("nothing", path)
    for how in ("torch", "openvino", "cuda"):
        assert faults(how, path) < by_default / 20, how
