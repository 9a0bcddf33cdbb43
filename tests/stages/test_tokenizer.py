from __future__ import annotations

import pandas as pd
import pytest

from nemo_embed_dask import ColumnError, TokenizerStage
from nemo_embed_dask.stages import INPUT_ID_FIELD


def test_max_chars_never_touches_the_text(tiny):
    frame = pd.DataFrame({"text": ["This is a very long text that should be cut", None]})
    cut = frame.pipe(TokenizerStage(str(tiny("bert")), max_chars=7))
    short = pd.DataFrame({"text": ["This is"]}).pipe(TokenizerStage(str(tiny("bert"))))
    pd.testing.assert_frame_equal(cut[["text"]], frame)
    assert list(cut[INPUT_ID_FIELD][0]) == list(short[INPUT_ID_FIELD][0])
    assert cut[INPUT_ID_FIELD].isna().tolist() == [False, True]


def test_rows_keep_their_order_and_own_length(tiny):
    frame = pd.DataFrame({"text": ["a b c d e f", "a", "a b c"]})
    lengths = [len(row) for row in frame.pipe(TokenizerStage(str(tiny("bert"))))[INPUT_ID_FIELD]]
    assert lengths[1] < lengths[2] < lengths[0]


def test_the_card_s_limit_and_the_user_s(tiny):
    frame = pd.DataFrame({"text": ["word " * 500]})
    for limit, expected in ((None, 64), (10, 10)):
        stage = TokenizerStage(str(tiny("bert")), max_seq_length=limit)
        assert len(frame.pipe(stage)[INPUT_ID_FIELD][0]) == expected


def test_an_existing_token_column_is_not_overwritten(tiny):
    frame = pd.DataFrame({"text": ["a"], INPUT_ID_FIELD: [1]})
    with pytest.raises(ColumnError, match="'input_ids' already"):
        frame.pipe(TokenizerStage(str(tiny("bert"))))
