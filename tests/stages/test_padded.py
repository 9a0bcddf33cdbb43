"""Stages with hooks of their own, as users of Curator write them: tests of `nemo_embed_dask.stages.padded`."""

from __future__ import annotations

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cloudpickle
import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModel

from nemo_embed_dask import (
    EmbeddingCreatorStage,
    EmbeddingModelStage,
    ModelStage,
    SentenceTransformerEmbeddingModelStage,
    TokenizerStage,
    to_matrix,
)
from nemo_embed_dask.errors import ColumnError, ConfigError, ModelError, RowError
from nemo_embed_dask.stages import ATTENTION_MASK_FIELD, INPUT_ID_FIELD, SEQ_ORDER_FIELD

from ..helpers.cards import build, rewrite

TEXTS = ["a text", None, "another text that is longer", "third", "four words are here", "", "six"]


@pytest.fixture
def tokens(tiny):
    frame = pd.DataFrame(
        {"text": pd.array(TEXTS, "string[pyarrow]"), "id": range(len(TEXTS))}, index=list("gfedcba")
    )
    return TokenizerStage(str(tiny("bert")), max_seq_length=12)(frame)


class Classifier(ModelStage):
    """As Curator's classifiers: attributes of its own, `_setup`, a dict of arrays, two columns."""

    def __init__(self, *, label_field="label", **options):
        super().__init__(**options)
        self.label_field = label_field
        self.model = None

    def outputs(self):
        return ["data"], [self.label_field, "score"]

    def _setup(self, local_files_only=True):
        self.calls = getattr(self, "calls", 0) + 1
        torch.manual_seed(0)
        encoder, layer = AutoModel.from_pretrained(self.model_identifier), torch.nn.Linear(32, 2)
        self.model = lambda batch: layer(encoder(**batch).last_hidden_state[:, 0])
        self.labels = ["no", "yes"]

    def process_model_output(self, outputs, model_input_batch=None):
        assert model_input_batch[ATTENTION_MASK_FIELD].shape == model_input_batch[INPUT_ID_FIELD].shape
        scores = outputs.softmax(dim=1).numpy()
        labels = np.array([self.labels[i] for i in scores.argmax(axis=1)])
        return {self.label_field: labels, "score": scores[:, 1]}

    def create_output_dataframe(self, df_cpu, collected_output):
        df_cpu = df_cpu.drop(columns=[INPUT_ID_FIELD])
        for name in (self.label_field, "score"):
            df_cpu[name] = collected_output[name]
        return df_cpu


def expected_scores(path, frame):
    torch.manual_seed(0)
    encoder, layer = AutoModel.from_pretrained(path), torch.nn.Linear(32, 2)
    with torch.inference_mode():
        rows = [None if ids is pd.NA else torch.tensor([list(ids)]) for ids in frame.input_ids]
        states = [None if ids is None else encoder(ids).last_hidden_state[:, 0] for ids in rows]
        return [None if state is None else layer(state).softmax(1)[0, 1].item() for state in states]


def test_a_stage_of_ones_own_gives_what_its_hooks_give(tiny, tokens):
    stage = Classifier(model_identifier=str(tiny("bert")), model_inference_batch_size=3, label_field="found")
    out = stage(tokens)
    assert [*out] == ["text", "id", "found", "score"]
    assert out.index.equals(tokens.index)
    for found, wanted in zip(out.score, expected_scores(tiny("bert"), tokens), strict=True):
        assert pd.isna(found) if wanted is None else abs(found - wanted) < 1e-5
    assert stage.process(tokens).equals(out)
    assert stage.calls == 1


def test_it_is_mapped_over_dask_partitions_and_set_up_once(tiny, tokens):
    stage = Classifier(model_identifier=str(tiny("bert")))
    lazy = dd.from_pandas(tokens.reset_index(drop=True), npartitions=3).pipe(stage)
    out = lazy.compute(scheduler="sync")
    assert out.dtypes.equals(lazy.dtypes)
    pd.testing.assert_frame_equal(
        out, Classifier(model_identifier=str(tiny("bert")))(tokens.reset_index(drop=True))
    )
    assert stage.calls == 1


