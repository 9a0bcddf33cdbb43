"""Number types of a GPU, float16, bfloat16 and float32 in this order, tried on a CPU, which has all three."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from nemo_embed_dask import engine, runtimes
from nemo_embed_dask.engine import digests, embed_texts
from nemo_embed_dask.errors import ModelError, RowError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.stored_type import stored_type
from nemo_embed_dask.runtimes import torch as torch_runtime
from nemo_embed_dask.runtimes.float16 import overflow_probe, treats_float16
from nemo_embed_dask.settings import Settings

from ..helpers.slow import slow
from ..helpers.tiny import make_tiny

TEXTS = [
    "dogs and jugs",
    "the lazy fox jumps",
    "",
    "documents are vectors " * 9,
    "quick",
    "near ones mean alike",
]
# The row before which the text with the token that overflows is put.
ROW = 3


def gpu_types(device, *, autocast, stored):
    """What `device.number_types` returns for a GPU."""
    if not autocast:
        return (torch.float32,)
    return (*[torch.float16] * (stored() != torch.bfloat16), torch.bfloat16, torch.float32)


@pytest.fixture(autouse=True)
def _types_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch_runtime, "number_types", gpu_types)
    monkeypatch.setattr(digests, "number_types", gpu_types)
    engine.unload()  # models that were loaded in the types of a CPU
    yield
    engine.unload()


def changed(directory, target, change):
    """A copy of a model with other weights."""
    target.mkdir()
    for file in directory.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    weights = load_file(target / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors", {"format": "pt"})
    return target


def token_of(text, directory):
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    (token,) = tokenizer(text, add_special_tokens=False).input_ids
    return token


@pytest.fixture(params=["qwen3", "embeddinggemma"])
def loud(request, tiny, tmp_path, monkeypatch):
    """A decoder whose residual stream overflows float16 after the token "Z", as Gemma's do after others."""
    monkeypatch.setattr(torch_runtime, "treats_float16", lambda model: False)  # Gemma would not be tried
    directory = tiny(request.param)

    def scale(weights):
        name = next(name for name in weights if name.endswith("embed_tokens.weight"))
        row = weights[name][token_of("Z", directory)]
        row *= 3e5 / row.abs().max()

    return changed(directory, tmp_path / "loud", scale)


def settings_of(directory, **parameters):
    return Settings(ModelRef(str(directory)), **({"pooling": "mean_pooling"} | parameters))


def plain(directory, texts, pool=lambda states: states.mean(0)):
    """Vectors of transformers in float32, one text at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.inference_mode():
        rows = [tokenizer(text, truncation=True, max_length=256).input_ids for text in texts]
        ids = [torch.tensor([row]) for row in rows]
        return torch.stack([torch.nn.functional.normalize(pool(model(row)[0][0]), dim=0) for row in ids])


def distance(found, expected):
    return float((1 - torch.nn.functional.cosine_similarity(found, expected, dim=1)).max())


@pytest.mark.filterwarnings("ignore:embedding_pooling='last_token'")
@pytest.mark.parametrize("pooling", ["mean_pooling", *slow("last_token")])
def test_float16_is_within_the_tolerance_of_curator_s_tests(pooling, minilm, real_texts):
    """bfloat16 is not, in any row (mean pooling 2.7e-3); at that tolerance the test would fail."""
    texts = [text[:300] for text in real_texts[::20]]
    pool = {"mean_pooling": lambda states: states.mean(0), "last_token": lambda states: states[-1]}[pooling]
    out = embed_texts(texts, settings_of(minilm, pooling=pooling))
    assert out.stats.computed_in == {"float16": len(texts)}
    assert (out.matrix - plain(minilm, texts, pool)).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("bert", "float16"),
        ("qwen3", "float16"),
        ("t5", "bfloat16"),
        ("gemma3", "bfloat16"),
        *slow(("qwen3_5", "float16"), ("embeddinggemma2", "bfloat16"), ("longt5", "bfloat16")),
    ],
)
def test_models_with_code_for_float16_do_not_run_in_it(kind, expected, tiny):
    """T5 replaces infinite values in float16 by large ones; Gemma's authors advise against float16."""
    runtime = runtimes.load(read_card(tiny(kind)))
    assert runtime.number_type == expected
    assert digests.model_digests(settings_of(tiny(kind)))["computes_in"] == expected
    assert treats_float16(runtime.model) == (expected == "bfloat16")


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float32", "float16"), ("float16", "float16"), ("bfloat16", "bfloat16")]
)
def test_weights_in_bfloat16_are_computed_in_it(dtype, expected, tiny, tmp_path):
    def convert(weights):
        weights.update({name: value.to(getattr(torch, dtype)) for name, value in weights.items()})

    path = changed(tiny("bert"), tmp_path / dtype, convert)
    assert stored_type(path) == getattr(torch, dtype)
    assert runtimes.load(read_card(path)).number_type == expected


