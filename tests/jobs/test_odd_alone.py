"""Unusual files that would hide all others in one folder, each tested alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_embed_dask import embed_parquet

from ..helpers import faults
from ..helpers.odd_compare import read_parquet

WORDS = pa.dictionary(pa.int8(), pa.string())
UUIDS = pa.array([b"0123456789abcdef", None], pa.uuid())


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("bert")


@pytest.fixture
def job(model, tmp_path):
    """Write files and embed them: tables, lists of rows, or bytes."""

    def run(files: dict, more: dict | None = None, **how):
        for name, content in files.items():
            path = tmp_path / "in" / name
            path.parent.mkdir(exist_ok=True)
            if isinstance(content, pa.Table):
                pq.write_table(content, path)
            else:
                path.write_bytes(
                    content
                    if isinstance(content, bytes)
                    else b"\n".join(json.dumps(row).encode() for row in content)
                )
        return embed_parquet(
            faults.stage(model, **(more or {})), str(tmp_path / "in"), str(tmp_path / "out"), **how
        )

    return run


def out(tmp_path: Path, name: str) -> pa.Table:
    return pa.concat_tables(
        [read_parquet(path) for path in sorted((tmp_path / "out").glob(f"{name}-*.parquet"))]
    )


def grouped(*tables: pa.Table) -> bytes:
    """Write a file with one row group per table."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_a_rerun_with_maps_embeds_nothing(job):
    maps = pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8()))
    files = {
        "a.parquet": pa.table({"text": ["x"], "m": maps, "l": pa.array([[[("b", 2)]]], pa.list_(maps.type))})
    }
    assert job(files).parts_this_run == 1
    assert job({}).parts_this_run == 0


@pytest.mark.parametrize("holder", ["struct", "list of struct", "list", "map"])
def test_non_nullable_values_in_a_column_that_another_file_does_not_have(holder, job, tmp_path):
    field = pa.field("a", pa.int8(), nullable=False)
    value, dtype = {
        "struct": ({"a": 1}, pa.struct([field])), "list of struct": ([{"a": 1}], pa.list_(pa.struct([field]))),
        "list": ([1], pa.list_(field)), "map": ([("k", 1)], pa.map_(pa.string(), field)),
    }[holder]  # fmt: skip
    report = job(
        {
            "a.parquet": pa.table({"text": ["x"], "s": pa.array([value], dtype)}),
            "b.parquet": pa.table({"text": ["y"]}),
        }
    )
    assert report.complete, report.failed
    assert out(tmp_path, "a")["s"].to_pylist() == [value] and out(tmp_path, "b")["s"].to_pylist() == [None]


@pytest.mark.parametrize("array", [
    pa.StructArray.from_arrays([UUIDS], ["u"]), pa.ListArray.from_arrays(pa.array([0, 1, 2]), UUIDS),
    pa.FixedSizeListArray.from_arrays(UUIDS, 1), pa.MapArray.from_arrays(pa.array([0, 1, 2]), ["k", "l"], UUIDS),
    pa.ListArray.from_arrays(pa.array([0, 1, 2]), pa.StructArray.from_arrays([UUIDS], ["u"])),
], ids=lambda array: str(array.type)[:30])  # fmt: skip
def test_extension_types_inside_others(array, job, tmp_path):
    report = job(
        {"a.parquet": pa.table({"text": ["x", "y"], "e": array}), "b.parquet": pa.table({"text": ["z"]})}
    )
    assert report.complete, report.failed
    assert str(out(tmp_path, "a")["e"].to_pylist()) == str(array.to_pylist())
    assert out(tmp_path, "b")["e"].to_pylist() == [None]


