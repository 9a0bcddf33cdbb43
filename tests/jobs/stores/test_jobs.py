"""Jobs from store to store, on real servers: what they write, read by other libraries, is what local jobs write."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nemo_embed_dask import embed_parquet
from nemo_embed_dask.jobs.units.records import LOG

from ...helpers import faults
from ...helpers.stores import SECRET

# Client libraries leave connections to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PARTS = 12
BOOKKEEPING = ["_SUCCESS", "_nemo_embed/manifest.json", "_nemo_embed/report.json"]


@pytest.fixture
def address(store, bucket, source):
    """The inputs in a new bucket."""
    return store.upload(source, bucket, "in")


def run(store, address, target, model, *, options=None, **more):
    options = options or store.options()
    return embed_parquet(faults.stage(model), address, target, rows_per_part=20,
                         storage_options=options, target_options=options, **more)  # fmt: skip


def assert_whole(store, bucket, expected, parts=PARTS):
    """All rows once, and nothing in the target but parts, logs and the three other files; no secret in these."""
    faults.assert_same_rows(faults.rows_by_id(store.table(bucket, "out")), expected)
    names = [name.removeprefix("out/") for name in store.names(bucket, "out")]
    others = [name for name in names if not name.startswith(LOG)]
    assert sorted(name for name in others if not name.endswith(".parquet")) == BOOKKEEPING
    assert len(others) == parts + len(BOOKKEEPING)
    assert store.uploads(bucket) == []
    assert not [name for name in names if SECRET.encode() in store.get(bucket, f"out/{name}")]


def test_a_job_from_store_to_store(store, address, bucket, model, expected):
    target = store.address(f"{bucket}/out")
    assert run(store, address, target, model).parts_this_run == PARTS
    assert_whole(store, bucket, expected)
    before = store.names(bucket, "out")
    again = run(store, f"{address}/in-*.parquet", target, model)
    assert again.complete and again.parts_this_run == 0 and store.names(bucket, "out") == before


# A job in a process of its own: starts when it may read a line.
SCRIPT = """
import ast, sys
from nemo_embed_dask import embed_parquet
from tests.helpers import faults

source, target, model, options = sys.argv[1:]
options = ast.literal_eval(options)
print("ready", flush=True)
sys.stdin.readline()
stage = faults.stage(model)
report = embed_parquet(stage, source, target, rows_per_part=20, storage_options=options, target_options=options)
print(report.complete)
"""


def start(address, target, model, options, **more):
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, address, target, str(model), repr(options)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=faults.environment(**more),
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()
    return process


def test_two_runs_of_one_command_at_once(store, address, bucket, model, expected):
    """There is no lock; both may write a part, and a reader sees one of two equal ones."""
    target = store.address(f"{bucket}/out")
    other = start(address, target, model, store.options())
    assert run(store, address, target, model).complete
    assert other.communicate(timeout=240)[0] == "True\n"
    assert_whole(store, bucket, expected)
