"""The notebook runs as it stands, and shows what it says it shows."""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "quickstart.ipynb"


def test_the_quickstart_runs_and_finds_near_duplicates(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [data for output in outputs if (data := output.get("data", {}).get("image/png"))]
    assert len(base64.b64decode(pictures[0])) > 10_000
    printed = "".join(output.get("text", "") for output in outputs)
    assert int(printed.split(" near duplicates")[0].split()[-1]) > 0
