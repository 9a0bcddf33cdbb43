"""Code that was written for transformers 4, such as that of jina-embeddings-v2."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, pytorch_utils

from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.older_code import add_older_methods, older_imports
from nemo_embed_dask.settings import Settings

from ..helpers.cards import TEXTS
from ..helpers.own_code import make_own
from ..helpers.versions import TRANSFORMERS, needs

OLD = """
import transformers
from transformers.pytorch_utils import find_pruneable_heads_and_indices, prune_linear_layer
"""


@pytest.mark.filterwarnings("ignore:trust_remote_code=True")
def test_older_code_gives_the_same_vectors(tmp_path):
    def embed(path):
        chosen = Settings(ModelRef(str(path), trust_remote_code=True), autocast=False)
        return np.asarray(embed_texts(TEXTS, chosen).matrix)

    path = make_own(tmp_path / "m")
    expected = embed(path)
    code = path / "modeling_own.py"
    mask = "bias = (1 - mask[:, None, None]) * torch.finfo(x.dtype).min"
    old = (
        "bias = self.get_extended_attention_mask(attention_mask, input_ids.size()); "
        "assert self.get_head_mask(None, 2) == [None, None]"
    )
    assert mask in code.read_text()
    code.write_text(OLD + code.read_text().replace(mask, old))
    np.testing.assert_allclose(embed(path), expected, atol=1e-6)


def test_nothing_stays_in_transformers():
    names = {*vars(pytorch_utils)}
    with older_imports():
        from transformers.pytorch_utils import find_pruneable_heads_and_indices
    assert {*vars(pytorch_utils)} == names
    with pytest.raises(NotImplementedError, match="not pruned"):
        find_pruneable_heads_and_indices([0], 1, 1, set())


@needs("transformers", TRANSFORMERS, "older ones have the older methods themselves")
def test_masks_of_heads_and_of_decoders_are_refused():
    class Old(BertModel):
        pass

    add_older_methods(Old)
    assert not hasattr(BertModel, "get_head_mask")
    config = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 9}
    model = Old(BertConfig(**config))
    mask = torch.tensor([[1, 1, 0]])
    least = torch.finfo(torch.float32).min
    assert model.get_extended_attention_mask(mask, mask.shape).tolist() == [[[[0, 0, least]]]]
    assert model.get_extended_attention_mask(mask[:, None], None).shape == (1, 1, 1, 3)
    with pytest.raises(NotImplementedError, match="left out"):
        model.get_head_mask(mask, 1)
    model.config.is_decoder = True
    with pytest.raises(NotImplementedError, match="decoder"):
        model.get_extended_attention_mask(mask, mask.shape)
