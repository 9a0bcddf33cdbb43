from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.util.quantization import quantize_embeddings

from nemo_embed_dask.errors import ConfigError
from nemo_embed_dask.number_types import Calibration, Output
from nemo_embed_dask.vectors.quantization import (
    BITS,
    DTYPES,
    find_ranges,
    load_calibration,
    lost_vectors,
    parse_output,
    quantize,
    save_calibration,
)


def vectors(rows, width, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "binary", "ubinary", "float32"])
@given(rows=st.integers(1, 20), width=st.integers(1, 35), seed=st.integers(0, 99))
def test_types_are_those_of_sentence_transformers(dtype, rows, width, seed):
    matrix, sample = vectors(rows, width, seed), vectors(50, width, seed + 1)
    ranges = find_ranges(torch.from_numpy(sample))
    got = quantize(
        torch.from_numpy(matrix), Output("e", None, dtype), normalize=False, ranges=(ranges,)
    ).numpy()
    expected = quantize_embeddings(matrix, dtype, calibration_embeddings=sample)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert got.shape[1] == -(-width * BITS[dtype] // (8 * got.dtype.itemsize))
    np.testing.assert_array_equal(got, expected)


def test_float16_and_a_constant_dimension():
    matrix = torch.from_numpy(vectors(3, 4))
    assert torch.equal(quantize(matrix, Output("e", None, "float16"), normalize=True), matrix.half())
    matrix[:, 1] = 0.5
    out = quantize(matrix, Output("e", None, "uint8"), normalize=False, ranges=(find_ranges(matrix),))
    assert out[:, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("unit", [True, False])
def test_truncated_vectors_are_normalized_again(unit):
    matrix = torch.nn.functional.normalize(torch.from_numpy(vectors(5, 8)), dim=1)
    out = quantize(matrix, Output("e", 3), normalize=unit)
    expected = matrix[:, :3] / matrix[:, :3].norm(dim=1, keepdim=True) if unit else matrix[:, :3]
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous()


def test_errors_of_quantization():
    matrix = torch.zeros(2, 8)
    with pytest.raises(ConfigError, match="truncate_dim=9 exceeds the model's 8"):
        quantize(matrix, Output("e", 9), normalize=True)
    with pytest.raises(ConfigError, match="'e' as int8 needs the ranges of its 4 dimensions"):
        quantize(matrix, Output("e", 4, "int8"), normalize=True)
    with pytest.raises(ConfigError, match="of its 4 dimensions, and the calibration has those of 8; make them"):
        quantize(matrix, Output("e", 4, "int8"), normalize=True, ranges=(find_ranges(matrix),))
    with pytest.raises(ConfigError, match="calibration needs at least 2 vectors and the sample has 1"):
        find_ranges(matrix[:1])


def test_parsing_of_extra_outputs():
    assert parse_output("a:int8") == Output("a", None, "int8")
    assert parse_output("a:256:binary") == Output("a", 256, "binary")
    for wrong in ("a", "a:int4", ":int8", "a:x:int8", "a:1:2:int8"):
        with pytest.raises(ConfigError, match="extra_embeddings"):
            parse_output(wrong)
    assert set(DTYPES) == set(BITS)


def test_calibrations_are_written_and_read(tmp_path):
    ranges = (find_ranges(torch.from_numpy(vectors(9, 4))), find_ranges(torch.from_numpy(vectors(9, 2))))
    calibration = Calibration(ranges, (("weights", "w"), ("prompt", "")))
    save_calibration(tmp_path / "r.json", calibration, rows=9, model="m")
    assert load_calibration(tmp_path / "r.json") == load_calibration(calibration) == calibration
    for content in ("{", "{}", '{"ranges": [1]}', "[]", "7"):
        (tmp_path / "r.json").write_text(content)
        with pytest.raises(ConfigError, match="cannot be read"):
            load_calibration(tmp_path / "r.json")
    with pytest.raises(ConfigError, match=r"calibrate\(stage, texts, path\)"):
        load_calibration(tmp_path / "none.json")


def test_a_file_that_does_not_say_what_it_is_for_is_refused(tmp_path):
    (tmp_path / "r.json").write_text('{"model": "m", "rows": 2, "ranges": [[[0.0], [1.0]]]}')
    with pytest.raises(ConfigError, match=r"r.json' does not say which model .* write it again with calibrate"):
        load_calibration(tmp_path / "r.json")


def test_vectors_that_float16_cannot_hold():
    largest = [65504.0, 65519.0, 65520.0, 1e30, 0.0, 1e-3, 2e-5, 1e-6, 1e-9]
    matrix = torch.tensor(largest)[:, None] * torch.tensor([[0.25, -1.0, 0.5]])
    with np.errstate(over="ignore"):
        errors = abs(matrix.numpy().astype(np.float16).astype(np.float64) - matrix.numpy()).max(1)
    expected = np.flatnonzero(~(errors <= 0.005 * matrix.abs().amax(1).numpy()))
    stored = quantize(matrix, Output("e", None, "float16"), normalize=False)
    found = lost_vectors(matrix, stored)
    assert [*found] == expected.tolist() == [2, 3, 7, 8]
    assert "float16 cannot hold a vector whose largest value is 6.55e+04; store float32" in found[2]
    assert lost_vectors(matrix, quantize(matrix, Output("e", 1, "float16"), normalize=True)) == {}
    for dtype in ("float32", "binary", "ubinary"):
        assert lost_vectors(matrix, quantize(matrix, Output("e", None, dtype), normalize=False)) == {}
