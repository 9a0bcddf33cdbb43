"""Progress: counts, rate, time left; one line rewritten on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

import nbclient
import nbformat

from nemo_embed_dask.jobs.inputs import InputFile, Unit
from nemo_embed_dask.jobs.progress import Progress, clock
from nemo_embed_dask.jobs.records import Record
from nemo_embed_dask.jobs.storage import Identity
from nemo_embed_dask.jobs.work import Outcome
from nemo_embed_dask.settings import Stats

from . import faults

UNITS = [Unit(InputFile(name, "parquet", Identity(100, "")), name, rows=10, size=100) for name in "abcd"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def done(unit):
    return Outcome(unit, "done", Record(unit.name, "", "", Stats(rows=10, tokens=1000)))


def test_line_counts_documents_and_tokens_and_the_time_left():
    progress = Progress()
    progress.begin(UNITS, parts=5)
    progress.finished(done(UNITS[0]))
    progress.tick("b", 5, 500)
    line = progress.line(elapsed=30)
    assert line == " 38%  15 documents  1,500 tokens  50 tokens/s  2/5 parts  0:50 left"


def test_a_terminal_gets_one_line_and_a_log_gets_lines():
    for stream, rewritten in ((Terminal(), True), (io.StringIO(), False)):
        progress = Progress(stream)
        progress.begin(UNITS, parts=4)
        progress.finished(Outcome(UNITS[0], "failed", reason="a: cannot be read"))
        progress.end()
        assert ("\r" in stream.getvalue()) == rewritten
        assert "a: cannot be read\n" in stream.getvalue()


def test_clock():
    assert [clock(n) for n in (0, 61, 3723)] == ["0:00", "1:01", "1:02:03"]


def test_a_notebook_shows_one_line_that_is_rewritten(tiny, tmp_path):
    """A real kernel: what a cell shows once the job has run."""
    write = faults.write_inputs(tmp_path / "in")
    code = f"""
from nemo_embed_dask import EmbeddingCreatorStage, embed_parquet
stage = EmbeddingCreatorStage(model_identifier={str(tiny("bert"))!r}, autocast=False)
report = embed_parquet({str(write)!r}, {str(tmp_path / "out")!r}, stage, rows_per_part=20, progress=True)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(faults.ROOT)}}).execute()
    shown = [
        out["data"]["text/plain"] for out in notebook.cells[0].outputs if out.output_type == "display_data"
    ]
    assert len(shown) == 1 and shown[0].startswith("100%  480 documents") and "24/24 parts" in shown[0], shown
