"""Functions take the stage first; the order of earlier builds is refused with the right call."""

from __future__ import annotations

import inspect

import pandas as pd
import pytest

import nemo_embed_dask as ned
from nemo_embed_dask import ConfigError, EmbeddingCreatorStage, TokenizerStage

STAGE = EmbeddingCreatorStage()
FRAME = pd.DataFrame({"text": ["a"]})
OLD = {
    "embed_parquet": [
        (("in", "out"), {}),
        (("in", "out", STAGE), {}),
        (("in", "out"), {"stage": STAGE}),
        ((), {"source": "in", "target": "out"}),
    ],
    "plan": [((FRAME,), {}), ((FRAME,), {"model_identifier": "m"}), ((FRAME, STAGE), {})],
    "preload": [((None, STAGE), {})],
    "verify": [((["a"], STAGE), {})],
}


@pytest.mark.parametrize("name", OLD)
def test_another_order_is_refused_with_the_right_call(name):
    for arguments, keywords in OLD[name]:
        with pytest.raises(ConfigError, match=rf"^{name} takes the stage first: {name}\("):
            getattr(ned, name)(*arguments, **keywords)


@pytest.mark.parametrize("name", [*OLD, "calibrate"])
def test_the_stage_is_the_first_parameter(name):
    assert next(iter(inspect.signature(getattr(ned, name)).parameters)) == "stage"


def test_all_arguments_may_be_keywords(tmp_path):
    with pytest.raises(ned.JobError, match="has no input"):
        ned.embed_parquet(target=tmp_path / "out", source=str(tmp_path / "none.parquet"), stage=STAGE)


@pytest.mark.parametrize("source", [FRAME, [FRAME], [1], None])
def test_embed_parquet_takes_names_of_files(source, tmp_path):
    with pytest.raises(ConfigError, match="takes names of files or folders, not a (DataFrame|int|NoneType)"):
        ned.embed_parquet(STAGE, source, tmp_path / "out")


def test_preload_takes_any_stage():
    with pytest.raises(ConfigError, match="client=None .* is not a client"):
        ned.preload(TokenizerStage("m"), None)