class CountedMeta(Classifier):
    def output_meta(self, meta):
        return meta.drop(columns=[INPUT_ID_FIELD]).assign(
            label=pd.Series(dtype=str), score=pd.Series(dtype="float32")
        )


def test_a_declared_meta_loads_nothing(tiny, tokens):
    stage = CountedMeta(model_identifier=str(tiny("bert")))
    lazy = dd.from_pandas(tokens.reset_index(drop=True), npartitions=2).pipe(stage)
    assert stage.model is None
    assert lazy.compute(scheduler="sync").score.notna().sum() == len(TEXTS) - 1
    assert [*stage(tokens.iloc[:0])] == [*lazy.columns]


def test_what_setup_adds_is_not_sent_to_other_processes(tiny, tokens):
    stage = Classifier(model_identifier=str(tiny("bert")), hf_token="hf_secret")
    size, before = len(pickle.dumps(stage)), stage.__dask_tokenize__()
    stage.setup()
    assert stage.model is not None
    assert len(pickle.dumps(stage)) == size
    assert stage.__dask_tokenize__() == before
    sent = pickle.loads(pickle.dumps(stage))
    assert sent.model is None
    assert sent.hf_token is None
    pd.testing.assert_frame_equal(sent(tokens), stage(tokens))
    stage.teardown()
    assert stage.model is None
    pd.testing.assert_frame_equal(stage(tokens), sent(tokens))


def test_tokens_of_curator_are_read_and_its_order_is_restored(tiny, tokens):
    present = tokens.dropna().reset_index(drop=True)
    width = max(map(len, present.input_ids)) + 2
    rows = [(list(ids), [1] * len(ids)) for ids in present.input_ids]
    padded_rows = [(ids + [0] * (width - len(ids)), mask + [0] * (width - len(mask))) for ids, mask in rows]
    order = np.random.default_rng(0).permutation(len(present))
    frame = pd.DataFrame(
        {
            "id": present.id.to_numpy()[order],
            INPUT_ID_FIELD: [padded_rows[i][0] for i in order],
            ATTENTION_MASK_FIELD: [padded_rows[i][1] for i in order],
            SEQ_ORDER_FIELD: order,
        }
    )
    out = Classifier(model_identifier=str(tiny("bert")))(frame)
    assert out.id.tolist() == present.id.tolist()
    wanted = [score for score in expected_scores(tiny("bert"), tokens) if score is not None]
    np.testing.assert_allclose(out.score, wanted, atol=1e-5)
    with dask.config.set({"dataframe.convert-string": False}):
        ddf = dd.from_pandas(frame, npartitions=1, sort=False)
        lazy = ddf.pipe(Classifier(model_identifier=str(tiny("bert"))))
    np.testing.assert_allclose(lazy.compute(scheduler="sync").score, wanted, atol=1e-5)


def test_rows_are_padded_on_the_side_that_is_asked_for(tiny, tokens):
    for side, column in (("right", 0), ("left", -1)):
        stage = Classifier(model_identifier=str(tiny("bert")), padding_side=side)
        stage.setup()
        (batch,) = stage.yield_next_batch(tokens.dropna())
        assert batch[ATTENTION_MASK_FIELD][:, column].all()
        assert not batch[ATTENTION_MASK_FIELD].all()
        assert batch[INPUT_ID_FIELD].shape == batch[ATTENTION_MASK_FIELD].shape


class FirstToken(EmbeddingModelStage):
    def process_model_output(self, outputs, model_input_batch=None):
        return outputs[0][:, 0]


class Doubled(EmbeddingModelStage):
    def _mean_pooling(self, model_output, attention_mask):
        return 2 * super()._mean_pooling(model_output, attention_mask)


class Named(EmbeddingModelStage):
    """Overrides nothing that decides vectors."""

    label = "mine"


