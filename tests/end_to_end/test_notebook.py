"""Jobs and clusters in a notebook: cells run in a real kernel, whose event loop runs."""

from __future__ import annotations

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from ..helpers import faults

START = """
import asyncio, multiprocessing, os, signal, threading, time, warnings
from functools import partial
from pathlib import Path
from distributed import Client
warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's, without ipywidgets
from nemo_embed_dask import ConfigError, EmbeddingCreatorStage, embed_cluster, embed_parquet, preload

def stop_when(happened):
    '''Do what the stop button does: send SIGINT to the kernel's process group.'''
    def press():
        while not happened():
            time.sleep(0.02)
        os.killpg(os.getpid(), signal.SIGINT)
    threading.Thread(target=press, daemon=True).start()

def stop_after_parts(target):
    stop_when(lambda: len([*Path(target).glob("*.parquet")]) >= 3)

stage = EmbeddingCreatorStage(model_identifier="model", embedding_pooling="mean_pooling", autocast=False)
job = partial(embed_parquet, stage, "in", rows_per_part=10, progress=True)
start_cluster = partial(
    embed_cluster, stage, use_gpus=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
)
"""
CONTINUED = "print(0 < report.parts_this_run < report.parts == report.parts_whole)"
CELLS = {
    "start": START,
    "stopped": "stop_after_parts('here'); job('here')",
    "continued": f"report = job('here'); {CONTINUED}",
    "stopped cluster": """
stop_when(multiprocessing.active_children)
with start_cluster():
    print("it runs")
""",
    "nothing left": "print(multiprocessing.active_children())",
    "cluster": "cluster = start_cluster(); client = cluster.__enter__()",
    "stopped on the cluster": "stop_after_parts('there'); job('there', client=client)",
    "continued on the cluster": f"""
async def continued():
    return job('there', client=client)
report = await continued()
{CONTINUED}
""",
    "in a thread": "print((await asyncio.to_thread(job, 'there', client=client)).parts_this_run)",
    "asynchronous": """
async with Client(client.scheduler.address, asynchronous=True) as other:
    for call in (
        lambda: job("nowhere", client=other),
        lambda: preload(stage, other),
        lambda: start_cluster(asynchronous=True).__enter__(),
    ):
        try:
            call()
        except ConfigError as error:
            print(error)
""",
    "closed": "cluster.__exit__(None, None, None); print(multiprocessing.active_children())",
}

# What Dask logs when it closes a worker that takes more than 4 s to end, that ends a task at this moment, or that has
# ended already.
OF_DASK = ("Worker process still alive after", "ended with CancelledError", "exit status was already read")


@pytest.fixture(scope="module")
def cells(tiny, tmp_path_factory):
    """The cells after they ran, by name, and what the kernel and its workers printed outside of cells."""
    folder = tmp_path_factory.mktemp("notebook")
    faults.write_inputs(folder / "in", files=4, rows=30)
    (folder / "model").symlink_to(tiny("bert"))
    notebook = new_notebook(cells=[new_code_cell(source) for source in CELLS.values()])
    client = NotebookClient(
        notebook, timeout=240, allow_errors=True, resources={"metadata": {"path": str(folder)}}
    )
    environment = {**faults.environment(**faults.slow(folder / "slow")), "OMP_NUM_THREADS": "1"}
    with (folder / "printed").open("w") as printed:
        client.execute(env=environment, stdout=printed, stderr=printed)
    return dict(zip(CELLS, notebook.cells, strict=True)), (folder / "printed").read_text()


def text(cell, stream="stdout"):
    return "".join(out["text"] for out in cell.outputs if out.output_type == "stream" and out.name == stream)


def errors(cell):
    return [out.ename for out in cell.outputs if out.output_type == "error"]


def displays(cell):
    return [out.data["text/plain"] for out in cell.outputs if out.output_type == "display_data"]


def test_cells_show_no_errors_and_no_warnings(cells):
    shown, printed = cells
    for name, cell in shown.items():
        lines = text(cell, "stderr").splitlines()
        assert not [line for line in lines if line and not any(known in line for known in OF_DASK)], name
        assert name.startswith("stopped") or not errors(cell), errors(cell)
    assert "Traceback" not in printed and "never awaited" not in printed


@pytest.mark.parametrize("where", ["", " on the cluster"])
def test_the_stop_button_interrupts_a_job_that_then_continues(where, cells):
    shown, _ = cells
    assert errors(shown[f"stopped{where}"]) == ["KeyboardInterrupt"]
    assert text(shown[f"continued{where}"]) == "True\n"


@pytest.mark.parametrize("where", ["", " on the cluster"])
def test_progress_is_one_line_of_the_cell_that_runs(where, cells):
    """On a cluster it comes from Dask's threads, which belong to the cell that started the cluster."""
    shown, _ = cells
    (stopped,) = displays(shown[f"stopped{where}"])
    (continued,) = displays(shown[f"continued{where}"])
    assert "/12 parts" in stopped and "12/12 parts" not in stopped
    assert continued.startswith("100%") and continued.endswith("12/12 parts  0:00 left")
    assert not displays(shown["cluster"]) + displays(shown["in a thread"])


def test_a_cluster_that_is_stopped_while_it_starts_leaves_no_process(cells):
    shown, _ = cells
    assert errors(shown["stopped cluster"]) == ["KeyboardInterrupt"] and not text(shown["stopped cluster"])
    assert text(shown["nothing left"]) == "[]\n"


def test_a_closed_cluster_leaves_no_process(cells):
    shown, _ = cells
    assert text(shown["closed"]) == "[]\n"


def test_a_job_runs_in_a_thread_of_the_event_loop(cells):
    shown, _ = cells
    assert text(shown["in a thread"]) == "0\n"


def test_asynchronous_clients_and_clusters_are_refused(cells):
    shown, _ = cells
    job, preload, cluster = text(shown["asynchronous"]).splitlines()
    assert job == preload and job.startswith("the client is asynchronous, but this function waits for results")
    assert cluster.startswith("asynchronous=True: this cluster is used in a plain with statement")
