"""The notebook and the script in examples/ run, and give the results that they describe."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from nemo_embed_dask import embed, to_matrix

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOK = EXAMPLES / "quickstart.ipynb"


def outputs_of(cell):
    """The types of a cell's outputs, without what libraries print on standard error.

    Each is there once: a slow kernel sends the lines that a cell prints in several outputs.
    """
    outputs = [output for output in cell.get("outputs", ()) if output.get("name") != "stderr"]
    return {(output.output_type, *sorted(output.get("data", ()))) for output in outputs}


def test_the_quickstart_runs_from_an_empty_folder(tmp_path):
    """It finds near duplicates, and its job writes the same vectors; it is committed as it runs."""
    committed, notebook = (nbformat.read(NOTEBOOK, as_version=4) for _ in range(2))
    (job,) = [cell for cell in notebook.cells if cell.source.startswith("report = embed_parquet(")]
    again = new_code_cell(f"next(Path('vectors').glob('*.parquet')).unlink()\n{job.source}")
    notebook.cells.append(again)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert notebook.cells.pop() == again
    assert "4 of 4 whole, 1 by this run" in again.outputs[-1].data["text/html"], "the job's cell starts again"
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [data for output in outputs if (data := output.get("data", {}).get("image/png"))]
    assert len(pictures) == 2 and len(base64.b64decode(pictures[0])) > 10_000
    printed = "".join(output.get("text", "") for output in outputs)
    assert int(printed.split(" near duplicates")[0].split()[-1]) > 0
    assert "0 parts by this run, 240 rows in all parts\n" in printed
    assert outputs[-1].data["text/plain"] == "True", "the job's vectors are not those of embed"
    assert pq.read_table(tmp_path / "vectors", columns=["id"])["id"].to_pylist() == [*range(240)]
    (table,) = [
        data for output in outputs if "job complete" in (data := output.get("data", {}).get("text/html", ""))
    ]
    assert "4 of 4 whole, 4 by this run" in table and "7,442" in table
    assert [*map(outputs_of, committed.cells)] == [*map(outputs_of, notebook.cells)]


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