def test_an_overridden_hook_of_the_embedding_stage_is_obeyed(tiny, tokens):
    options = {"autocast": False, "model_inference_batch_size": 2}
    cls = EmbeddingModelStage(str(tiny("bert")), pooling="cls", normalize=False, **options)(tokens)
    own = FirstToken(str(tiny("bert")), pooling="cls", **options)(tokens)
    assert own.dtypes.equals(cls.dtypes)
    assert own.embeddings.isna().tolist() == cls.embeddings.isna().tolist()
    present = own.embeddings.notna()
    np.testing.assert_allclose(
        to_matrix(own.embeddings[present]), to_matrix(cls.embeddings[present]), atol=1e-5
    )
    lazy = dd.from_pandas(tokens.reset_index(drop=True), npartitions=2).pipe(
        FirstToken(str(tiny("bert")), **options)
    )
    assert lazy.dtypes.equals(own.dtypes)
    assert lazy.compute(scheduler="sync").embeddings.notna().sum() == present.sum()


def test_poolings_are_hooks_too(tiny, tokens):
    present = tokens.dropna()
    mean = EmbeddingModelStage(str(tiny("bert")), pooling="mean_pooling", autocast=False)(present)
    own = Doubled(str(tiny("bert")), pooling="mean_pooling", autocast=False)(present)
    np.testing.assert_allclose(to_matrix(own.embeddings), 2 * to_matrix(mean.embeddings), atol=1e-5)
    plain = Named(str(tiny("bert")), pooling="mean_pooling", autocast=False)
    assert not plain._has_own_hooks()
    np.testing.assert_array_equal(to_matrix(plain(present).embeddings), to_matrix(mean.embeddings))


def test_a_model_of_ones_own_is_used(tiny, tokens):
    class Constant(EmbeddingModelStage):
        def setup(self, _=None):
            self.model = lambda input_ids, attention_mask: (torch.ones(*input_ids.shape, 3),)

    out = Constant(str(tiny("bert")), pooling="mean_pooling", normalize=False)(tokens.dropna())
    np.testing.assert_array_equal(to_matrix(out.embeddings), np.ones((6, 3), np.float32))


@pytest.mark.parametrize("name", ["process", "__call__"])
def test_a_class_that_would_be_ignored_is_refused_when_it_is_defined(name):
    with pytest.raises(ConfigError, match=f"Mine overrides {name}, which this package does not always"):
        type("Mine", (EmbeddingModelStage,), {name: lambda self, df: df, "__module__": "mine"})


def test_relations_and_errors(tiny, tokens):
    assert issubclass(EmbeddingModelStage, ModelStage)
    assert isinstance(SentenceTransformerEmbeddingModelStage("m"), ModelStage)
    stage = Classifier(model_identifier=str(tiny("bert")))
    with pytest.raises(ColumnError, match="apply TokenizerStage first"):
        stage(tokens.drop(columns=INPUT_ID_FIELD))
    with pytest.raises(ConfigError, match="has no parameter 'batch'"):
        Classifier(model_identifier="m", batch=3)
    with pytest.raises(AttributeError):
        stage.max_seq_length = 3  # parameters are frozen
    assert replace(Named("m", pooling="cls"), pooling="max").pooling == "max"


class Slow(Classifier):
    def _setup(self, local_files_only=True):
        time.sleep(0.2)
        super()._setup(local_files_only)


def test_threads_wait_until_the_stage_is_set_up(tiny, tokens):
    stage = Slow(model_identifier=str(tiny("bert")))
    stage = pickle.loads(pickle.dumps(stage))
    with ThreadPoolExecutor(4) as pool:
        found = [each.result() for each in [pool.submit(stage, tokens) for _ in range(4)]]
    assert all(each.equals(found[0]) for each in found)
    assert stage.calls == 1


def test_a_setup_that_fails_is_tried_again(tiny, tokens):
    class Failing(Classifier):
        def setup(self, _=None):
            self.tried = True
            if not tokens.attrs.get("works"):
                raise ModelError("not now")
            self._setup()

    stage = Failing(model_identifier=str(tiny("bert")))
    with pytest.raises(ModelError, match="not now"):
        stage(tokens)
    assert not hasattr(stage, "tried")
    tokens.attrs["works"] = True
    assert len(stage(tokens)) == len(TEXTS)


