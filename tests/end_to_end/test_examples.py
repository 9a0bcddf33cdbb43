"""The notebook and the script in examples/ run, and give the results that they describe."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from nbclient import NotebookClient

from nemo_embed_dask import embed, to_matrix

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOK = EXAMPLES / "quickstart.ipynb"


def test_the_quickstart_runs_and_finds_near_duplicates(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [data for output in outputs if (data := output.get("data", {}).get("image/png"))]
    assert len(base64.b64decode(pictures[0])) > 10_000
    printed = "".join(output.get("text", "") for output in outputs)
    assert int(printed.split(" near duplicates")[0].split()[-1]) > 0


def test_the_cluster_script_embeds_files(tmp_path):
    frame = pd.DataFrame({"id": range(6), "text": ["whales sing", None, "", "bread", "jazz", "a storm at sea"]})
    (tmp_path / "docs").mkdir()
    for i in range(2):
        frame.iloc[i::2].to_parquet(tmp_path / "docs" / f"{i}.parquet", index=False)
    command = [sys.executable, EXAMPLES / "cluster.py", tmp_path / "docs", tmp_path / "vectors"]
    subprocess.run(command, check=True, timeout=300)
    found = pd.read_parquet(tmp_path / "vectors").sort_values("id", ignore_index=True)
    expected = embed(frame, embedding_pooling="auto")
    assert found.embeddings.isna().tolist() == [i == 1 for i in range(6)]
    cosines = (to_matrix(found.embeddings.dropna()) * to_matrix(expected.embeddings.dropna())).sum(1)
    np.testing.assert_allclose(cosines, 1, atol=1e-3)
