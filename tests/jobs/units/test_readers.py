"""Reading units: types, names, row groups, inputs that change, and the size of slabs."""

from __future__ import annotations

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_embed_dask import JobError, embed_parquet
from nemo_embed_dask.jobs.files.inputs import find_inputs
from nemo_embed_dask.jobs.files.target import Target
from nemo_embed_dask.jobs.formats import jsonlines, piece_sizes
from nemo_embed_dask.jobs.schema.conversion import JobColumns
from nemo_embed_dask.jobs.schema.copied_columns import copied_columns
from nemo_embed_dask.jobs.schema.inspection import inspect_inputs, plan_units
from nemo_embed_dask.jobs.units import readers, work
from nemo_embed_dask.stages.tasks import EmbedTask

from ...helpers import faults
from ...helpers.file_names import needs_any_bytes, not_unicode
from ...helpers.jobs import TEXTS, rows_of_job
from ...helpers.peak import peak


@pytest.mark.parametrize(
    "dtype",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
)
def test_every_kind_of_string_column(dtype, model, text_vectors, tmp_path):
    pq.write_table(pa.table({"text": pa.array(TEXTS).cast(dtype)}), tmp_path / "in.parquet")
    found = rows_of_job(tmp_path / "in.parquet", tmp_path / "out", model)
    assert found["text"].to_pylist() == TEXTS and found["embeddings"].to_pylist() == text_vectors