def test_a_class_that_was_edited_has_other_keys(tiny, tokens):
    ones = {}
    for code in ("outputs[0][:, 0]", "outputs[0][:, 0] * 2"):
        scope = {"EmbeddingModelStage": EmbeddingModelStage, "__name__": "__main__"}
        exec(  # as a notebook does, when a cell is run again
            "class Mine(EmbeddingModelStage):\n"
            "    def process_model_output(self, outputs, model_input_batch=None):\n"
            f"        return {code}\n",
            scope,
        )
        ones[code] = scope["Mine"](str(tiny("bert")))
    first, second = ones.values()
    assert dask.base.tokenize(first) != dask.base.tokenize(second)
    assert dask.base.tokenize(first) == dask.base.tokenize(type(first)(str(tiny("bert"))))
    ddf = dd.from_pandas(tokens.dropna().reset_index(drop=True), npartitions=2)
    one, two = dask.compute(ddf.pipe(first), ddf.pipe(second), scheduler="sync")
    np.testing.assert_allclose(2 * to_matrix(one.embeddings), to_matrix(two.embeddings), atol=1e-6)


def class_with(factor):
    class Scaled(EmbeddingModelStage):
        def process_model_output(self, outputs, model_input_batch=None):
            return outputs[0][:, 0] * factor

    return Scaled


def test_a_class_that_takes_values_from_around_it_has_keys_of_its_own(tiny):
    one, two = (class_with(factor)(str(tiny("bert"))) for factor in (1, 2))
    assert dask.base.tokenize(one) != dask.base.tokenize(two)
    assert dask.base.tokenize(one) == dask.base.tokenize(class_with(1)(str(tiny("bert"))))


def test_classes_of_a_notebook_can_be_sent(tiny, tokens):
    stage = class_with(3)(str(tiny("bert")))
    stage.setup()
    sent = pickle.loads(cloudpickle.dumps(stage))
    np.testing.assert_allclose(
        to_matrix(sent(tokens.dropna()).embeddings), to_matrix(stage(tokens.dropna()).embeddings), atol=1e-6
    )


@pytest.mark.parametrize(
    "options",
    [
        {"embedding_dtype": "float16"},
        {"truncate_dim": 4},
        {"extra_embeddings": ("small:4:float32",)},
        {"runtime": "openvino"},
        {"long_documents": "mean"},
        {"pooling": "none"},
        {"on_error": "null"},
    ],
    ids=str,
)
def test_what_hooks_cannot_have_is_refused(options, tiny):
    with pytest.raises(ConfigError, match=f"cannot apply {next(iter(options))}"):
        FirstToken(str(tiny("bert")), **options)


class Forwarded(EmbeddingModelStage):
    def _model_forward(self, model_input_batch):
        return super()._model_forward(model_input_batch)


@pytest.mark.parametrize("pooling", ["auto", "cls"])
def test_layers_after_the_pooling_run_with_hooks_too(pooling, tiny, tmp_path, tokens):
    path = str(build(tiny("bert"), tmp_path / "m", pooling="cls", dense="tanh"))
    present = tokens.dropna()
    plain = EmbeddingModelStage(path, pooling=pooling, autocast=False)(present)
    own = Forwarded(path, pooling=pooling)(present)
    assert to_matrix(plain.embeddings).shape[1] == 24
    np.testing.assert_allclose(to_matrix(own.embeddings), to_matrix(plain.embeddings), atol=1e-5)


def test_models_of_other_kinds_are_refused_with_hooks_too(tiny, tmp_path, tokens):
    path = rewrite(tiny("bert"), tmp_path / "m", config={"architectures": ["BertForSequenceClassification"]})
    with pytest.raises(ModelError, match="was not made for embeddings"):
        Forwarded(str(path))(tokens)
    left_out = build(tiny("bert"), tmp_path / "p", pooling="mean", include_prompt=False)
    with pytest.raises(ConfigError, match="leaves the prompt's tokens out"):
        Forwarded(str(left_out), pooling="auto", prompt="q: ")(tokens)


