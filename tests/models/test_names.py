"""Names of models in messages: tests of `nemo_embed_dask.models.names`."""

from pathlib import Path

import pytest

from nemo_embed_dask.errors import ConfigError
from nemo_embed_dask.models.card import length_limit, read_card
from nemo_embed_dask.models.names import model_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/a/.cache/huggingface/hub/models--intfloat--e5-base/snapshots/1a2b3c", "intfloat/e5-base"),
        ("/hub/models--intfloat--e5-base/snapshots/1a2b3c/0_Transformer", "intfloat/e5-base"),
        ("/hub/models--gpt2/snapshots/1a2b3c", "gpt2"),
        ("/data/snapshots/mine", "mine"),
        ("/data/mine", "mine"),
        ("/", "/"),
    ],
)
def test_cached_models_have_the_name_of_their_repository(path, name):
    assert model_name(Path(path)) == name


def test_messages_name_the_model_and_not_the_commit(tiny, tmp_path):
    snapshot = tmp_path / "models--someone--small" / "snapshots" / "0123abcd"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(tiny("bert"))
    # A link is resolved, so a cache that links whole folders has the name of the folder that it links to.
    assert read_card(snapshot).name == tiny("bert").name
    snapshot.unlink()
    snapshot.mkdir()
    for file in tiny("bert").iterdir():
        (snapshot / file.name).symlink_to(file)
    with pytest.raises(ConfigError, match="model 'someone/small'"):
        length_limit(read_card(snapshot), 10_000)
