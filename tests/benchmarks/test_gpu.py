"""The code of the GPU benchmark, on a CPU: vectors of peers, order of rows, and goals."""

from __future__ import annotations

import importlib.util
import inspect

import numpy as np
import pytest

from benchmarks import bench_gpu, gpu
from benchmarks.gpu import clusters, models, peers
from nemo_embed_dask import crossfit as ours

from ..helpers.tiny import TEXT

SOME = [f"{i} {text}" for i, text in enumerate(TEXT * 8)]


@pytest.fixture(scope="module")
def expected():
    return peers.PEERS[peers.REFERENCE]()(SOME).vectors


@pytest.mark.parametrize(
    "name",
    ["ours, model alone", "ours, engine", "curator's algorithm", "sentence-transformers, bf16, 1024"],
)
def test_peers_give_the_reference_vectors(name, expected):
    run = gpu.measured({"tokens": 1, "rows": 1}, peers.PEERS[name], SOME, expected=expected)
    assert "error" not in run
    assert run["cosine_min"] > 0.995
    assert run["seconds"] > 0


def test_files_come_back_in_order(expected):
    """With 16 files, order by name and order by number differ."""
    found = clusters.files_to_files(2, "huggingface")(SOME)
    assert gpu.cosines(found.vectors, expected)["cosine_min"] > 0.995


def test_an_error_of_a_peer_is_reported_in_its_run():
    run = gpu.measured({"peer": "x"}, lambda: 1 / 0, SOME)
    assert run == {"peer": "x", "error": "ZeroDivisionError: division by zero"}


def test_random_rows_have_about_the_requested_number_of_tokens():
    ids = models.random_rows(np.random.default_rng(0), 10_000, 64, 30_000)
    assert abs(len(ids.values) - 10_000) < 1000
    assert (np.diff(ids.lengths) <= 0).all()
    assert 32 <= ids.lengths.min() <= ids.lengths.max() <= 64


def test_goals_are_computed_from_runs():
    runs = [
        {
            "peer": "ours, parquet to parquet, cudf",
            "corpus": "stories",
            "documents_per_s": 40_800.0,
            "seconds": 1,
            "device_idle": 0.1,
            "cosine_min": 0.9999,
        },
        {
            "peer": "sentence-transformers, bf16, 256",
            "corpus": "stories",
            "documents_per_s": 8160.0,
            "seconds": 1,
        },
        {"peer": "ours, model alone", "corpus": "long", "matmul_share": 0.4, "seconds": 1},
        {"peer": "broken", "corpus": "medium", "error": "x"},
        {"peer": "wrong", "corpus": "short", "seconds": 1, "cosine_min": 0.5},
    ]
    text = "\n".join(bench_gpu.goals(runs))
    for part in ("20.0 x Curator", "5.0 x sentence", "idle 10%", "40% of the matmul", "{'wrong': 0.5}"):
        assert part in text
    assert len(bench_gpu.goals([])) == 1


@pytest.mark.rapids
@pytest.mark.filterwarnings("default")
def test_patched_crossfit_has_the_parameters_of_our_adapter():
    if importlib.util.find_spec("crossfit") is None:  # an import would run it before it is patched
        pytest.skip("needs crossfit 0.0.9: pip install --no-deps crossfit==0.0.9 astunparse typing_utils")
    from benchmarks.gpu import crossfit as peer

    cf = peer.install()
    pairs = [
        (cf.op.Tokenizer, ours.Tokenizer),
        (cf.op.Embedder, ours.Embedder),
        (cf.op.Sequential, ours.Sequential),
        (cf.HFModel, ours.HFModel),
    ]
    for theirs, mine in pairs:
        assert list(inspect.signature(theirs).parameters) == list(inspect.signature(mine).parameters)
    from crossfit.op import tokenize

    assert tokenize.create_list_series_from_1d_or_2d_ar is peer._list_series
