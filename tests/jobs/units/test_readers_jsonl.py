"""Reading units of JSON lines: compression, damage, bad lines, values that the sample does not have."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import subprocess

import pyarrow.parquet as pq
import pytest

from nemo_embed_dask import embed_parquet
from nemo_embed_dask.jobs.formats import jsonlines

from ...helpers import faults
from ...helpers.jobs import TEXTS, rows_of_job
from ..files.test_decompression import PACK


def test_json_lines_with_a_byte_order_mark_crlf_and_blank_lines(model, text_vectors, tmp_path):
    lines = [json.dumps({"text": text, "n": i}).encode() for i, text in enumerate(TEXTS)]
    variants = {
        "bom": b"\xef\xbb\xbf" + b"\n".join(lines),
        "crlf": b"\r\n".join(lines) + b"\r\n",
        "blank": b"\n\n" + b"\n \n\t\n".join(lines) + b"\n\n",
    }
    for name, data in variants.items():
        (tmp_path / f"{name}.jsonl").write_bytes(data)
        found = rows_of_job(tmp_path / f"{name}.jsonl", tmp_path / name, model)
        assert found["n"].to_pylist() == list(range(5)) and found["embeddings"].to_pylist() == text_vectors, (
            name
        )


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


@pytest.mark.parametrize("ending", PACK)
def test_every_compression_of_json_lines_also_with_several_streams(ending, model, text_vectors, tmp_path):
    lines = [json.dumps({"text": text, "n": i}).encode() + b"\n" for i, text in enumerate(TEXTS)]
    data = PACK[ending](b"".join(lines[:2])) + PACK[ending](b"".join(lines[2:]))
    (tmp_path / f"in.jsonl{ending}").write_bytes(data)
    found = rows_of_job(tmp_path / f"in.jsonl{ending}", tmp_path / "out", model)
    assert found["n"].to_pylist() == list(range(5)) and found["embeddings"].to_pylist() == text_vectors
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


def test_a_file_compressed_by_the_zstd_command(model, text_vectors, tmp_path):
    tool = shutil.which("zstd")
    if tool is None:
        pytest.skip("the zstd command is not installed")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "in.jsonl").write_text(lines)
    subprocess.run([tool, "-q", "--rm", str(tmp_path / "in.jsonl")], check=True)
    assert (
        rows_of_job(tmp_path / "in.jsonl.zst", tmp_path / "out", model)["embeddings"].to_pylist()
        == text_vectors
    )
