"""Models compiled for a CPU: the states of the plain model, without compiling again, and the plain model if it fails."""

from __future__ import annotations

import shutil
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from nemo_embed_dask import runtimes
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes import compiled as compiling
from nemo_embed_dask.runtimes import packed_attention as attention
from nemo_embed_dask.runtimes.compiled import CompiledModel, compile_if_faster, is_faster
from nemo_embed_dask.runtimes.layouts import Layout, forward
from nemo_embed_dask.runtimes.torch import TorchRuntime

from ..helpers.slow import slow
from ..helpers.versions import needs

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to compile for a CPU")
# torch's compiler imports deprecated parts of torch.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),
    needs("torch", "2.13", "torch 2.6 cannot compile these models, so they run as they are, with a warning"),
]
CPU = torch.device("cpu")


def make_runtime(path):
    """Load a model as on a GPU: weights packed for oneDNN cannot be compiled."""
    return TorchRuntime(load_weights(read_card(path).weights_path, torch.float32, None), CPU, torch.float32)


def random_rows(lengths, seed=0):
    values = np.random.default_rng(seed).integers(5, 90, sum(lengths)).astype(np.int32)
    return Ragged.from_lengths(values, lengths)


def random_batches(count, longest):
    rng = np.random.default_rng(3)
    return [random_rows(rng.integers(2, longest, rng.integers(2, 30)).tolist(), i) for i in range(count)]


def pooled(states, ids):
    """Mean-pooled unit vectors."""
    rows = states.double().split(ids.lengths.tolist())
    return torch.nn.functional.normalize(torch.stack([row.mean(0) for row in rows]))


def run(model, runtime, ids):
    with torch.inference_mode():
        return forward(model, runtime._layout, ids, CPU)


def compile_model(runtime):
    with torch.inference_mode():
        return CompiledModel(runtime.model, runtime._layout, CPU, torch.float32)


def refuse(**_inputs):
    raise AssertionError("the plain model runs")


@needs_compiler
@pytest.mark.parametrize(
    "kind",
    ["bert", *slow("modernbert", "minilm", "mpnet", "qwen3", "roberta", "t5")],
)
def test_batches_of_any_size_have_the_same_vectors_and_are_compiled_once(kind, tiny, request, monkeypatch):
    runtime = make_runtime(request.getfixturevalue("minilm") if kind == "minilm" else tiny(kind))
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(compiling, "_SHORT", (16, 9, 13) * 20)  # on a CPU the real model takes seconds for more
    monkeypatch.setattr(compiling, "_LONG", (256, 140))
    compiled = compile_model(runtime)
    assert runtime._state.restore() is False
    batches = random_batches(5 if kind == "minilm" else 20, 60)
    expected = [runtime.states(ids)[0] for ids in batches]
    monkeypatch.setattr(compiled, "_model", refuse)
    for ids, wanted in zip(batches, expected, strict=True):
        states = run(compiled, runtime, ids)
        torch.testing.assert_close(pooled(states, ids), pooled(wanted, ids), atol=1e-5, rtol=0)
    assert counters["stats"]["unique_graphs"] == 1


@needs_compiler
def test_after_compiling(tiny, monkeypatch):
    """One model for several tests, because compiling takes some seconds."""
    runtime = make_runtime(tiny("bert"))
    compiled = compile_model(runtime)
    counters.clear()
    for lengths in ((1,), (1, 1), (5,)):
        ids = random_rows(lengths)
        torch.testing.assert_close(run(compiled, runtime, ids), runtime.states(ids)[0], atol=1e-4, rtol=1e-4)

    ids, threads = random_rows((9, 30, 2)), torch.get_num_threads()
    expected = runtime.states(ids)[0]
    torch.set_num_threads(threads + 1)
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "_model", refuse)
        torch.testing.assert_close(run(compiled, runtime, ids), expected, atol=1e-4, rtol=1e-4)
    torch.set_num_threads(threads)
    assert counters["stats"]["unique_graphs"] == 0

    with torch.inference_mode():
        assert compiled.model_for(ids) is compiled
        monkeypatch.setattr(compiled, "_compiled", lambda **inputs: runtime.model(**inputs)[0].flip(1))
        with pytest.warns(UserWarning, match=r"runs without torch.compile: it has other states for 30 tokens"):
            assert compiled.model_for(ids) is runtime.model


def failing(error, **_inputs):
    raise error


