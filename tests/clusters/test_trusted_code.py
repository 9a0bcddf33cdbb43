"""Processes that get a stage run the code of the commit that was found when the stage was made."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nemo_embed_dask import EmbeddingCreatorStage, to_matrix
from nemo_embed_dask.models.files import missing_options

from ..helpers.own_code import make_own

A, B = "a" * 40, "b" * 40
TEXTS = pd.DataFrame({"text": ["one", "two"]})
WORKER = """
import json, pickle, sys, warnings
from pathlib import Path
import pandas as pd

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    stage, frame = pickle.loads(Path(sys.argv[1]).read_bytes())
    vectors = stage(frame).embeddings.tolist()
own = [module for name, module in sys.modules.items() if name.startswith("nemo_embed_dask_code_") and "." in name]
told = [str(one.message) for one in caught if "trust_remote_code" in str(one.message)]
print(json.dumps([vectors, [module.__file__ for module in own], told]))
"""


def cached(cache: Path, commit: str) -> Path:
    """Put a model with code of its own into a cache, as the newest commit of its repository."""
    root = cache / "models--some--model"
    make_own(root / "snapshots" / commit)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(commit)
    absent = root / ".no_exist" / commit
    absent.mkdir(parents=True)
    for name in missing_options(root / "snapshots" / commit):
        (absent / name).touch()
    return root / "snapshots" / commit


@pytest.mark.filterwarnings("ignore:trust_remote_code=True")
def test_workers_run_the_pinned_commit(tmp_path):
    cached(tmp_path, A)
    stage = EmbeddingCreatorStage(
        model_identifier="some/model", trust_remote_code=True, cache_dir=str(tmp_path), autocast=False
    )
    expected = to_matrix(stage(TEXTS).embeddings)
    (cached(tmp_path, B) / "modeling_own.py").write_text("raise RuntimeError('a newer commit')")
    (tmp_path / "stage").write_bytes(pickle.dumps((stage, TEXTS)))
    lines = [sys.executable, "-c", WORKER, str(tmp_path / "stage")]
    workers = [subprocess.Popen(lines, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for worker in workers:
        out, _ = worker.communicate()
        vectors, files, told = json.loads(out.splitlines()[-1])
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
        assert files and all(A in file for file in files)
        assert len(told) == 1 and f"of 'some/model' (commit {A})" in told[0]
