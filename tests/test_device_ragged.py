"""Rows in a device's memory: the same as rows on the host, and without waiting for the device."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nemo_embed_dask.device_ragged import DeviceRagged
from nemo_embed_dask.ragged import Ragged

ROWS = st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=9)
META = torch.device("meta")


def on_cpu(rows):
    host = Ragged.from_rows(rows)
    return host, DeviceRagged.from_host(host, torch.device("cpu"))


def same(found, expected):
    assert isinstance(found, DeviceRagged)
    assert found.values.dtype == torch.int32
    assert found.offsets.tolist() == expected.offsets.tolist()
    assert found.to_host().values.tolist() == expected.values.tolist()
    low, high = found.extremes()
    assert low <= min(expected.values, default=low)
    assert high >= max(expected.values, default=high)


@given(ROWS, st.data())
def test_every_operation_gives_the_rows_of_the_host(rows, data):
    host, device = on_cpu(rows)
    picked = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12))
    limit, side = data.draw(st.integers(0, 4)), data.draw(st.sampled_from(["left", "right"]))
    marked = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    edges = st.lists(st.integers(90, 99), max_size=2)
    prefix, suffix = data.draw(edges), data.draw(edges)
    same(device.take(picked), host.take(picked))
    same(device.clip(limit, side), host.clip(limit, side))
    same(device.without(marked), host.without(marked))
    same(device.surround(prefix, suffix), host.surround(prefix, suffix))
    same(DeviceRagged.join([device, device.take(picked)]), Ragged.concat([host, host.take(picked)]))
    assert device.positions_in_rows().tolist() == host.positions_in_rows().tolist()
    assert device.mask(side).tolist() == host.mask(side).tolist()
    assert device.pad(7, side).tolist() == host.pad(7, side).tolist()
    assert device.places_in_block(side).tolist() == host.places_in_block(side).tolist()
    (kept, offsets), (kept_on_host, offsets_on_host) = device.drop_first(limit), host.drop_first(limit)
    assert kept.tolist() == kept_on_host.tolist()
    assert offsets.tolist() == offsets_on_host.tolist()


def test_nothing_waits_for_the_device_but_the_way_to_the_host():
    """A meta tensor has no values, so asking for one raises."""
    rows = DeviceRagged.from_host(Ragged.from_rows([[1, 2, 3], [], [4]]), META)
    out = DeviceRagged.join([rows.take([2, 0]).clip(2).surround([101], [102]), rows.without(np.ones(3, bool))])
    assert (out.lengths.tolist(), out.extremes()) == ([3, 4, 0, 0, 0], (0, 102))
    assert (out.pad().shape, out.mask("left").shape, out.drop_first(1)[0].shape) == ((5, 4), (5, 4), (5,))
    with pytest.raises((NotImplementedError, RuntimeError)):
        out.to_host()


def test_no_rows():
    rows = DeviceRagged.empty(torch.device("cpu"))
    assert (len(rows), rows.extremes(), rows.take([]).values.tolist()) == (0, (0, 0), [])
    assert rows.surround([1], [2]).values.tolist() == rows.pad().tolist() == []