class Changing(torch.nn.Module):
    """A model that keeps a value from one batch to the next."""

    def __init__(self, model):
        super().__init__()
        self.inner, self.config, self.last = model, model.config, None

    def forward(self, input_ids, position_ids=None):
        states = self.inner(input_ids=input_ids, position_ids=position_ids)[0]
        self.last = states[:, -1]
        return states


@pytest.fixture
def bert(tiny):
    """A BERT whose warnings were not given yet."""
    runtime = make_runtime(tiny("bert"))
    compiling.warn_once.__globals__["_given"].clear()
    return runtime


@needs_compiler
def test_a_model_that_changes_itself_is_not_compiled(bert):
    changing = Changing(bert.model)
    with pytest.warns(UserWarning, match="Changing runs without torch.compile: ModelError: it changes itself"):
        assert compile_if_faster(changing, bert._layout, CPU, torch.float32) is changing
    assert changing.last is None


@pytest.mark.parametrize(
    ("folder", "compiler", "reason"),
    [("/dev/null/none", "g++", "Not a directory: '/dev/null/none'"), (None, "no-such-g++", "no-such-g[+][+]")],
)
def test_without_a_compiler_or_a_folder_to_write_to_the_plain_model_runs(
    folder, compiler, reason, bert, monkeypatch, tmp_path
):
    torch.compiler.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", folder or str(tmp_path))
    with (
        torch._inductor.config.patch({"cpp.cxx": (compiler,)}),
        pytest.warns(UserWarning, match=f"of 'bert' runs without torch.compile: .*{reason}"),
    ):
        bert.compile()
    ids = random_rows((9, 3, 12))
    with torch.inference_mode():
        assert torch.equal(bert.states(ids)[0], forward(bert.model, bert._layout, ids, CPU))


@needs_compiler
def test_a_runtime_with_a_compiled_model_runs_longer_rows_and_rows_that_run_alone(bert, tiny, monkeypatch):
    monkeypatch.setattr(compiling, "is_faster", lambda *_: True)
    bert.compile()
    assert isinstance(bert._model_for_batches, CompiledModel)
    plain = make_runtime(tiny("bert"))
    for lengths in ((9, 3), (50, 3, 17), (64, 2)):
        ids = random_rows(lengths)
        torch.testing.assert_close(bert.states(ids)[0], plain.states(ids)[0], atol=1e-4, rtol=1e-4)
    assert bert._lengths.proven == 64
    bert._run_alone(ids.take([1]))
    monkeypatch.setattr(bert._model_for_batches, "_model", refuse)
    torch.testing.assert_close(bert.states(ids)[0], plain.states(ids)[0], atol=1e-4, rtol=1e-4)


@needs_compiler
def test_after_an_error_of_compiled_code_a_batch_runs_in_the_plain_model(bert, monkeypatch):
    compiled, ids = compile_model(bert), random_rows((9, 3))
    monkeypatch.setattr(compiled, "_compiled", partial(failing, RuntimeError("illegal kernel")))
    with pytest.warns(UserWarning, match="runs without torch.compile: RuntimeError: illegal kernel"):
        assert torch.equal(run(compiled, bert, ids), bert.states(ids)[0])
    monkeypatch.setattr(compiled, "_compiled", partial(failing, torch.OutOfMemoryError("out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        run(compiled, bert, ids)


def test_the_model_that_takes_less_time_is_faster():
    def slow(input_ids, seconds=0.02):
        time.sleep(seconds)
        return input_ids[..., None].float()

    fast, batches = partial(slow, seconds=0.0), [random_rows((9, 3)), random_rows((20,))]
    assert is_faster(fast, slow, Layout(True, None), batches, CPU)
    assert not is_faster(slow, fast, Layout(True, None), batches, CPU)


def test_on_a_cpu_nothing_is_compiled(tiny):
    runtime = runtimes.load(read_card(tiny("bert")), autocast=False, compiled=True)
    assert runtime._model_for_batches is runtime.model


def test_the_operator_of_attention_has_the_shape_and_strides_that_torch_compile_is_told():
    q, k = torch.randn(4, 10, 8).transpose(0, 1), torch.randn(10, 2, 8)
    with attention.packed(attention.Packing(np.array([0, 4, 10]), CPU)), torch.inference_mode():
        torch.library.opcheck(attention._attend_as_operator, (q, k, k, None, True, 3))
        got = attention._attend_as_operator(q, k, k, 0.5, False, None)
        assert torch.equal(got, attention._attend(q, k, k, 0.5, False, None))
