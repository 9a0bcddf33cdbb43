"""The benchmark of the host's side: its stand-ins give the engine's own tokens, and it measures what it says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import bench_host, host
from benchmarks.host.helpers import Helpers
from nemo_embed_dask import engine

from ..helpers.tiny import TEXT


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """The stand-ins replace parts of the engine."""
    for name in ("load_model", "_slab_size"):
        monkeypatch.setattr(engine, name, getattr(engine, name))


@pytest.mark.slow
def test_a_measurement_end_to_end(data_dir, monkeypatch):
    monkeypatch.setenv("NEMO_EMBED_DATA", str(data_dir))
    for name in ("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "1")  # set by the command; restored after the test
    options = {"rows": 64, "sample": 24_000, "repeat": 1, "cores": 4, "workers": 2, "tokens": 50}
    arguments = [argument for name, value in options.items() for argument in (f"--{name}", str(value))]
    done = CliRunner().invoke(bench_host.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    runs = {run["what"]: run for run in map(json.loads, done.output.splitlines()) if "what" in run}
    costs = runs["costs"]
    assert costs["library_ns"] > max(0, costs["python_ns"])  # ticks of 10 ms: the smaller part may be negative
    assert runs["helpers"]["parent_ns"] > 0
    for name in ("simulated", "simulated with helpers", "measured on two cores"):
        assert runs[name]["tokens_per_s"] > 0
    assert runs["simulated"]["workers"] == 2


@pytest.mark.slow
def test_the_device_and_the_library_take_their_time():
    """With 1,000 times the time of a GPU, Python's part does not matter: the bound is what is measured."""
    simulation = bench_host.Simulation(50, 128, 2, cores=1, library_ns=0, device_ns=92_000)
    found = simulation.run()
    assert found["bound"] == pytest.approx(1e9 / 92_000)
    assert 0.6 < found["tokens_per_s"] / found["bound"] <= 1
    found = replace(simulation, device_ns=1, library_ns=92_000).run()
    assert 0.6 < found["tokens_per_s"] * 92_000 / 1e9 <= 1.05


@pytest.mark.slow
def test_workers_take_turns_on_the_device():
    one = bench_host.Simulation(50, 128, 2, cores=2, library_ns=0, device_ns=92_000)
    assert replace(one, workers=2).run()["tokens_per_s"] <= 1e9 / 92_000


def test_bounds_are_computed_from_costs():
    assert bench_host.computed(1500, 100, workers=2, cores=16, device_ns=50) == {
        "device": 20e6, "gils": 20e6, "cores": 10e6,
    }  # fmt: skip


def test_helpers_give_the_tokenizers_own_ids():
    expected = engine.load_model(host.SETTINGS).reader.tokenizer.encode(TEXT * 400, 20)
    helpers = Helpers(host.SETTINGS, 1)
    with helpers.pool:
        found = helpers.encode(TEXT * 400, 20)
    assert np.array_equal(found.ids.values, expected.ids.values)
    assert np.array_equal(found.ids.offsets, expected.ids.offsets)
    assert np.array_equal(found.truncated, expected.truncated)


def test_replayed_texts_have_their_tokens():
    copies = engine.load_model(host.SETTINGS).reader.tokenizer
    first, texts = copies._copies[0].copy(), [*TEXT, "one two"]
    expected = first.encode(texts, 20)
    first._backend = host.Replay(first._backend, 0.0, {})
    for _ in range(2):
        assert np.array_equal(first.encode(texts, 20).ids.values, expected.ids.values)
