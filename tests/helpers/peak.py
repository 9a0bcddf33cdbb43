"""Measure how much memory it takes to read a file as slabs."""

from __future__ import annotations

import subprocess
import sys
from typing import NamedTuple

from . import faults

SCRIPT = """
import resource, sys
from nemo_embed_dask.jobs.files import inputs
from nemo_embed_dask.jobs.files.target import Target
from nemo_embed_dask.jobs.schema.conversion import JobColumns
from nemo_embed_dask.jobs.schema.copied_columns import copied_columns
from nemo_embed_dask.jobs.schema.inspection import inspect_inputs, plan_units
from nemo_embed_dask.jobs.units import readers
files = inputs.find_inputs([sys.argv[1]], Target("nowhere"), {})[0]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
inspected = inspect_inputs(files, "text", None, {})
columns = JobColumns("text", copied_columns(inspected, "text", None), True)
rows = sizes = 0
for slab in readers.read_unit(plan_units(inspected, 1 << 40)[0], columns, {}):
    rows, sizes = rows + len(slab.texts), max(sizes, slab.nbytes)
unit = 20 if sys.platform == "darwin" else 10  # ru_maxrss is in bytes on macOS, in kB on Linux
print(rows, sizes >> 20, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> unit)
"""


class Peak(NamedTuple):
    """Rows, the largest slab in MB, and the growth of the process in MB."""

    rows: int
    slab: int
    grown: int


def peak(path) -> Peak:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], env=faults.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return Peak(*map(int, done.stdout.split()))