def test_rows_that_cannot_be_used_are_errors(tiny, tokens):
    stage = Forwarded(str(tiny("bert")), pooling="cls")
    with pytest.raises(RowError, match="token id 100000 is not among"):
        stage(pd.DataFrame({INPUT_ID_FIELD: [[2, 3], [2, 100_000]]}))
    with pytest.raises(RowError, match="not a list"):
        stage(pd.DataFrame({INPUT_ID_FIELD: [[2, 3], "a"]}))
    with pytest.raises(RowError, match="more than the model's limit"):
        stage(pd.DataFrame({INPUT_ID_FIELD: [[2] * 5000]}))
    with pytest.raises(ColumnError, match="'embeddings' already"):
        stage(tokens.assign(embeddings=1))

    class NotFinite(EmbeddingModelStage):
        def process_model_output(self, outputs, model_input_batch=None):
            return outputs[0][:, 0] / 0

    with pytest.raises(RowError, match="NaN or infinite"):
        NotFinite(str(tiny("bert")))(tokens)


class Filtering(Classifier):
    """Keeps rows with an even id, in reverse order, and drops the columns that Curator's frames have."""

    def create_output_dataframe(self, df_cpu, collected_output):
        df_cpu = df_cpu.drop(columns=[INPUT_ID_FIELD, ATTENTION_MASK_FIELD])
        df_cpu[self.label_field] = collected_output[self.label_field]
        df_cpu["score"] = collected_output["score"]
        return df_cpu[df_cpu.id % 2 == 0].iloc[::-1]


def test_a_hook_may_filter_and_reorder_rows(tiny, tokens):
    out = Filtering(model_identifier=str(tiny("bert")))(tokens)
    assert out.id.tolist() == [6, 4, 2, 0, 1]  # the row without a text follows
    scores = expected_scores(tiny("bert"), tokens)
    np.testing.assert_allclose(out.score.iloc[:4], [scores[i] for i in (6, 4, 2, 0)], atol=1e-5)
    assert pd.isna(out.score.iloc[4])
    assert out.text.iloc[:4].tolist() == [TEXTS[i] for i in (6, 4, 2, 0)]


class Copied(Classifier):
    """Reads the columns as code written for Curator's padded frames does."""

    def yield_next_batch(self, df):
        for start in range(0, len(df), 2):
            rows = slice(start, start + 2)
            columns = (INPUT_ID_FIELD, ATTENTION_MASK_FIELD)
            yield {name: torch.tensor(df[name][rows].tolist()) for name in columns}


def test_batches_of_ones_own_see_padded_columns(tiny, tokens):
    found = Copied(model_identifier=str(tiny("bert")))(tokens)
    plain = Classifier(model_identifier=str(tiny("bert")))(tokens)
    assert [*found] == [*plain]
    np.testing.assert_allclose(found.score, plain.score, atol=1e-5)


def test_attributes_that_are_changed_after_setup_are_sent(tiny):
    stage = Classifier(model_identifier=str(tiny("bert")))
    stage.setup()
    stage.label_field, stage.extra = "later", 3
    sent = pickle.loads(pickle.dumps(stage))
    assert (sent.label_field, sent.extra, sent.model) == ("later", 3, None)
    assert not hasattr(sent, "labels")


def test_setup_on_node_lets_the_stage_download_more(tiny):
    calls = []

    class Downloads(Classifier):
        def _setup(self, local_files_only=True):
            calls.append(local_files_only)
            super()._setup(local_files_only)

    stage = Downloads(model_identifier=str(tiny("bert")))
    stage.setup_on_node()
    stage.setup()
    assert calls == [False, True]


@pytest.mark.parametrize("name", ["process_model_output", "decompose", "process"])
def test_hooks_of_other_stages_are_refused(name):
    for base in (EmbeddingCreatorStage, TokenizerStage):
        with pytest.raises(ConfigError, match=f"Mine overrides {name}"):
            type("Mine", (base,), {name: lambda self, *_: None, "__module__": "mine"})


def test_columns_of_weighted_tokens_are_among_the_outputs():
    _, model = EmbeddingCreatorStage(embedding_pooling="splade").decompose()
    assert model.outputs() == (["data"], ["embeddings_ids", "embeddings"])
