"""Intervals of means and fractions: tests of `nemo_embed_dask.checks.intervals`."""

from nemo_embed_dask.checks.intervals import fraction_interval, mean_interval


def testfractions_are_never_certain():
    assert fraction_interval(0, 100)[0] == 0
    assert 0.01 < fraction_interval(0, 100)[1] < 0.05
    assert 0.95 < fraction_interval(100, 100)[0] < 0.99


def test_the_interval_of_a_mean_stays_positive():
    assert mean_interval([10, 10, 10]) == (10, 10)
    low, high = mean_interval([0, 0, 300])
    assert low == 10
    assert high > 250
