"""Copied columns have the values of the input, in a type that holds those of all inputs; else the input fails."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from nemo_embed_dask import ColumnError, JobError, embed_parquet

from ...helpers import faults


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("bert")


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))


def parquet(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def job(source, target, model, on_error="raise", **more):
    return embed_parquet(faults.stage(model, on_error=on_error), source, target, **more)


def rows(target, *names):
    """Return the rows of a target by text, without vectors."""
    table = pq.read_table(target).drop_columns("embeddings")
    found = (table.select(names) if names else table).to_pylist()
    return dict(zip(pq.read_table(target)["text"].to_pylist(), found, strict=True))


def kept(source, target, model, *names):
    """Run a job that must be complete, and return its rows."""
    report = job(source, target, model)
    assert report.complete, report.failed
    return rows(target, *names)


# ---- JSON lines: only values show the types ----------------------------------------------------------


def test_a_later_float_widens_a_column_of_integers(model, tmp_path):
    lines(tmp_path / "a.jsonl", {"text": "a", "n": 1}, {"text": "b", "n": 0.5})
    lines(tmp_path / "b.jsonl", {"text": "c", "n": 2**53})
    found = kept([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "out", model, "n")
    assert found == {"a": {"n": 1.0}, "b": {"n": 0.5}, "c": {"n": 2.0**53}}


def test_an_integer_that_a_float_cannot_hold_fails_its_file(model, tmp_path):
    lines(tmp_path / "in/a.jsonl", {"text": "a", "n": 0.5}, {"text": "b", "n": 1.5})
    lines(tmp_path / "in/b.jsonl", {"text": "c", "n": 2**53 + 1})
    report = job(tmp_path / "in", tmp_path / "out", model)
    (reason,) = report.failed.values()
    assert "b.jsonl" in reason and "'n'" in reason and "9007199254740993" in reason
    assert rows(tmp_path / "out", "n") == {"a": {"n": 0.5}, "b": {"n": 1.5}}


@pytest.mark.parametrize(
    ("first", "odd"),
    [(["x"], "abc"), ([1], ["y"]), (True, 1), ("7", 7), ({"a": 1}, [1]), ({"a": 1}, {"a": "x"})],
)
def test_a_value_of_another_type_fails_its_file_and_names_column_and_row(first, odd, model, tmp_path):
    lines(tmp_path / "in/a.jsonl", {"text": "a", "v": first})
    lines(tmp_path / "in/b.jsonl", {"text": "b", "v": first}, {"text": "c", "v": odd})
    report = job(tmp_path / "in", tmp_path / "out", model)
    (reason,) = report.failed.values()
    assert "b.jsonl" in reason and "'v'" in reason and "row 1" in reason and "columns" in reason
    assert rows(tmp_path / "out", "v") == {"a": {"v": first}}
    assert job(tmp_path / "in", tmp_path / "without", model, columns=["text"]).complete


def test_keys_of_objects_are_those_of_all_files(model, tmp_path):
    lines(tmp_path / "in/a.jsonl", {"text": "a", "o": {"x": 1, "deep": [{"p": 1}]}})
    lines(tmp_path / "in/b.jsonl", {"text": "b", "o": {"y": "z", "deep": [{"q": True}, {}]}, "more": 1})
    found = kept(tmp_path / "in", tmp_path / "out", model, "o", "more")
    assert found["a"] == {"o": {"x": 1, "deep": [{"p": 1, "q": None}], "y": None}, "more": None}
    deep = [{"p": None, "q": True}, {"p": None, "q": None}]
    assert found["b"] == {"o": {"x": None, "deep": deep, "y": "z"}, "more": 1}


def test_empty_values_in_the_first_file_leave_the_type_to_the_others(model, tmp_path):
    lines(tmp_path / "in/a.jsonl", {"text": "a", "o": {}, "n": None, "l": []})
    lines(tmp_path / "in/b.jsonl", {"text": "b", "o": {"k": 1}, "n": 5, "l": [{"q": 1.5}]})
    found = kept(tmp_path / "in", tmp_path / "out", model, "o", "n", "l")
    assert found["a"] == {"o": {"k": None}, "n": None, "l": []}
    assert found["b"] == {"o": {"k": 1}, "n": 5, "l": [{"q": 1.5}]}


def test_values_that_are_always_empty_can_be_written(model, tmp_path):
    lines(tmp_path / "a.jsonl", {"text": "a", "o": {}, "n": None, "l": [], "d": {"e": {}}}, {"text": "b"})
    found = kept(tmp_path / "a.jsonl", tmp_path / "out", model, "o", "n", "l", "d")
    empty = {"_empty": None}
    assert found["a"] == {"o": empty, "n": None, "l": [], "d": {"e": empty}}
    assert found["b"] == {"o": None, "n": None, "l": None, "d": None}


def test_large_integers_are_kept(model, tmp_path):
    lines(tmp_path / "a.jsonl", {"text": "a", "n": 2**64 - 1, "m": 2**100}, {"text": "b", "n": 1, "m": -1})
    found = kept(tmp_path / "a.jsonl", tmp_path / "out", model, "n", "m")
    assert found == {"a": {"n": 2**64 - 1, "m": Decimal(2**100)}, "b": {"n": 1, "m": Decimal(-1)}}


def test_what_comes_after_the_sample_fits_or_fails_and_never_vanishes(model, tmp_path):
    head = [{"text": f"t{i}", "n": i, "o": {"a": 1}} for i in range(200)]
    for name, late in {"key": {"z": 1}, "nested": {"o": {"b": 2}}, "float": {"n": 0.5}, "fits": {}}.items():
        lines(tmp_path / f"in/{name}.jsonl", *head, {"text": "late", **late})
    report = job(tmp_path / "in", tmp_path / "out", model, sample_bytes=1000)
    assert sorted(reason.split(".jsonl")[0].rpartition("/")[2] for reason in report.failed.values()) == [
        "float",
        "key",
        "nested",
    ]
    assert "sample_bytes" in next(reason for reason in report.failed.values() if "key.jsonl" in reason)
    assert job(tmp_path / "in", tmp_path / "all", model, sample_bytes=1 << 20).complete


# ---- Parquet: types are in the footers --------------------------------------------------------------


def test_numbers_are_widened_over_all_files(model, tmp_path):
    parquet(tmp_path / "in/a.parquet", text=["a"], i=pa.array([7], pa.int8()), f=pa.array([1.5], pa.float32()))
    parquet(tmp_path / "in/b.parquet", text=["b"], i=pa.array([2**40]), f=[0.1])
    found = kept(tmp_path / "in", tmp_path / "out", model, "i", "f")
    assert found == {"a": {"i": 7, "f": 1.5}, "b": {"i": 2**40, "f": 0.1}}
    assert pq.read_schema(next((tmp_path / "out").glob("*.parquet"))).field("i").type == pa.int64()


UNLIKE = {
    "a number written as text": (pa.array([7, 8]), pa.array(["007", "8"])),
    "a naive time": (
        pa.array([0, 1], pa.timestamp("us", "Europe/Prague")),
        pa.array([0, 1], pa.timestamp("us")),
    ),
    "another zone": (pa.array([0, 1], pa.timestamp("us", "UTC")), pa.array([0, 1], pa.timestamp("us", "Asia/Tokyo"))),
    "a list": (pa.array([1, 2]), pa.array([[1], [2]])),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNLIKE)
def test_types_that_none_holds_fail_the_rarer_kind_of_file(kind, model, tmp_path):
    most, odd = UNLIKE[kind]
    parquet(tmp_path / "in/a.parquet", text=["a", "b"], v=odd)
    for name in "bc":
        parquet(tmp_path / f"in/{name}.parquet", text=[f"{name}1", f"{name}2"], v=most)
    report = job(tmp_path / "in", tmp_path / "out", model)
    (reason,) = report.failed.values()
    assert "in/a.parquet: column 'v' has type" in reason
    found = pq.read_table(tmp_path / "out")
    assert found["v"].type == most.type and sorted(found["v"].to_pylist()) == sorted(most.to_pylist() * 2)


def test_the_type_of_most_files_wins_however_they_differ_otherwise(model, tmp_path):
    for place in range(3):
        lines(tmp_path / f"in/a{place}.jsonl", {"text": f"odd {place}", "v": 1})
    for place in range(4):
        lines(tmp_path / f"in/b{place}.jsonl", {"text": f"{place}", "v": "x", f"k{place}": 1})
    report = job(tmp_path / "in", tmp_path / "out", model)
    assert len(report.failed) == 3 and all("/a" in name and "'v'" in why for name, why in report.failed.items())
    assert {row["v"] for row in rows(tmp_path / "out").values()} == {"x"}


def test_where_each_file_is_odd_in_a_column_of_its_own_one_is_done(model, tmp_path):
    for odd in "xyz":
        parquet(tmp_path / f"in/{odd}.parquet", text=[odd], **{name: [1] for name in "xyz"} | {odd: ["s"]})
    report = job(tmp_path / "in", tmp_path / "out", model)
    assert len(report.failed) == 2 and rows(tmp_path / "out") == {"x": {"text": "x", "x": "s", "y": 1, "z": 1}}


I, S = [1], ["x"]


def test_a_file_that_fails_decides_no_type_and_is_told_why_it_fails(model, tmp_path):
    for name in "ab":
        parquet(tmp_path / f"in/{name}.parquet", text=[name], c=I, q=I)
    parquet(tmp_path / "in/odd.parquet", text=["odd"], c=[1.5], q=S)
    report = job(tmp_path / "in", tmp_path / "out", model)
    (why,) = report.failed.values()
    assert "odd.parquet: column 'q' has type string" in why
    assert pq.read_table(tmp_path / "out")["c"].type == pa.int64()


def test_a_file_without_a_clash_is_done_though_one_that_clashes_is_like_it(model, tmp_path):
    parquet(tmp_path / "in/f.parquet", text=["f"], c=S)
    for name in "gh":
        parquet(tmp_path / f"in/g{name}.parquet", text=[f"g{name}"], c=I, d=S)
    for name in "xyz":
        parquet(tmp_path / f"in/{name}.parquet", text=[name], d=I)
    report = job(tmp_path / "in", tmp_path / "out", model)
    assert sorted(file.rpartition("/")[2] for file in report.failed) == ["gg.parquet", "gh.parquet"]
    assert all(
        "column 'd' has type string" in why or "column 'c' has type int64" in why
        for why in report.failed.values()
    )
    assert rows(tmp_path / "out", "c", "d") == {"f": {"c": "x", "d": None}} | {
        n: {"c": None, "d": 1} for n in "xyz"
    }


def test_a_column_that_only_a_failing_file_has_is_null_elsewhere(model, tmp_path):
    for name in "ab":
        parquet(tmp_path / f"in/{name}.parquet", text=[name], d=I)
    parquet(tmp_path / "in/odd.parquet", text=["odd"], d=S, c=[1.5])
    report = job(tmp_path / "in", tmp_path / "out", model, columns=["text", "c", "d"])
    assert [file.rpartition("/")[2] for file in report.failed] == ["odd.parquet"]
    assert rows(tmp_path / "out", "c", "d") == {name: {"c": None, "d": 1} for name in "ab"}


def test_a_column_of_the_stages_name_is_refused_with_the_name_of_its_file(model, tmp_path):
    parquet(tmp_path / "in/a.parquet", text=["a"])
    parquet(tmp_path / "in/b.parquet", text=["b"], embeddings=[[1.0]])
    with pytest.raises(ColumnError, match=r"in/b\.parquet: there is a column 'embeddings'"):
        job(tmp_path / "in", tmp_path / "out", model)


def test_an_integer_beyond_the_floats_fails_its_file_alone(model, tmp_path):
    parquet(tmp_path / "in/a.parquet", text=["a"], v=[0.5])
    parquet(tmp_path / "in/b.parquet", text=["b"], v=[2**53 + 1])
    parquet(tmp_path / "in/c.parquet", text=["c"], v=[2**53])
    report = job(tmp_path / "in", tmp_path / "out", model)
    (reason,) = report.failed.values()
    assert "b.parquet" in reason and "'v'" in reason and "9007199254740993" in reason
    assert rows(tmp_path / "out", "v") == {"a": {"v": 0.5}, "c": {"v": 2.0**53}}


MANY, ONE = 9, 1
LARGE = {
    "ids among doubles": (pa.array([2**60 + 1]), pa.array([0.5])),
    "unsigned ids among doubles": (pa.array([2**64 - 1], pa.uint64()), pa.array([0.5])),
    "years among nanoseconds": (
        pa.array([dt.datetime(9999, 12, 31)], pa.timestamp("us")),
        pa.array([1], pa.timestamp("ns")),
    ),
    "spans among nanoseconds": (pa.array([2**40], pa.duration("s")), pa.array([1], pa.duration("ns"))),
}


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("many_are_large", [True, False])
def test_where_values_fit_no_wider_type_most_files_win(kind, many_are_large, model, tmp_path):
    """Whether double holds 64-bit integers depends on their values."""
    large, other = LARGE[kind]
    for k in range(MANY):
        parquet(tmp_path / f"in/many{k}.parquet", text=[f"many{k}"], v=large if many_are_large else other)
    parquet(tmp_path / "in/one.parquet", text=["one"], v=other if many_are_large else large)
    report = job(tmp_path / "in", tmp_path / "out", model)
    assert [file.rpartition("/")[2] for file in report.failed] == ["one.parquet"]
    found = pq.read_table(tmp_path / "out")
    assert found["v"].combine_chunks().equals(pa.concat_arrays([large if many_are_large else other] * MANY))


def test_json_ids_among_fractions_win_too(model, tmp_path):
    for k in range(MANY):
        lines(tmp_path / f"in/many{k}.jsonl", {"text": f"many{k}", "v": 2**60 + k})
    lines(tmp_path / "in/one.jsonl", {"text": "one", "v": 0.5})
    report = job(tmp_path / "in", tmp_path / "out", model)
    assert [file.rpartition("/")[2] for file in report.failed] == ["one.jsonl"]
    assert rows(tmp_path / "out", "v") == {f"many{k}": {"v": 2**60 + k} for k in range(MANY)}


def test_struct_fields_and_columns_that_a_file_lacks_are_null_there(model, tmp_path):
    parquet(tmp_path / "in/a.parquet", text=["a"], s=[{"x": 1}], only=[1])
    parquet(tmp_path / "in/b.parquet", s=[{"y": [1], "x": 2}], text=["b"])
    report = job(tmp_path / "in", tmp_path / "out", model)
    assert report.complete and any("'only'" in note and "b.parquet" in note for note in report.notes)
    found = rows(tmp_path / "out", "s", "only")
    assert found == {"a": {"s": {"x": 1, "y": None}, "only": 1}, "b": {"s": {"x": 2, "y": [1]}, "only": None}}


def test_notes_name_columns_that_are_null_and_not_a_missing_text_column(model, tmp_path):
    parquet(tmp_path / "in/a.parquet", text=["one"], id=[1])
    parquet(tmp_path / "in/b.parquet", text=["two"])
    parquet(tmp_path / "in/c.parquet", body=["three"], id=[3])
    report = job(tmp_path / "in", tmp_path / "out", model)
    assert report.notes == [f"1 file has no column 'id', such as {tmp_path}/in/b.parquet: it is null there"]
    assert [name.rpartition("/")[2] for name in report.failed] == ["c.parquet"]


def test_text_of_every_kind_in_one_job(model, tmp_path):
    kinds = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()), pa.null()]
    for place, kind in enumerate(kinds):
        text = pa.nulls(1) if kind == pa.null() else pa.array([f"text {place}"]).cast(kind)
        parquet(tmp_path / f"in/{place}.parquet", text=text, id=[place])
    report = job(tmp_path / "in", tmp_path / "out", model)
    assert report.complete, report.failed
    found = pq.read_table(tmp_path / "out").sort_by("id")
    assert found["text"].to_pylist() == ["text 0", "text 1", "text 2", "text 3", None]
    assert [v is None for v in found["embeddings"].to_pylist()] == [False] * 4 + [True]


def test_a_text_column_of_nulls_only_gives_null_vectors(model, tmp_path):
    parquet(tmp_path / "a.parquet", text=pa.nulls(2), id=[1, 2])
    assert job(tmp_path / "a.parquet", tmp_path / "out", model).complete
    found = pq.read_table(tmp_path / "out")
    assert found["embeddings"].null_count == 2 and found["id"].to_pylist() == [1, 2]


def test_columns_of_one_name_are_refused_unless_left_out(model, tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([2])], names=["text", "id", "id"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ColumnError, match="2 columns named 'id'"):
        job(tmp_path / "a.parquet", tmp_path / "out", model)
    assert job(tmp_path / "a.parquet", tmp_path / "out", model, columns="text").complete


@pytest.mark.parametrize("year", [1, 1677, 2262, 9999])
def test_the_timestamps_of_spark_and_hive_are_kept_in_every_year(year, model, tmp_path):
    """pyarrow reads INT96 as nanoseconds, in which these years overflow."""
    times = pa.array([dt.datetime(year, 1, 2, 3, 4, 5, 678901), None], pa.timestamp("us"))
    table = pa.table({"text": ["a", "b"], "t": times, "s": [{"t": None}, {"t": times[0]}]})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    assert pq.ParquetFile(tmp_path / "a.parquet").schema.column(1).physical_type == "INT96"
    assert kept(tmp_path / "a.parquet", tmp_path / "out", model, "t", "s") == {
        "a": {"t": times[0].as_py(), "s": {"t": None}},
        "b": {"t": None, "s": {"t": times[0].as_py()}},
    }


def test_their_nanoseconds_are_not_cut_off(model, tmp_path):
    times = pa.array([1, 2], pa.timestamp("ns"))
    pq.write_table(
        pa.table({"text": ["a", "b"], "t": times}), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True
    )
    (reason,) = job(tmp_path / "a.parquet", tmp_path / "out", model).failed.values()
    assert "column 't' has INT96 timestamps with nanoseconds" in reason


# ---- rows -------------------------------------------------------------------------------------------

ODD_ROWS = [{"text": "a", "u": {"v": "fine"}}, {"text": 7}, {"text": ["x", "y"]}, {"text": {"t": 1}},
            {"text": "b", "u": {"v": "\ud800"}}, {"text": None}, {"text": "last"}]  # fmt: skip


def test_a_text_that_is_no_string_costs_its_row(model, tmp_path):
    lines(tmp_path / "a.jsonl", *ODD_ROWS)
    report = job(tmp_path / "a.jsonl", tmp_path / "out", model, "null")
    assert report.complete and report.null_rows == 4 and report.total.nulls == 1
    found = pq.read_table(tmp_path / "out")
    assert [v is None for v in found["embeddings"].to_pylist()] == [False, *[True] * 5, False]
    assert found["text"].to_pylist() == ["a", None, None, None, "b", None, "last"]
    listed = pq.read_table(tmp_path / "out/_nemo_embed/errors.parquet.log").to_pylist()
    assert [row["row"] for row in listed] == [1, 2, 3, 4] and "list instead of a string" in listed[1]["reason"]


def test_a_text_that_is_no_string_names_its_row(model, tmp_path):
    lines(tmp_path / "a.jsonl", *ODD_ROWS)
    (reason,) = job(tmp_path / "a.jsonl", tmp_path / "out", model).failed.values()
    assert "a.jsonl, row 1: not valid text in 'text': int instead of a string" in reason


# ---- folders that are columns -----------------------------------------------------------------------

HIVE = ("lang=en/year=007", "lang=de%20AT/year=2024", "lang=__HIVE_DEFAULT_PARTITION__/year=-1")


def test_names_of_folders_are_columns_as_pyarrow_reads_them(model, tmp_path):
    for place, folder in enumerate(HIVE):
        parquet(tmp_path / "in" / folder / "part-0.parquet", text=[f"t{place}"])
    lines(tmp_path / "in/lang=fr/year=5/x.jsonl", {"text": "t3"}, {"text": "t4", "lang": "own"})
    expected = ds.dataset(
        tmp_path / "in", partitioning="hive", format="parquet", exclude_invalid_files=True
    ).to_table()
    job(tmp_path / "in", tmp_path / "out", model)
    found = pq.read_table(tmp_path / "out").drop_columns("embeddings").sort_by("text")
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 4
    assert found.schema.field("year").type == expected.schema.field("year").type == pa.int32()
    assert found.schema.field("lang").type == expected.schema.field("lang").type == pa.string()
    assert found.slice(0, 3).to_pylist() == expected.sort_by("text").select(found.column_names).to_pylist()
    assert found.slice(3).to_pylist() == [
        {"text": "t3", "lang": "fr", "year": 5},
        {"text": "t4", "lang": "own", "year": 5},
    ]


@pytest.mark.parametrize("source", ["in", "in/*/*/*.parquet", "in/lang=*", "in/lang=en/**/*.parquet"])
def test_they_can_be_named_and_are_there_however_the_files_are(source, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parquet(tmp_path / "in/lang=en/year=1/a.parquet", text=["a"], id=[1])
    assert job(source, tmp_path / "out", model, columns=["lang", "id"]).complete
    assert pq.read_table(tmp_path / "out", columns=["lang", "id"]).to_pylist() == [{"lang": "en", "id": 1}]


@pytest.mark.parametrize("wide_first", [True, False])
def test_a_source_within_another_one_hides_no_folder(wide_first, model, tmp_path):
    for lang in ("de", "en"):
        parquet(tmp_path / f"in/lang={lang}/a.parquet", text=[lang])
    sources = [tmp_path / "in", tmp_path / "in/lang=en"]
    assert job(sources[:: 1 if wide_first else -1], tmp_path / "out", model).complete
    assert rows(tmp_path / "out", "lang") == {"de": {"lang": "de"}, "en": {"lang": "en"}}


def test_a_folder_gives_no_text(model, tmp_path):
    """A text in the name of a folder is not embedded."""
    lines(tmp_path / "in/text=abc/a.jsonl", {"text": "own"}, {"id": 1}, {"text": None})
    lines(tmp_path / "in/text=abc/b.jsonl", *[{"id": i} for i in range(2000)], {"text": "last"})
    assert job(tmp_path / "in", tmp_path / "out", model).complete
    table = pq.read_table(tmp_path / "out")
    assert table["text"].drop_null().to_pylist() == ["own", "last"]
    assert table["text"].is_null().equals(table["embeddings"].is_null())


# ---- from one run to the next -----------------------------------------------------------------------


def test_a_column_stays_wide_when_the_file_that_needed_it_is_gone(model, tmp_path):
    parquet(tmp_path / "in/a.parquet", text=["a"], v=[1])
    parquet(tmp_path / "in/b.parquet", text=["b"], v=[0.5], w=["x"])
    job(tmp_path / "in", tmp_path / "out", model)
    (tmp_path / "in/b.parquet").unlink()
    parquet(tmp_path / "in/c.parquet", text=pa.array(["c"], pa.large_string()), v=pa.array([3], pa.int8()))
    report = job(tmp_path / "in", tmp_path / "out", model, update=True)
    assert report.complete and report.parts_this_run == 1, "the other part is as good as it was"
    assert rows(tmp_path / "out", "v", "w") == {"a": {"v": 1.0, "w": None}, "c": {"v": 3.0, "w": None}}


def test_an_input_that_needs_a_wider_column_is_refused_and_said(model, tmp_path):
    parquet(tmp_path / "in/a.parquet", text=["a"], v=[1])
    job(tmp_path / "in", tmp_path / "out", model)
    parquet(tmp_path / "in/b.parquet", text=["b"], v=[0.5])
    with pytest.raises(JobError, match=r"columns.v: 'int64' before, 'double' now.*--force"):
        job(tmp_path / "in", tmp_path / "out", model)
    assert job(tmp_path / "in", tmp_path / "out", model, force=True).complete
    assert rows(tmp_path / "out", "v") == {"a": {"v": 1.0}, "b": {"v": 0.5}}


def test_columns_may_be_one_none_or_missing(model, tmp_path):
    parquet(tmp_path / "a.parquet", text=["a", None], id=[1, 2])
    for columns, names in (("id", ["id"]), ([], []), (("id", "text", "id"), ["id", "text"])):
        target = tmp_path / f"out-{len(names)}"
        assert job(tmp_path / "a.parquet", target, model, columns=columns).complete
        assert pq.read_table(target).column_names == [*names, "embeddings"]
        assert pq.read_table(target)["embeddings"].null_count == 1
    with pytest.raises(ColumnError, match=r"no column 'nope' to copy; the columns are \['text', 'id'\]"):
        job(tmp_path / "a.parquet", tmp_path / "out", model, columns="nope")


# ---- new columns and those of the inputs ------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_new_column_replaces_one_of_a_later_row_only_where_that_was_allowed(overwrite, model, tmp_path):
    """Rows after the sample are unknown when the job is planned."""
    lines(tmp_path / "in/a.jsonl", *[{"text": "a"}] * 5, {"text": "b", "embeddings": [1.0]})
    lines(tmp_path / "in/b.jsonl", {"text": "c"})
    stage = faults.stage(model, overwrite=overwrite)
    report = embed_parquet(stage, tmp_path / "in", tmp_path / "out", sample_bytes=20)
    if overwrite:
        assert report.complete, report.failed
        assert pq.read_schema(next((tmp_path / "out").glob("a-*"))).field("embeddings").type.list_size > 1
    else:
        [(file, told)] = report.failed.items()
        assert file.endswith("a.jsonl") and "row 5: there is a column 'embeddings' already" in told


@pytest.mark.parametrize(
    ("own", "folders", "fail"),
    [
        (5, ["7", "8"], []),
        (5, ["abc", "007"], ["abc", "007"]),
        (0.5, ["7"], []),
        (True, ["1"], ["1"]),
        (dt.datetime(2024, 1, 1), ["5"], ["5"]),
        ([1], ["5"], ["5"]),
    ],
)
def test_a_folders_value_is_as_typed_as_a_files_own(own, folders, fail, model, tmp_path):
    for k in range(5):
        parquet(tmp_path / f"in/own{k}.parquet", text=[f"own{k}"], k=pa.array([own]))
    for value in folders:
        parquet(tmp_path / f"in/k={value}/x.parquet", text=[value])
        lines(tmp_path / f"in/k={value}/x.jsonl", {"text": f"line {value}"})
    report = job(tmp_path / "in", tmp_path / "out", model)
    found = rows(tmp_path / "out", "k")
    for value in folders:
        told = [why for file, why in report.failed.items() if f"k={value}/" in file]
        assert len(told) == (2 if value in fail else 0)
        assert all("column 'k' has type" in why and "convert them to one type" in why for why in told)
        if value not in fail:
            assert found[value] == found[f"line {value}"] == {"k": int(value)}
    assert all(found[f"own{k}"] == {"k": own} for k in range(5))