def test_only_the_rows_that_overflow_are_computed_again(loud):
    texts = [*TEXTS[:ROW], "Z", *TEXTS[ROW:]]
    out = embed_texts(texts, settings_of(loud))
    others = [row for row in range(len(texts)) if row != ROW and texts[row]]
    assert out.stats.computed_in == {"float16": len(texts) - 1, "bfloat16": 1}
    assert out.valid.all()
    assert out.failures == {}
    expected = plain(loud, texts)
    assert distance(out.matrix, expected) < 2e-2
    assert distance(out.matrix[others], expected[others]) < 3e-3
    alone = embed_texts([text for row, text in enumerate(texts) if row != ROW], settings_of(loud))
    assert torch.equal(
        torch.cat([alone.matrix[:ROW], out.matrix[ROW : ROW + 1], alone.matrix[ROW:]]), out.matrix
    )


@pytest.mark.parametrize("mode", ["mean", "explode"])
def test_windows_that_overflow_are_computed_again(mode, loud):
    texts = ["documents are vectors " * 9, f"{'near ones ' * 20}Z{' mean alike' * 20}", "quick"]
    parameters = {"long_documents": mode, "max_seq_length": 16}
    out = embed_texts(texts, settings_of(loud, **parameters))
    expected = embed_texts(texts, settings_of(loud, autocast=False, **parameters))
    assert 0 < out.stats.computed_in["bfloat16"] < len(out.matrix)
    assert sum(out.stats.computed_in.values()) == len(out.matrix)
    assert out.failures == {}
    assert distance(out.matrix, expected.matrix) < 2e-2


def test_lists_that_overflow_are_computed_again(loud):
    texts = [*TEXTS[:2], "Z", *TEXTS[3:]]
    out = embed_texts(texts, settings_of(loud, pooling="none"))
    expected = embed_texts(texts, settings_of(loud, pooling="none", autocast=False))
    assert out.stats.computed_in == {"float16": len(texts) - 1, "bfloat16": 1}
    assert (out.lists.offsets == expected.lists.offsets).all()
    assert distance(out.lists.columns[""], expected.lists.columns[""]) < 2e-2


def test_a_row_that_is_not_finite_in_any_type_fails(tiny, tmp_path):
    def damage(weights):
        weights["embed_tokens.weight"][token_of("Z", tiny("qwen3"))] = np.nan

    path = changed(tiny("qwen3"), tmp_path / "damaged", damage)
    out = embed_texts(["quick", "Z"], settings_of(path, on_error="null"))
    assert out.failures == {1: "the model gave NaN or infinite values"}
    assert out.stats.computed_in == {"float16": 1}
    with pytest.raises(RowError, match="row 1: the model gave NaN or infinite values"):
        embed_texts(["quick", "Z"], settings_of(path))


def test_a_failed_row_of_an_early_slab_is_found_while_a_later_one_runs(loud, monkeypatch):
    monkeypatch.setitem(engine.SLAB_ROWS, "cpu", 2)
    texts = [*TEXTS, "Z", *TEXTS]
    out = embed_texts(texts, settings_of(loud, share_equal_texts=False))
    assert out.stats.computed_in == {"float16": 12, "bfloat16": 1}
    assert distance(out.matrix, plain(loud, texts)) < 2e-2


def test_a_model_that_always_overflows_is_loaded_in_a_greater_range(tiny, tmp_path):
    path = changed(tiny("bert"), tmp_path / "big", lambda w: w["encoder.layer.0.output.dense.weight"].mul_(1e6))
    assert not torch.isfinite(
        load_file(path / "model.safetensors")["encoder.layer.0.output.dense.weight"].half()
    ).all()
    runtime = runtimes.load(read_card(path))
    assert runtime.number_type == "bfloat16"
    out = embed_texts(TEXTS, settings_of(path))
    assert out.stats.computed_in == {"bfloat16": len(TEXTS)}
    assert distance(out.matrix, plain(path, TEXTS)) < 2e-2