@pytest.mark.parametrize("dtype", [pa.string_view(), WORDS, pa.large_string()], ids=str)
@pytest.mark.parametrize("name", ["text", "other"])
def test_every_string_type_with_one_row_per_window(dtype, name, job, tmp_path):
    words = pa.array(["river stone " * 30, None, ""]).cast(dtype)
    table = pa.table(
        {"text": ["cloud market " * 30, None, ""], "list": pa.array([["a"]] * 3).cast(pa.list_(dtype))}
    )
    table = table.drop_columns([name] if name == "text" else []).append_column(name, words)
    report = job({"a.parquet": table}, {"long_documents": "explode", "max_seq_length": 12})
    assert report.complete, report.failed
    found = out(tmp_path, "a")
    firsts = [row for row in found.to_pylist() if not row["chunk"]]
    assert [row[name] for row in firsts] == words.to_pylist() and len(found) > 3


def test_the_most_frequent_type_wins_for_any_other_columns(job):
    """The file with the other type is first, and no two of the others have the same columns."""
    others = {f"b{i}.parquet": pa.table({"text": ["y"], "n": [i], f"more{i}": [i]}) for i in range(5)}
    report = job({"a.parquet": pa.table({"text": ["x"], "n": ["007"]}), **others})
    assert [Path(name).name for name in report.failed] == ["a.parquet"]


def test_types_that_one_type_holds_count_together(job):
    """Four files have numbers, of four types; two have strings."""
    numbers = {f"b{i}.parquet": pa.table({"text": ["y"], "n": pa.array([1], dtype)})
               for i, dtype in enumerate((pa.int8(), pa.int64(), pa.float32(), pa.uint16()))}  # fmt: skip
    strings = pa.table({"text": ["x"], "n": ["007"]})
    report = job({"a0.parquet": strings, "a1.parquet": strings, **numbers})
    assert sorted(Path(name).name for name in report.failed) == ["a0.parquet", "a1.parquet"]


def test_json_objects_without_fields_beside_lists_of_nulls_in_parquet(job, tmp_path):
    lists = pa.table({"text": ["x"], "n": pa.array([[None]], pa.large_list(pa.null()))})
    report = job({"a.parquet": lists, "b.parquet": lists, "c.jsonl": [{"text": "y", "n": [{}]}]})
    assert report.complete, report.failed
    assert out(tmp_path, "a")["n"].to_pylist() == [[None]] and len(out(tmp_path, "c")["n"].to_pylist()[0]) == 1


def test_json_lines_whose_text_appears_late(job, tmp_path):
    rows = [{"id": i} for i in range(20_000)] + [{"id": 20_000, "text": "late"}]
    report = job({"a.jsonl": rows, "b.jsonl": [{"id": 0, "text": "x"}]}, {"on_error": "null"})
    (reason,) = report.failed.values() or [""]
    assert "closed file" not in reason and "no line" not in reason, "a line of it has"
    assert reason or out(tmp_path, "a")["text"].to_pylist()[-1] == "late"


def test_json_lines_without_the_text_field_are_refused(job):
    report = job({"a.jsonl": [{"id": i} for i in range(20_000)], "b.jsonl": [{"id": 0, "text": "x"}]})
    (reason,) = report.failed.values()
    assert re.search(r"a.jsonl.*no .*'text'", reason)


@pytest.mark.parametrize("odd", [2**70, 2**63, 0.5, "1", [1], True])
def test_a_value_of_another_type_beyond_the_sample_is_named_by_its_row(odd, job):
    rows = [{"text": "a", "n": 1}] * 1500 + [{"text": "b", "n": odd}] + [{"text": "a", "n": 1}] * 10
    report = job({"a.jsonl": rows}, sample_bytes=1000)
    (reason,) = report.failed.values()
    assert "row 1500" in reason and "'n'" in reason


