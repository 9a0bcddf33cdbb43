from __future__ import annotations

import pickle

import pytest

from nemo_embed_dask import errors

CHILDREN = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EmbedError)
]


@pytest.mark.parametrize("kind", CHILDREN)
def test_every_error_survives_a_process_boundary(kind):
    error = kind("row 3: what, where, what to do")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) == "row 3: what, where, what to do"


def test_row_errors_carry_their_rows():
    again = pickle.loads(pickle.dumps(errors.RowError("bad", (3, 5))))
    assert again.rows == (3, 5)
    assert str(again) == "bad"


def test_configuration_and_column_errors_are_value_errors():
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.ColumnError, ValueError)