def test_overflow_at_a_special_token_is_found_at_load(tmp_path):
    """The rows of the first probe have random tokens, but every text has this one."""
    path = make_tiny("llama", tmp_path / "first")

    def scale(weights):
        eos = transformers.AutoConfig.from_pretrained(path).eos_token_id
        weights["embed_tokens.weight"][eos] *= 1e6

    loud = changed(path, tmp_path / "loud", scale)
    runtime = runtimes.load(read_card(loud))
    assert runtime.number_type == "bfloat16"
    assert transformers.AutoConfig.from_pretrained(loud).eos_token_id in overflow_probe(runtime.model).values


def test_damaged_weights_are_reported_for_the_last_type(tiny, tmp_path):
    path = changed(tiny("bert"), tmp_path / "nan", lambda w: w["embeddings.LayerNorm.weight"].fill_(np.nan))
    with pytest.raises(ModelError, match=r"NaN or infinite states.*overflow torch.float32"):
        runtimes.load(read_card(path))


def test_a_second_model_that_does_not_fit_in_memory_fails_only_the_rows_that_need_it(loud, monkeypatch):
    settings = settings_of(loud, on_error="null")
    runtime = engine.load_runtime(settings)

    def load_wider():
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(runtime, "load_wider", load_wider)
    out = embed_texts([*TEXTS, "Z"], settings)
    ((row, reason),) = out.failures.items()
    assert row == len(TEXTS)
    assert reason == (
        "the model gave NaN or infinite values in float16, and cannot run in another type: "
        "no second model fits in memory"
    )


def test_the_second_model_is_loaded_once(loud, monkeypatch):
    settings = settings_of(loud)
    wider = engine.load_runtime(settings).load_wider()
    embed_texts(["Z"], settings)
    assert engine.load_runtime(settings).load_wider() is wider
    assert (wider.number_type, wider.load_wider().number_type) == ("bfloat16", "float32")
    assert wider.load_wider().load_wider() is None


def test_a_second_model_that_cannot_be_loaded_fails_only_the_rows_that_need_it(loud):
    settings = settings_of(loud, on_error="null")
    runtime = engine.load_runtime(settings)
    runtime._load_next = partial(torch_runtime.load, read_card(loud / "nowhere"))
    out = embed_texts([*TEXTS, "Z"], settings)
    assert list(out.failures) == [len(TEXTS)]
    assert "in float16, and cannot run in another type: ModelError" in out.failures[len(TEXTS)]
    assert out.stats.computed_in == {"float16": len(TEXTS)}


def test_no_batch_runs_while_a_second_model_is_loaded(loud):
    """transformers sets torch's default type while it loads; DeBERTa's vectors differed by up to 4.7e-2."""
    settings = settings_of(loud, share_equal_texts=False, model_inference_batch_size=2)
    runtime = engine.load_runtime(settings)
    loading, seen, load_next, states = threading.Event(), [], runtime._load_next, runtime.states

    def slow_load():
        loading.set()
        time.sleep(0.3)
        loaded = load_next()
        loading.clear()
        return loaded

    def watched(ids):
        seen.append(loading.is_set())
        return states(ids)

    runtime._load_next, runtime.states = slow_load, watched
    with ThreadPoolExecutor(2) as pool:
        many = pool.submit(embed_texts, TEXTS * 100, settings)
        runtime.load_wider()
        many.result()
    assert len(seen) > 100
    assert not any(seen)


def test_no_batch_runs_while_another_model_is_loaded(loud, tiny, monkeypatch):
    settings = settings_of(loud, share_equal_texts=False, model_inference_batch_size=2)
    runtime = engine.load_runtime(settings)
    loading, seen, load, states = threading.Event(), [], torch_runtime.load, runtime.states

    def slow_load(card, **options):
        loading.set()
        time.sleep(0.3)
        loaded = load(card, **options)
        loading.clear()
        return loaded

    def watched(ids):
        seen.append(loading.is_set())
        return states(ids)

    monkeypatch.setattr(torch_runtime, "load", slow_load)
    runtime.states = watched
    with ThreadPoolExecutor(2) as pool:
        many = pool.submit(embed_texts, TEXTS * 100, settings)
        runtimes.load(read_card(tiny("bert")))
        many.result()
    assert len(seen) > 100
    assert not any(seen)


def test_what_is_computed_again_is_no_padding(loud):
    out = embed_texts([*TEXTS, "Z"], settings_of(loud))
    assert out.stats.padded == out.stats.tokens
    assert out.stats.padding_waste == 0