def test_copied_columns_may_be_nested_and_have_unusual_names(model, text_vectors, tmp_path):
    table = pa.table(
        {
            "text": TEXTS,
            "a.b": range(5),
            "a": [{"b": [{"c": i}], "d.e": None} for i in range(5)],
            "größe in m": [1.5] * 5,
            "map": pa.array([[("k", i)] for i in range(5)], pa.map_(pa.string(), pa.int64())),
            "": list("vwxyz"),
            "view": pa.array(TEXTS, pa.string_view()),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    found = rows_of_job(tmp_path / "in.parquet", tmp_path / "out", model)
    assert found.drop_columns("embeddings").equals(pq.read_table(tmp_path / "in.parquet"))
    assert found["embeddings"].to_pylist() == text_vectors
    nested = pq.ParquetFile(next((tmp_path / "out").glob("*.parquet"))).metadata.row_group(0)
    codecs = {nested.column(i).path_in_schema: nested.column(i).compression for i in range(nested.num_columns)}
    assert codecs.pop("embeddings.list.element") == "UNCOMPRESSED" and set(codecs.values()) == {"ZSTD"}, codecs


NAMES = [
    "a b.parquet",
    "naïve 漢字.parquet",
    "x" * 240 + ".parquet",
    "漢" * 80 + ".parquet",
    "[1]*.parquet",
    "#?&.parquet",
    *not_unicode(b"\xff\xfe.parquet"),
]


def test_unusual_file_names_and_the_same_name_in_several_folders(model, text_vectors, tmp_path):
    folder = tmp_path / "in dir"
    for place in (folder, folder / "a", folder / "b"):
        place.mkdir(exist_ok=True)
        for name in NAMES:
            pq.write_table(pa.table({"text": TEXTS}), tmp_path / "one")
            shutil.copy(tmp_path / "one", place / name)
    found = rows_of_job(folder, tmp_path / "out", model)
    parts = list((tmp_path / "out").glob("*.parquet"))
    assert len(parts) == 3 * len(NAMES) and found.num_rows == 5 * len(parts)
    assert found["embeddings"].to_pylist() == text_vectors * len(parts)
    assert embed_parquet(faults.stage(model), str(folder), str(tmp_path / "out")).parts_this_run == 0


@needs_any_bytes
def test_a_bad_file_whose_name_is_not_unicode_is_listed(model, tmp_path):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in" / "a.parquet")
    (tmp_path / "in" / os.fsdecode(b"\xff.parquet")).write_bytes(b"no")
    report = embed_parquet(faults.stage(model), str(tmp_path / "in"), str(tmp_path / "out"))
    assert len(report.failed) == 1 and report.parts_whole == 1


def test_empty_row_groups_and_row_groups_larger_than_a_part(model, tmp_path):
    table = pa.table({"id": range(100), "text": [faults.text_of(i) for i in range(100)]})
    with pq.ParquetWriter(tmp_path / "in.parquet", table.schema) as writer:
        for start, stop in ((0, 0), (0, 60), (60, 60), (60, 90), (90, 100), (100, 100)):
            writer.write_table(table.slice(start, stop - start))
    found = rows_of_job(tmp_path / "in.parquet", tmp_path / "out", model, rows_per_part=20)
    assert found.sort_by("id")["text"].to_pylist() == table["text"].to_pylist()


@pytest.mark.parametrize("how", ["appended", "replaced", "gone"])
@pytest.mark.parametrize("when", ["before", "during"])
def test_no_part_is_written_for_an_input_that_changed_after_planning(how, when, model, tmp_path, monkeypatch):
    """Change the input before or while it is read."""
    source, other = tmp_path / "in.jsonl", tmp_path / "other"
    source.write_text('{"text": "old"}\n')
    other.write_text('{"text": "new"}\n')
    harm = {
        "appended": lambda: source.write_text(source.read_text() + '{"text": "more"}\n'),
        "replaced": lambda: (os.utime(other, (1, 1)), other.replace(source)),
        "gone": source.unlink,
    }[how]
    if when == "before":
        inner = work.check_unchanged
        monkeypatch.setattr(
            work, "check_unchanged", lambda *a: (harm() if not seen else None, seen.append(1), inner(*a))
        )
    else:
        inner = EmbedTask.embed
        monkeypatch.setattr(
            EmbedTask, "embed", lambda self, texts: (harm() if texts else None, inner(self, texts))[1]
        )
    seen: list[int] = []
    report = embed_parquet(faults.stage(model), str(source), str(tmp_path / "out"))
    (reason,) = report.failed.values()
    assert (
        "was removed after" if how == "gone" else "has changed since"
    ) in reason and "run the same command" in reason
    assert not list((tmp_path / "out").glob("*.parquet")) and not (tmp_path / "out/_SUCCESS").exists()
    monkeypatch.undo()
    if how == "gone":
        with pytest.raises(JobError, match="has no input"):
            embed_parquet(faults.stage(model), str(source), str(tmp_path / "out"))
    else:
        assert embed_parquet(faults.stage(model), str(source), str(tmp_path / "out")).complete
        texts = pq.read_table(tmp_path / "out")["text"].to_pylist()
        assert texts == (["new"] if how == "replaced" else ["old", "more"])


def slabs(path, *columns):
    (file,) = find_inputs([str(path)], Target(str(path.parent / "out")), {})[0]
    inspected = inspect_inputs([file], "text", None, {})
    copied = copied_columns(inspected, "text", columns or None)
    (unit,) = plan_units(inspected, 1 << 40)
    return list(readers.read_unit(unit, JobColumns("text", copied, not columns), {}))


def test_slabs_span_row_groups(tmp_path, monkeypatch):
    table = pa.table({"text": [faults.text_of(i) for i in range(1000)], "id": range(1000)})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=1)
    (slab,) = slabs(tmp_path / "in.parquet")
    assert slab.table.equals(table) and slab.texts == table["text"].to_pylist()
    monkeypatch.setattr(readers, "SLAB_ROWS", 300)
    monkeypatch.setattr(piece_sizes, "PIECE_ROWS", 64)
    several = slabs(tmp_path / "in.parquet")
    assert max(len(slab.texts) for slab in several) <= 300 and len(several) <= 5
    assert pa.concat_tables([slab.table for slab in several]).equals(table)


def test_bad_rows_keep_their_position_in_a_slab_of_several_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonlines, "PIECE_ROWS", 2)
    rows = ["{bad"] + [json.dumps({"text": 7 if i in (3, 8) else f"t{i}", "id": i}) for i in range(1, 10)]
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    (slab,) = slabs(tmp_path / "in.jsonl")
    assert sorted(slab.bad_rows) == [0, 3, 8] and slab.table["id"].to_pylist() == [None, *range(1, 10)]
    assert slab.texts == [None if i in (0, 3, 8) else f"t{i}" for i in range(10)]


def test_memory_is_bounded_if_a_dictionary_repeats_large_values(tmp_path):
    """Read 54 kB that decode to 2.4 GB."""
    value = pa.array(["y" * 100_000])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 24_000, pa.int32()), value)
    table = pa.table({"text": pa.array(["short"] * 24_000), "v": column})
    pq.write_table(table, tmp_path / "in.parquet", store_schema=False)
    assert (tmp_path / "in.parquet").stat().st_size < 100_000
    rows, slab, grown = peak(tmp_path / "in.parquet")
    assert rows == 24_000 and slab <= 80 and grown < 600, (slab, grown)


@pytest.mark.slow
def test_memory_is_bounded_if_json_is_nested(tmp_path):
    """Read 500 rows of 100 kB, which take ten times as much as Python objects."""
    row = {"nested": [{"k": i, "v": [i % 7, i % 5], "w": {"z": "ab"}} for i in range(2400)]}
    with (tmp_path / "in.jsonl").open("w") as out:
        out.writelines(json.dumps({"text": f"row {i}", **row}) + "\n" for i in range(500))
    rows, slab, grown = peak(tmp_path / "in.jsonl")
    assert rows == 500 and slab <= 80 and grown < 400, (slab, grown)
