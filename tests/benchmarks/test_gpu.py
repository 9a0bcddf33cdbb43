"""The code of the GPU benchmark, on a CPU: vectors of peers, order of rows, idle time, and choice of rows."""

from __future__ import annotations

import importlib.util
import inspect
import time

import pytest

from benchmarks import bench_gpu
from benchmarks.gpu import Options, clock, clusters, crossfit, measure, peers, texts
from nemo_embed_dask import crossfit as ours
from nemo_embed_dask import engine

from ..helpers.slow import slow

SCALE = 0.0002  # 32 texts of "stories"


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Options with the vectors of the reference in their folder."""
    found = Options(SCALE, 0.0, tmp_path_factory.mktemp("gpu"))
    run = peers.load(measure.REFERENCE, found)("stories")
    assert run["cosine_min"] == 1
    return found


@pytest.fixture
def recorder(monkeypatch):
    """A recorder of this test's own; the engine is not recorded afterwards."""
    monkeypatch.setattr(clock, "RECORDER", clock.Recorder())
    monkeypatch.setattr(engine.Model, "vectors", inspect.unwrap(engine.Model.vectors))
    return clock.RECORDER


@pytest.mark.parametrize(
    "name",
    [
        "ours, engine",
        *slow(
            "ours, engine, under the profiler",
            "ours, model alone",
            "curator's algorithm",
            "sentence-transformers, fp16, 256",
        ),
    ],
)
def test_peers_give_the_reference_vectors(name, options):
    run = peers.load(name, options)("stories")
    assert run["cosine_min"] > 0.995
    assert run["rows"] == 32
    assert sum(filter(None, run["computed_in"].values())) in {0, 32}
    assert len(run["computed_in"]) == 1
    assert run["documents_per_s"] == pytest.approx(32 / run["seconds"])
    assert run["matmul_share"] > 0


def test_wrong_vectors_are_seen(options, monkeypatch):
    def prepare(data):
        return lambda: measure.Result(peers.whole_engine()(data)().vectors.flip(0))

    monkeypatch.setitem(peers.PEERS, "reversed", lambda: prepare)
    assert peers.load("reversed", options)("stories")["cosine_min"] < 0.9


@pytest.mark.slow
def test_the_tokenizer_alone_is_faster_than_the_engine(options):
    alone, engine_run = (
        peers.load(f"ours, {name}", options)("stories") for name in ("tokenizer alone", "engine")
    )
    assert alone["tokens"] == engine_run["tokens"]
    assert alone["tokens_per_s"] > engine_run["tokens_per_s"]
    assert "matmul_share" not in alone


@pytest.mark.slow
def test_files_come_back_in_order(options):
    """With 16 files, order by name and order by number differ."""
    run = clusters.load("ours, parquet to parquet, huggingface, 2 workers", options)("stories")
    assert run["cosine_min"] > 0.995
    assert run["workers"] == 2
    assert 0 <= run["device_idle"] < 1


def test_workers_have_no_memory_limit(options, monkeypatch):
    found = {}

    def keep(_peer, _prepare, _corpus, _options, recorders, **_):
        workers = recorders._client.scheduler_info(n_workers=-1)["workers"].values()
        found["limits"] = [worker["memory_limit"] for worker in workers]
        return {}

    monkeypatch.setattr(clusters, "measure_texts", keep)
    clusters.load("ours, parquet to parquet, huggingface, 1 workers", options)("stories")
    assert found["limits"] == [0] or found["limits"] == [None]


def test_idle_time_is_what_no_interval_covers():
    overlapping = [(2.0, 4.0), (1.0, 3.0), (6.0, 7.0), (6.2, 6.4), (9.5, 12.0), (-1.0, 0.5)]
    assert clock.idle_fraction(overlapping, 0, 10) == pytest.approx(1 - (0.5 + 3 + 1 + 0.5) / 10)
    assert clock.idle_fraction([], 3, 4) == 1


def test_the_recorder_measures_idle_time(recorder):
    busy = recorder.timed(lambda: time.sleep(0.1))

    def work():
        busy()
        time.sleep(0.1)
        return measure.Result()

    run, _ = measure.repeat(work, 0.5, recorder)
    assert run["passes"] == 3
    assert run["device_idle"] == pytest.approx(0.5, abs=0.1)
    assert len(recorder.intervals()) == 3  # not that of the warm-up


