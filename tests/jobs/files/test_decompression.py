"""Compressed files are read completely or raise, also with several, padded or damaged streams."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nemo_embed_dask import embed_parquet
from nemo_embed_dask.jobs.files.decompression import COMPRESSION_ENDINGS, open_decompressed

from ...helpers import faults

PACK = {
    ".gz": gzip.compress,
    ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
# Formats whose streams have checksums of all their bytes.
CHECKED = st.sampled_from([".bz2", ".xz"])
LINES = b"".join(b'{"text": "row %d"}\n' % i for i in range(1000))


def read(data: bytes, ending: str, size: int = -1) -> bytes:
    with io.BufferedReader(open_decompressed(io.BytesIO(data), ending)) as source:
        return b"".join(iter(lambda: source.read(size), b""))


def test_every_compression_has_a_case():
    assert set(PACK) == set(COMPRESSION_ENDINGS)


@given(
    st.sampled_from(COMPRESSION_ENDINGS),
    st.lists(st.binary(max_size=300), min_size=1, max_size=5),
    st.integers(1, 400),
)
def test_consecutive_streams_are_read_as_one_file(ending, pieces, size):
    assert read(b"".join(map(PACK[ending], pieces)), ending, size) == b"".join(pieces)


@pytest.mark.parametrize("ending", COMPRESSION_ENDINGS)
def test_a_stream_larger_than_any_buffer(ending):
    data = bytes(range(256)) * 40_000 + bytes(5_000_000)
    assert read(PACK[ending](data) + PACK[ending](b"end"), ending) == data + b"end"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_padding_of_the_xz_format_does_not_end_the_file(paddings):
    packed = b"".join(lzma.compress(b"%d," % i) + bytes(4 * count) for i, count in enumerate(paddings))
    assert read(packed, ".xz") == b"".join(b"%d," % i for i in range(len(paddings)))


@given(CHECKED, st.integers(0, 10_000), st.integers(1, 255))
@example(".bz2", 0, 1)
@example(".xz", 0, 1)
def test_a_damaged_byte_of_a_later_stream_is_an_error(ending, place, change):
    first, second = (bytearray(PACK[ending](LINES)) for _ in range(2))
    second[place % len(second)] ^= change
    with pytest.raises((OSError, ValueError, EOFError, lzma.LZMAError)):
        read(bytes(first + second), ending)


@given(CHECKED, st.integers(1, 10_000))
def test_a_truncated_later_stream_is_an_error(ending, place):
    first, second = PACK[ending](LINES), PACK[ending](LINES)
    with pytest.raises((OSError, EOFError, lzma.LZMAError)):
        read(first + second[: place % (len(second) - 1) + 1], ending)


@pytest.mark.parametrize("ending", COMPRESSION_ENDINGS)
def test_garbage_after_the_last_stream_is_an_error(ending):
    with pytest.raises((OSError, ValueError, EOFError, lzma.LZMAError)):
        read(PACK[ending](LINES) + b"garbage", ending)


@pytest.mark.parametrize("ending", COMPRESSION_ENDINGS)
def test_no_row_is_lost_without_an_error(ending, tiny, tmp_path):
    (tmp_path / "in").mkdir()
    whole = PACK[ending](LINES)
    (tmp_path / f"in/damaged.jsonl{ending}").write_bytes(whole + b"XXXX" + whole[4:])
    (tmp_path / f"in/good.jsonl{ending}").write_bytes(whole + whole)
    report = embed_parquet(faults.stage(tiny("bert")), tmp_path / "in", tmp_path / "out")
    (reason,) = report.failed.values()
    assert f"damaged.jsonl{ending} cannot be read" in reason
    assert report.rows == 2000
