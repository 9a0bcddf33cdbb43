"""Reading units: unusual types, names and lines, damaged and changing files, and the size of slabs."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess

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
from ...helpers.peak import peak
from ..files.test_decompression import PACK

TEXTS = ["one", None, "two words", "one", "čtyři"]


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("bert")


def embedded(source, target, model, **more):
    report = embed_parquet(faults.stage(model), str(source), str(target), **more)
    assert report.complete, report.failed
    return pq.read_table(target)


@pytest.fixture(scope="module")
def plain(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    pq.write_table(pa.table({"text": TEXTS}), folder / "in.parquet")
    return embedded(folder / "in.parquet", folder / "out", model)["embeddings"].to_pylist()


@pytest.mark.parametrize("dtype", [
    pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
])  # fmt: skip
def test_every_kind_of_string_column(dtype, model, plain, tmp_path):
    pq.write_table(pa.table({"text": pa.array(TEXTS).cast(dtype)}), tmp_path / "in.parquet")
    found = embedded(tmp_path / "in.parquet", tmp_path / "out", model)
    assert found["text"].to_pylist() == TEXTS and found["embeddings"].to_pylist() == plain


def test_copied_columns_may_be_nested_and_have_unusual_names(model, plain, tmp_path):
    table = pa.table({
        "text": TEXTS, "a.b": range(5), "a": [{"b": [{"c": i}], "d.e": None} for i in range(5)],
        "größe in m": [1.5] * 5, "map": pa.array([[("k", i)] for i in range(5)], pa.map_(pa.string(), pa.int64())),
        "": list("vwxyz"), "view": pa.array(TEXTS, pa.string_view()),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "in.parquet")
    found = embedded(tmp_path / "in.parquet", tmp_path / "out", model)
    assert found.drop_columns("embeddings").equals(pq.read_table(tmp_path / "in.parquet"))
    assert found["embeddings"].to_pylist() == plain
    nested = pq.ParquetFile(next((tmp_path / "out").glob("*.parquet"))).metadata.row_group(0)
    codecs = {nested.column(i).path_in_schema: nested.column(i).compression for i in range(nested.num_columns)}
    assert codecs.pop("embeddings.list.element") == "UNCOMPRESSED" and set(codecs.values()) == {"ZSTD"}, codecs


NAMES = ["a b.parquet", "naïve 漢字.parquet", "x" * 240 + ".parquet", "漢" * 80 + ".parquet", "[1]*.parquet",
         "#?&.parquet", b"\xff\xfe.parquet"]  # fmt: skip


def test_unusual_file_names_and_the_same_name_in_several_folders(model, plain, tmp_path):
    folder = tmp_path / "in dir"
    for place in (folder, folder / "a", folder / "b"):
        place.mkdir(exist_ok=True)
        for name in NAMES:
            pq.write_table(pa.table({"text": TEXTS}), tmp_path / "one")
            shutil.copy(tmp_path / "one", place / os.fsdecode(name))
    found = embedded(folder, tmp_path / "out", model)
    parts = list((tmp_path / "out").glob("*.parquet"))
    assert len(parts) == 3 * len(NAMES) and found.num_rows == 5 * len(parts)
    assert found["embeddings"].to_pylist() == plain * len(parts)
    assert embed_parquet(faults.stage(model), str(folder), str(tmp_path / "out")).parts_this_run == 0


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
    found = embedded(tmp_path / "in.parquet", tmp_path / "out", model, rows_per_part=20)
    assert found.sort_by("id")["text"].to_pylist() == table["text"].to_pylist()


def test_json_lines_with_a_byte_order_mark_crlf_and_blank_lines(model, plain, tmp_path):
    lines = [json.dumps({"text": text, "n": i}).encode() for i, text in enumerate(TEXTS)]
    variants = {
        "bom": b"\xef\xbb\xbf" + b"\n".join(lines), "crlf": b"\r\n".join(lines) + b"\r\n",
        "blank": b"\n\n" + b"\n \n\t\n".join(lines) + b"\n\n",
    }  # fmt: skip
    for name, data in variants.items():
        (tmp_path / f"{name}.jsonl").write_bytes(data)
        found = embedded(tmp_path / f"{name}.jsonl", tmp_path / name, model)
        assert found["n"].to_pylist() == list(range(5)) and found["embeddings"].to_pylist() == plain, name


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("harm", ["flipped", "cut", "no gzip"])
def test_a_damaged_gzip_file_fails_and_the_others_do_not(harm, first, model, tmp_path):
    good = "".join(
        json.dumps({"id": i, "text": random.randbytes(30).hex()}) + "\n" for i in range(3000)
    ).encode()
    data = bytearray(gzip.compress(good, mtime=0))
    if harm == "flipped":
        data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    broken = {"flipped": data, "cut": data[: len(data) // 2], "no gzip": b"plain text"}[harm]
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / ("a.jsonl.gz" if first else "z.jsonl.gz")).write_bytes(broken)
    (folder / "m.jsonl").write_text('{"id": 1, "text": "fine"}\n')
    report = embed_parquet(faults.stage(model), str(folder), str(tmp_path / "out"), retries=0)
    (reason,) = report.failed.values()
    assert "jsonl.gz cannot be read" in reason and "\n" not in reason
    assert pq.read_table(tmp_path / "out")["text"].to_pylist() == ["fine"]


@pytest.mark.parametrize("how", ["appended", "replaced", "gone"])
@pytest.mark.parametrize("when", ["before", "during"])
def test_no_part_is_written_for_an_input_that_changed_after_planning(how, when, model, tmp_path, monkeypatch):
    """Change the input before or while it is read."""
    source, other = tmp_path / "in.jsonl", tmp_path / "other"
    source.write_text('{"text": "old"}\n')
    other.write_text('{"text": "new"}\n')
    harm = {
        "appended": lambda: source.write_text(source.read_text() + '{"text": "more"}\n'),
        "replaced": lambda: (os.utime(other, (1, 1)), other.replace(source)), "gone": source.unlink,
    }[how]  # fmt: skip
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


# ---- compression, addresses -------------------------------------------------------------------------


@pytest.mark.parametrize("ending", PACK)
def test_every_compression_of_json_lines_also_with_several_streams(ending, model, plain, tmp_path):
    lines = [json.dumps({"text": text, "n": i}).encode() + b"\n" for i, text in enumerate(TEXTS)]
    data = PACK[ending](b"".join(lines[:2])) + PACK[ending](b"".join(lines[2:]))
    (tmp_path / f"in.jsonl{ending}").write_bytes(data)
    found = embedded(tmp_path / f"in.jsonl{ending}", tmp_path / "out", model)
    assert found["n"].to_pylist() == list(range(5)) and found["embeddings"].to_pylist() == plain
    (tmp_path / "in").mkdir()
    (tmp_path / f"in/good.jsonl{ending}").write_bytes(data)
    (tmp_path / f"in/cut.jsonl{ending}").write_bytes(data[:-9])
    report = embed_parquet(faults.stage(model), tmp_path / "in", tmp_path / "cut", retries=0)
    (reason,) = report.failed.values()
    assert f"cut.jsonl{ending} cannot be read" in reason


@pytest.mark.parametrize("ending", PACK)
def test_an_empty_file_is_not_a_valid_compressed_file(ending, model, tmp_path):
    """Read empty files, as an interrupted upload leaves them."""
    (tmp_path / "in").mkdir()
    (tmp_path / f"in/cut.jsonl{ending}").touch()
    (tmp_path / "in/good.jsonl").write_text('{"text": "a"}')
    (tmp_path / "in/empty.jsonl").touch()
    report = embed_parquet(faults.stage(model), tmp_path / "in", tmp_path / "out")
    (reason,) = report.failed.values()
    assert f"cut.jsonl{ending} cannot be read" in reason


def test_a_file_without_any_valid_line_fails(model, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text("{bad\n[1]\n")
    (tmp_path / "in/good.jsonl").write_text('{"text": "a"}')
    for on_error in ("raise", "null"):
        stage = faults.stage(model, on_error=on_error)
        (reason,) = embed_parquet(stage, tmp_path / "in", tmp_path / on_error).failed.values()
        assert "a.jsonl: no line of it is a JSON object" in reason


@pytest.mark.parametrize("more", [500, 30_000])
def test_an_unexpected_value_after_the_sample_is_reported_with_its_row(more, model, tmp_path):
    for name, late in {"type": {"x": 1.5}, "key": {"y": 1}}.items():
        rows = [{"text": "a", "x": 1}] * 20 + [{"text": "a", **late}] + [{"text": "a", "x": 1}] * more
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        report = embed_parquet(
            faults.stage(model), tmp_path / f"{name}.jsonl", tmp_path / name, sample_bytes=100
        )
        assert "row 20: column" in next(iter(report.failed.values()))


def test_the_file_stays_open_when_its_parser_is_closed(tmp_path):
    """Read on after the parser is gone: the rest of the file may show that it is damaged."""
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "a"}\n' * 5000)
    with (tmp_path / "in.jsonl").open("rb") as handle:
        pieces = jsonlines.parse_lines(handle)
        next(pieces)
        del pieces
        assert handle.readline() == b'{"text": "a"}\n'


def test_a_damaged_archive_is_reported_rather_than_its_wrong_rows(model, tmp_path):
    lines = [b'{"text": "a"}\n'] * 5000 + [b'{"text": "a", "odd": 1}\n'] + [b'{"text": "a"}\n'] * 200_000
    data = bytearray(gzip.compress(b"".join(lines)))
    data[-6] ^= 1  # of the checksum
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl.gz").write_bytes(data)
    (tmp_path / "in/b.jsonl").write_text('{"text": "b"}\n')
    report = embed_parquet(faults.stage(model), tmp_path / "in", tmp_path / "out", sample_bytes=1000)
    (reason,) = report.failed.values()
    assert "a.jsonl.gz cannot be read" in reason and "CRC" in reason


def test_a_file_compressed_by_the_zstd_command(model, plain, tmp_path):
    tool = shutil.which("zstd")
    if tool is None:
        pytest.skip("the zstd command is not installed")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "in.jsonl").write_text(lines)
    subprocess.run([tool, "-q", "--rm", str(tmp_path / "in.jsonl")], check=True)
    assert embedded(tmp_path / "in.jsonl.zst", tmp_path / "out", model)["embeddings"].to_pylist() == plain


# ---- slabs ------------------------------------------------------------------------------------------


def slabs(path, *columns):
    (file,) = find_inputs([str(path)], Target(str(path.parent / "out")), {})[0]
    surveys = inspect_inputs([file], "text", None, {})
    carried = copied_columns(surveys, "text", columns or None)
    (unit,) = plan_units(surveys, 1 << 40)
    return list(readers.read_unit(unit, JobColumns("text", carried, not columns), {}))


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


def test_memory_is_bounded_if_json_is_nested(tmp_path):
    """Read 500 rows of 100 kB, which take ten times as much as Python objects."""
    row = {"nested": [{"k": i, "v": [i % 7, i % 5], "w": {"z": "ab"}} for i in range(2400)]}
    with (tmp_path / "in.jsonl").open("w") as out:
        out.writelines(json.dumps({"text": f"row {i}", **row}) + "\n" for i in range(500))
    rows, slab, grown = peak(tmp_path / "in.jsonl")
    assert rows == 500 and slab <= 80 and grown < 400, (slab, grown)