def test_each_forward_pass_of_the_engine_is_recorded_once(recorder, minilm):
    clock.watch_engine()
    clock.watch_engine()
    recorder.start()
    start = time.perf_counter()
    out = engine.embed_texts([f"text {i}" for i in range(2000)], peers.SETTINGS)
    intervals = recorder.intervals()
    assert len(intervals) == out.stats.batches > 1
    assert sum(last - first for first, last in intervals) == pytest.approx(out.stats.model_s, rel=0.05)
    assert start < intervals[0][0] < intervals[-1][1] < time.perf_counter()


def test_a_run_repeats_its_input_after_a_warm_up():
    calls = []

    def work():
        calls.append(time.sleep(0.05))
        return measure.Result(None, {"kept": len(calls)})

    run, _ = measure.repeat(work, 0.12)
    assert run["passes"] == 3
    assert run["kept"] == len(calls) == 4
    assert run["seconds"] == pytest.approx(0.05, rel=0.5)
    assert "device_idle" not in run


def test_slow_peers_get_fewer_rows():
    def peer(seconds_per_row):
        return lambda data: lambda: time.sleep(seconds_per_row * len(data))

    data = ["text"] * 40_000
    assert measure.choose_rows(peer(1e-3), data, 0.1) == measure.HEAD
    assert measure.choose_rows(peer(2e-5), data, 0.1) == pytest.approx(5000, rel=0.3)
    assert measure.choose_rows(peer(0), data, 0.1) == len(data)
    assert measure.choose_rows(peer(0), data[:9], 0.1) == 9


def test_a_fixed_cost_is_not_taken_for_one_of_rows():
    def prepare(data):
        return lambda: time.sleep(0.35 + 2e-5 * len(data))

    assert measure.choose_rows(prepare, ["text"] * 160_000, 1.25) == pytest.approx(45_000, rel=0.2)
    assert measure.choose_rows(prepare, ["text"] * 160_000, 0.1) == measure.HEAD


@pytest.mark.parametrize("name", texts.CORPORA)
def test_texts_are_distinct_and_the_same_in_each_process(name):
    found = texts.texts(name, 0.001)
    assert len(set(found)) == len(found) == int(texts.CORPORA[name][2] * 0.001)
    assert found == texts.texts(name, 0.001)
    assert max(map(len, found)) < 41_000


def test_the_default_plan_of_each_phase_fits_its_minutes():
    """The minutes are those of benchmarks/gpu_check.sh; peers that do not fit are not started."""
    options = Options(1, 5, None)
    first = {"peers": 9, "ways": 2}
    for phase, minutes in {"peers": 4, "ways": 2.5}.items():
        module = importlib.import_module(bench_gpu.PHASES[phase])
        jobs = dict(list(module.jobs().items())[: first[phase]])
        assert bench_gpu.estimate(module, jobs, options) <= minutes * 60


def test_each_tokenizer_is_measured_with_one_and_four_workers_first():
    names = [
        f"ours, parquet to parquet, {name}, {n} workers" for name in ("huggingface", "cudf") for n in (1, 4)
    ]
    first = dict(list(clusters.jobs("cuda").items())[:5])
    assert list(first) == [measure.REFERENCE, *names]
    assert bench_gpu.estimate(clusters, first, Options(1, 5, None)) <= 3.4 * 60
    assert set(clusters.jobs("cuda")) - set(first) == {name.replace("4", "2") for name in names if "4" in name}
    assert [name for name in clusters.jobs("cpu") if "cudf" in name] == []


@pytest.mark.rapids
@pytest.mark.filterwarnings("default")
def test_patched_crossfit_has_the_parameters_of_our_adapter():
    if importlib.util.find_spec("crossfit") is None:  # an import would run it before it is patched
        pytest.skip("needs crossfit 0.0.9: pip install --no-deps crossfit==0.0.9 astunparse typing_utils")
    cf = crossfit.install()
    pairs = [
        (cf.op.Tokenizer, ours.Tokenizer),
        (cf.op.Embedder, ours.Embedder),
        (cf.op.Sequential, ours.Sequential),
        (cf.HFModel, ours.HFModel),
    ]
    for theirs, mine in pairs:
        assert list(inspect.signature(theirs).parameters) == list(inspect.signature(mine).parameters)
    from crossfit.op import tokenize

    assert tokenize.create_list_series_from_1d_or_2d_ar is crossfit._list_series
