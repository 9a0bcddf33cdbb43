"""Columns with unusual names, INT96 timestamps or encryption: no value is changed, and no process crashes."""

from __future__ import annotations

import base64
import json
import math
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_embed_dask import embed_parquet

from ...helpers import faults

encryption = pytest.importorskip("pyarrow.parquet.encryption")


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("bert")


def job(source, target, model, **more):
    return embed_parquet(faults.stage(model), str(source), str(target), **more)


# ---- names and INT96 --------------------------------------------------------------------------------

WHOLE, FINE = 1_700_000_000_123_456_000, 1_700_000_000_123_456_789


def times(*values):
    return pa.array(values, pa.timestamp("ns"))


def structs(name, *values):
    return pa.StructArray.from_arrays([times(*values), pa.array([math.nan] * len(values))], [name, "x"])


def lists(*values):
    return pa.ListArray.from_arrays(pa.array(range(len(values) + 1), pa.int32()), structs("t", *values))


def maps(*values):
    offsets, keys = pa.array(range(len(values) + 1), pa.int32()), pa.array([math.inf] * len(values))
    return pa.MapArray.from_arrays(offsets, keys, structs("t", *values))


COLUMNS = {
    "ts.utc": times,
    "s": lambda *values: structs("t.utc", *values),
    "s.t": lambda *values: structs("t", *values),
    "list": lists,
    "map": maps,
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("value", [WHOLE, FINE])
def test_int96_is_found_in_columns_of_any_name_and_beside_nan(name, value, model, tmp_path):
    table = pa.table({"text": ["a", "b"], name: COLUMNS[name](None, value)})
    pq.write_table(table, tmp_path / "in.parquet", use_deprecated_int96_timestamps=True)
    report = job(tmp_path / "in.parquet", tmp_path / "out", model)
    if value == FINE:
        (reason,) = report.failed.values()
        assert f"in.parquet: column {name!r} has INT96 timestamps with nanoseconds" in reason
    else:
        assert report.complete, report.failed
        found = pq.read_table(tmp_path / "out")[name].cast(table[name].type)
        assert str(found.to_pylist()) == str(table[name].to_pylist())  # in which NaN is NaN


def test_a_column_is_not_taken_for_a_field_of_another(model, tmp_path):
    """pyarrow reads column ``a.b`` and field ``b`` of column ``a`` if either is requested by its path."""
    table = pa.table({"a": [{"b": 1}], "a.b": times(FINE), "text": ["x"], "text.b": ["y"]})
    pq.write_table(table, tmp_path / "in.parquet", use_deprecated_int96_timestamps=True)
    assert job(tmp_path / "in.parquet", tmp_path / "out", model, columns=["a"]).complete
    assert pq.read_table(tmp_path / "out")["a"].to_pylist() == [{"b": 1}]
    (reason,) = job(tmp_path / "in.parquet", tmp_path / "fine", model, columns=["a.b"]).failed.values()
    assert "column 'a.b' has INT96" in reason


# ---- encryption -------------------------------------------------------------------------------------


class Keys(encryption.KmsClient):
    def __init__(self, _config):
        super().__init__()

    def wrap_key(self, key, _master):
        return base64.b64encode(key)

    def unwrap_key(self, wrapped, _master):
        return base64.b64decode(wrapped)


def write_encrypted(path, *columns):
    """Write a file with a plain footer and some encrypted columns."""
    how = encryption.EncryptionConfiguration(
        footer_key="f", column_keys={"k": list(columns)}, plaintext_footer=True
    )
    factory = encryption.CryptoFactory(lambda _: Keys(None))
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), how)
    table = pa.table({"text": ["secret"] * 50, "v": range(50), "s": [{"x": 1, "y": 2}] * 50})
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table, row_group_size=25)


# Encrypted columns, requested columns (all if empty), and the expected error.
CASES = [
    ("v", ["text"], None),
    ("v", ["text", "s"], None),
    ("v", [], "column 'v' is encrypted"),
    ("s.x", ["v"], None),
    ("s.x", ["s"], "column 's' is encrypted"),
    ("text", ["v"], "column 'text' is encrypted"),
]
EMBED = """
import json, sys
from nemo_embed_dask import EmbeddingCreatorStage, embed_parquet
stage = EmbeddingCreatorStage(model_identifier=sys.argv[1], autocast=False)
found = []
for source, target, columns in json.loads(sys.argv[2]):
    report = embed_parquet(stage, source, target, columns=columns or None)
    found.append([report.rows, *report.failed.values()])
print(json.dumps(found))
"""


def test_encrypted_columns_cost_their_file_only_where_they_are_wanted(model, tmp_path):
    """Accessing the metadata of such a column would crash the process, so the job runs in its own process."""
    jobs = []
    for number, (encrypted, wanted, _) in enumerate(CASES):
        source = tmp_path / f"in{number}"
        source.mkdir()
        fine = pa.table({"text": ["fine"], "v": [0.5], "s": [{"x": 1, "y": 2}]})
        pq.write_table(fine, source / "fine.parquet")
        write_encrypted(source / "hidden.parquet", encrypted)
        jobs.append([str(source), str(tmp_path / f"out{number}"), wanted])
    done = subprocess.run(
        [sys.executable, "-c", EMBED, str(model), json.dumps(jobs)],
        env=faults.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for (_, _, reason), (rows, *failed) in zip(CASES, json.loads(done.stdout), strict=True):
        assert (rows, len(failed)) == ((51, 0) if reason is None else (1, 1)), failed
        if reason is not None:
            assert f"hidden.parquet: {reason}" in failed[0] and "decrypt the file" in failed[0]
