"""The page headers match the pages that pyarrow wrote; damaged bytes raise an error."""

from __future__ import annotations

import io
import random
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_embed_dask.jobs.formats.page_headers import read_pages

VALUES = ["long" * 50, *(f"short {i}" for i in range(4999))]


def chunk(**how):
    """Return the bytes of a column chunk, and its codec."""
    out = io.BytesIO()
    pq.write_table(pa.table({"text": VALUES}), out, data_page_size=4000, write_batch_size=100, **how)
    column = pq.ParquetFile(out).metadata.row_group(0).column(0)
    start = min(column.data_page_offset, column.dictionary_page_offset or 1 << 62)
    return out.getvalue()[start : start + column.total_compressed_size], column.compression


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_a_dictionary_tells_its_largest_value(codec, version):
    found = list(read_pages(*chunk(compression=codec, data_page_version=version)))
    assert sum(page.values for page in found) == len(VALUES)
    assert {page.largest for page in found} == {200} and all(page.nbytes == 200 * page.values for page in found)


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_bounds_are_of_the_bytes_when_decoded(encoding):
    found = list(read_pages(*chunk(use_dictionary=False, column_encoding=encoding)))
    assert sum(page.values for page in found) == len(VALUES) and len(found) > 2
    decoded = sum(map(len, VALUES))
    assert sum(page.nbytes for page in found) >= decoded
    if encoding != "DELTA_BYTE_ARRAY":
        assert sum(page.nbytes for page in found) < 2 * decoded


def test_damaged_bytes_are_an_error_or_other_pages():
    good, codec = chunk(compression="zstd")
    for seed in range(2000):
        data, chance = bytearray(good), random.Random(seed)
        for _ in range(3):
            data[chance.randrange(min(len(data), 200))] = chance.randrange(256)
        with suppress(ValueError):
            list(read_pages(bytes(data), codec))


@pytest.mark.parametrize("data", [b"\xff" * 100_000, b"\x1c" * 100_000, b"\x15" * 9, b"\x00", b"\x15\x00\x15"])
def test_what_is_no_page_is_an_error(data):
    with pytest.raises(ValueError, match="page|number"):
        list(read_pages(data, "ZSTD"))