def test_a_page_with_a_wrong_checksum_fails_its_file(job):
    """The checksum shows that the file is damaged; its values are not the written ones."""
    sink = pa.BufferOutputStream()
    numbers = pa.array(range(1_000_000_007, 1_000_000_017))
    pq.write_table(pa.table({"text": ["x"] * 10, "n": numbers}), sink, compression="none", use_dictionary=False,
                   write_page_checksum=True, write_statistics=False)  # fmt: skip
    data = bytearray(sink.getvalue().to_pybytes())
    data[data.index((1_000_000_012).to_bytes(8, "little"))] ^= 1
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(pa.BufferReader(bytes(data)), page_checksum_verification=True).read()
    report = job({"a.parquet": bytes(data), "b.parquet": pa.table({"text": ["y"], "n": [1]})})
    assert [Path(name).name for name in report.failed] == ["a.parquet"]


def test_dictionaries_whose_row_groups_have_more_values_than_an_index_can_hold(job, tmp_path):
    tables = [
        pa.table({"text": ["x"] * 100, "d": pa.array([f"{part}{i}" for i in range(100)]).cast(WORDS)})
        for part in "ab"
    ]
    report = job({"a.parquet": grouped(*tables)})
    assert report.complete, report.failed
    assert out(tmp_path, "a")["d"].to_pylist() == [f"{part}{i}" for part in "ab" for i in range(100)]


@pytest.mark.parametrize("other", [
    pa.array([{"n": None}, None], pa.struct([("n", pa.null())])), pa.array([["a"], None]).cast(pa.list_(WORDS)),
    pa.array([[1], None], pa.list_view(pa.int8())), pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
    pa.array([{"n": [{"m": None}]}, None]), pa.array([[("a", None)], None], pa.map_(pa.string(), pa.null())),
], ids=lambda array: str(array.type))  # fmt: skip
def test_nested_columns_beside_dictionaries_of_several_row_groups(other, job, tmp_path):
    """pyarrow splits all columns of a batch where the dictionary changes."""
    tables = [
        pa.table({"text": [word, word], "d": pa.array([word, None]).cast(WORDS), "n": other})
        for word in ("a", "b")
    ]
    report = job({"a.parquet": grouped(*tables)})
    assert report.complete, report.failed
    assert out(tmp_path, "a")["n"].to_pylist() == other.to_pylist() * 2
    assert out(tmp_path, "a")["d"].to_pylist() == ["a", None, "b", None]


@pytest.mark.parametrize("dtype", [pa.string_view(), pa.binary_view()], ids=str)
def test_views_that_other_files_do_not_have_or_have_as_plain_columns(dtype, job):
    plain = pa.nulls(
        2, pa.dictionary(pa.int8(), pa.string()) if dtype == pa.string_view() else pa.large_binary()
    )
    report = job({
        "a.parquet": pa.table({"text": ["x"], "v": pa.array([None], dtype)}), "b.parquet": pa.table({"text": ["y"]}),
        "c.jsonl": [{"text": "z"}], "d.parquet": pa.table({"text": ["u", "v"], "v": plain}),
    })  # fmt: skip
    assert report.complete, report.failed


@pytest.mark.parametrize(
    "kinds", [(pa.list_view, pa.list_), (pa.large_list_view, pa.large_list)], ids=["list", "large_list"]
)
def test_views_of_lists_do_not_break_files_without_them(kinds, job, tmp_path):
    """Arrow cannot cast nulls or lists to them, and its cast from them gives invalid arrays."""
    view, plain = (pa.array([[1, None], None, []], kind(pa.int8())) for kind in kinds)
    report = job({
        "a.parquet": pa.table({"text": ["x"] * 3, "v": view}), "b.parquet": pa.table({"text": ["y"]}), "c.jsonl": [{"text": "z"}],
        "d.parquet": pa.table({"text": ["x"] * 3, "v": plain}),
    })  # fmt: skip
    failed = {Path(name).name for name in report.failed}
    assert len(failed) <= 1 and failed <= {"a.parquet", "d.parquet"}, report.failed
    for name in {"a.parquet", "d.parquet"} - failed:
        assert out(tmp_path, name[0])["v"].to_pylist() == view.to_pylist()
