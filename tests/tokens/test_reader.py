from __future__ import annotations

import pytest

from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ConfigError
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings

from .test_huggingface import damaged


def test_error_for_a_prompt_that_cannot_be_tokenized(tiny, tmp_path):
    path = damaged(tiny("bert"), tmp_path / "m", lambda content: content["model"].update(unk_token="[NONE]"))
    for prompt in ("\u2603: ", "\ud800"):
        with pytest.raises(
            ConfigError, match="the prompt .* cannot be tokenized for model .m. .*pass another prompt"
        ):
            embed_texts(["a dog"], Settings(ModelRef(str(path)), prompt=prompt))
