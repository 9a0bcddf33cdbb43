"""Indexes beyond a table are found on the host, before an operation runs."""

import pytest
import torch
import transformers
from torch.nn.functional import embedding
from torch.utils._python_dispatch import TorchDispatchMode

from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes import layouts, tables
from nemo_embed_dask.runtimes import torch as torch_runtime
from nemo_embed_dask.runtimes.guards import CheckedIndexes
from nemo_embed_dask.runtimes.layouts import find_layout
from nemo_embed_dask.runtimes.torch import TorchRuntime

from ..helpers.tiny import KINDS, MORE

CPU = torch.device("cpu")
TABLE = torch.arange(10.0).view(5, 2)
OPERATIONS = {
    "embedding": lambda i: embedding(i, TABLE),
    "index": lambda i: TABLE[i],
    "index, second dimension": lambda i: TABLE.T[:, i],
    "index_select": lambda i: TABLE.index_select(0, i),
    "gather": lambda i: TABLE.gather(0, i[:, None]),
}


class Calls(TorchDispatchMode):
    """Notes the operations that reach the device."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_index_beyond_the_table_never_reaches_the_device(name):
    operation = OPERATIONS[name]
    looked_up = {"embedding", "index", "index_select", "gather"}
    for wrong in (5, -6, 2**31 - 1, *[-1] * (name.split(",")[0] != "index")):
        with (
            Calls() as calls,
            torch.inference_mode(),
            CheckedIndexes(),
            pytest.raises(IndexError, match="outside of a table with 5 rows"),
        ):
            operation(torch.tensor([0, wrong]))
        assert not looked_up.intersection(calls.names)
    with Calls() as calls, torch.inference_mode(), CheckedIndexes():
        found = operation(torch.tensor([0, 4]))
    assert looked_up.intersection(calls.names)
    assert torch.equal(found, operation(torch.tensor([0, 4])))


def test_a_mask_of_two_dimensions_counts_as_two():
    x, mask = torch.arange(24.0).view(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    with CheckedIndexes():
        assert torch.equal(x[mask, torch.full((6,), 3)], x[:, :, 3].reshape(-1))
        with pytest.raises(IndexError, match="outside of a table with 4 rows"):
            x[mask, torch.full((6,), 4)]


def test_indexing_may_count_from_the_end():
    with CheckedIndexes():
        assert torch.equal(TABLE[torch.tensor([-1])], TABLE[4:])


def test_masks_and_empty_indexes_pass():
    with CheckedIndexes():
        assert TABLE[torch.zeros(5, dtype=torch.bool)].numel() == 0
        assert TABLE[torch.zeros(0, dtype=torch.int64)].numel() == 0


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "gpt2", "opt", "electra"])
def test_no_layout_that_is_tried_at_load_reads_beyond_a_table_of_a_gpu(kind, monkeypatch):
    """The table of positions is as long as the longest row that is tried, so that shifted positions exceed it."""
    name, arguments, _ = (KINDS | MORE)[kind]
    offset = 2 if "pad_token_id" in arguments or kind in ("mpnet", "opt") else 0
    limit = "n_positions" if kind == "gpt2" else "max_position_embeddings"
    given = arguments | {limit: 12 + offset * (kind != "opt"), "pad_token_id": 1}
    model = transformers.AutoModel.from_config(getattr(transformers, name)(**given, vocab_size=90)).eval()
    assert tables.position_count(model) == 12
    reached, checked, refused = [], [], []

    def check(device, run):
        try:
            with CheckedIndexes(), Reached(checked):
                return run()
        except IndexError as error:
            refused.append(str(error))
            raise

    monkeypatch.setattr(layouts, "checked", check)
    with Reached(reached):
        _, dimension = find_layout(model, CPU, torch.float32)
    assert dimension == 32
    assert reached, "nothing was looked up"
    assert not any(reached)
    assert len(checked) >= len(reached), "something is looked up without a check"
    assert all("outside of a table with" in error for error in refused)
    assert refused or offset, "no layout would have read beyond the table"


def test_longer_rows_are_checked_when_they_first_occur(tiny, monkeypatch):
    runtime = TorchRuntime(load_weights(tiny("bert"), torch.float32), CPU, torch.float32)
    ids = Ragged.from_rows([[7] * 40, [8] * 3])
    reached, checked = [], []

    def check(device, run):
        with Reached(checked):
            return run()

    monkeypatch.setattr(layouts, "checked", check)
    monkeypatch.setattr(torch_runtime, "checked", check)
    with Reached(reached):
        runtime.states(ids)
        unchecked = len(reached) - len(checked)
        assert len(checked) > unchecked > 0
        runtime.states(ids)
    assert len(reached) - len(checked) == 2 * unchecked, "only the batches themselves are not checked"


class Reached(TorchDispatchMode):
    """Notes for each look-up in a table whether an index was beyond it."""

    def __init__(self, reached):
        super().__init__()
        self.reached = reached

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.embedding.default:
            self.reached.append(bool(args[1].max() >= len(args[0]) or args[1].min() < 0))
        return func(*args, **(kwargs or {}))
