"""A folder with all unusual files at once is embedded and compared with what pyarrow and json read."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from nemo_embed_dask import embed_parquet
from nemo_embed_dask.jobs.files.target import Target
from nemo_embed_dask.jobs.report import ERRORS
from nemo_embed_dask.jobs.units.records import read_footer

from ..helpers import faults
from ..helpers.arrow_values import same
from ..helpers.odd_compare import MADE, differences, expected_of, json_rows, read_parquet
from ..helpers.odd_files import HIVE, Odd, build
from ..helpers.odd_types import WIDENED

# Columns that may get a simpler type with the same values.
PLAINER = {"list_view", "list_of_views", "list_of_words", "not_null", "string_view", "binary_view", "map", "map_twice",
           "map_sorted", "null", "text", "dictionary_int8", "dictionary_uint16"}  # fmt: skip


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Odd:
    return build(tmp_path_factory.mktemp("odd"))


@pytest.fixture(scope="module")
def stage(tiny):
    return faults.stage(tiny("bert"), on_error="null")


@pytest.fixture(scope="module")
def job(odd, stage, tmp_path_factory):
    """Return the report, the target, and the state of the source before the job."""
    target = tmp_path_factory.mktemp("odd-out") / "out"
    before = state(odd.root.parent)
    return embed_parquet(stage, str(odd.root), str(target), rows_per_part=4), target, before


@pytest.fixture(scope="module")
def parts(odd, job) -> dict[str, pa.Table]:
    """Return each input's rows in its parts, in order."""
    _, target, _ = job
    found: dict[str, list[pa.Table]] = {}
    for path in sorted(target.glob("*.parquet")):
        record = read_footer(Target(str(target)), path.name)
        assert record is not None
        found.setdefault(os.path.relpath(record.input, odd.root), []).append(read_parquet(path))
    return {name: pa.concat_tables(tables) for name, tables in found.items()}


@pytest.fixture(scope="module")
def vectors(stage, parts) -> dict[str, list[float]]:
    """Return each text's vector, computed without a job."""
    texts = sorted({text for table in parts.values() for text in table["text"].to_pylist() if text is not None})
    return dict(zip(texts, stage(pd.DataFrame({"text": texts}))["embeddings"], strict=True))


def state(folder: Path) -> dict[str, tuple]:
    """Return the path, time and content of each file below a folder."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            seen = path.lstat()
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = seen.st_mode, seen.st_size, seen.st_mtime_ns, hashlib.sha256(data).hexdigest()
    return found


def test_exactly_the_good_files_have_parts(odd, job, parts):
    report, _, _ = job
    assert report.failed.keys() == {str(odd.root / name) for name in odd.bad}
    assert parts.keys() == set(odd.good)
    assert report.rows == sum(table.num_rows for table in parts.values())


def test_each_reason_names_the_file_and_the_problem(odd, job):
    report, _, _ = job
    wrong = {}
    for name, why in odd.bad.items():
        said = report.failed.get(str(odd.root / name), "")
        if not (re.search(why, said) and str(odd.root / name) in said and "\n" not in said):
            wrong[name] = said
    assert not wrong


def test_good_json_lines_are_the_same_as_those_of_json(odd):
    """The expected rows, which the parts are compared with, are correct."""
    for name, (rows, bad) in odd.lines.items():
        if not bad and odd.root.joinpath(name).stat().st_size:
            assert all(map(same, rows, json_rows(odd.root / name))), name


@pytest.mark.parametrize("subject", ["types", "texts", "wide", "json", "names", "links", "hub", "hive"])
def test_every_row_is_written_once_with_unchanged_values(subject, odd, parts):
    mine = [name for name in odd.good if name.startswith(f"{subject}/")]
    assert mine
    missing = [name for name in mine if name not in parts]
    wrong = [
        line
        for name in mine
        if name in parts
        for line in differences(name, expected_of(odd, name), parts[name])
    ]
    assert not missing and not wrong, (missing, wrong[:20])


def test_vectors_are_null_exactly_for_rows_without_text_and_bad_rows(odd, job, parts, vectors):
    report, target, _ = job
    listed = pq.read_table(target / ERRORS).to_pylist()
    rows = {(os.path.relpath(row["file"], odd.root), row["row"]) for row in listed if row["row"] is not None}
    bad = {(name, row) for name, (_, places) in odd.lines.items() for row in places}
    assert rows == bad and report.null_rows == len(bad)
    for name, table in parts.items():
        for row, (text, vector) in enumerate(
            zip(table["text"].to_pylist(), table[MADE].to_pylist(), strict=True)
        ):
            assert (vector is None) == (text is None or (name, row) in bad), (name, row)
            if vector is not None:
                np.testing.assert_allclose(vector, vectors[text], atol=2e-6, err_msg=f"{name}, row {row}")


def test_all_parts_have_the_same_columns_with_the_narrowest_types(odd, job, parts):
    _, target, _ = job
    schemas = {pq.read_schema(path).remove_metadata().to_string() for path in target.glob("*.parquet")}
    assert len(schemas) == 1
    schema = next(iter(parts.values())).schema
    wrong = {
        name: (schema.field(name).type, wide)
        for name, (*_, wide) in WIDENED.items()
        if schema.field(name).type != wide
    }
    assert not wrong
    original = pq.read_schema(odd.root / "types/all.parquet")
    kept = {field.name: field.type for field in original if field.name not in PLAINER}
    assert not {
        name: (dtype, schema.field(name).type)
        for name, dtype in kept.items()
        if schema.field(name).type != dtype
    }


def test_folder_columns_have_the_same_types_as_pyarrows(odd, parts):
    files = [str(odd.root / f"hive/{folder}/x.parquet") for folder in HIVE]
    theirs = ds.dataset(
        files, partitioning=ds.partitioning(flavor="hive"), partition_base_dir=str(odd.root)
    ).schema
    ours = next(iter(parts.values())).schema
    assert {name: ours.field(name).type for name in ("lang", "year", "no")} == {
        name: theirs.field(name).type for name in ("lang", "year", "no")
    }


def test_hidden_files_and_unknown_types_are_left_out(job, parts):
    report, _, _ = job
    schema = next(iter(parts.values())).schema
    assert "hidden" not in schema.names and not any(
        "git" in name or "_temporary" in name for name in {*parts, *report.failed}
    )


def test_the_source_is_unchanged_and_a_rerun_embeds_nothing(odd, stage, job):
    report, target, before = job
    done = {path: path.read_bytes() for path in target.glob("*.parquet")}
    again = embed_parquet(stage, str(odd.root), str(target), rows_per_part=4)
    assert (
        again.parts_this_run == 0
        and again.failed == report.failed
        and again.parts_whole == report.parts_whole == len(done)
    )
    assert {path: path.read_bytes() for path in target.glob("*.parquet")} == done
    assert state(odd.root.parent) == before
