"""Curves that are thinned, smoothed and added up."""

import numpy as np

from dashboard.series import POINTS, HistogramColumns, Series, averaged, smoothed, thinned


def curve(values: list[float]) -> Series:
    return Series.of(range(1, len(values) + 1), values)


def test_a_short_curve_stays_as_it_is() -> None:
    series = curve([1.0, 2.0, 3.0])
    assert thinned(series) is series


def test_thinning_keeps_every_spike_and_both_ends() -> None:
    values = np.zeros(100_000)
    values[[12_345, 54_321]] = 9.0, -7.0
    shown = thinned(Series.of(range(100_000), values.tolist()))
    assert len(shown) <= POINTS
    assert {12_345, 54_321, 0, 99_999} <= set(shown.steps.tolist())
    assert shown.values.max() == 9.0
    assert shown.values.min() == -7.0
    assert (np.diff(shown.steps) > 0).all()


def test_thinned_points_do_not_jump_as_the_curve_grows() -> None:
    noise = np.random.default_rng(0).normal(size=10_001)
    before = thinned(Series.of(range(10_000), noise[:10_000].tolist()))
    after = thinned(Series.of(range(10_001), noise.tolist()))
    moved = set(before.steps.tolist()) - set(after.steps.tolist())
    assert len(moved) <= 2  # the bucket at the end and the old last point


def test_thinning_passes_over_values_that_are_not_finite() -> None:
    values = np.full(5_000, np.nan)
    values[2_500] = 3.0
    shown = thinned(Series.of(range(5_000), values.tolist()))
    assert np.nanmax(shown.values) == 3.0
    assert Series.of([1, 2], [np.nan, 1.0]).last == 1.0


def test_averages_are_bounded_and_keep_the_mean() -> None:
    shown = averaged(Series.of(range(4_096), [float(step % 2) for step in range(4_096)]), limit=100)
    assert len(shown) <= 100
    np.testing.assert_allclose(shown.values, 0.5)


def test_smoothing_is_the_mean_of_the_last_eight() -> None:
    values = [float(value) for value in range(20)]
    values[3] = np.nan
    smooth = smoothed(curve(values))
    assert smooth.values[2] == 1.0
    assert smooth.values[3] == 1.0  # the gap does not count
    assert smooth.values[15] == np.mean(values[8:16])


def test_histograms_add_up_into_a_bounded_number_of_columns() -> None:
    columns = HistogramColumns(limit=10)
    for step in range(1, 101):
        columns.add(step, [0.0, 1.0, 2.0], [1, 3])
    first_steps, shares = columns.shares()
    assert len(first_steps) <= 10
    assert columns.width == 16
    np.testing.assert_allclose(shares, [[0.25] * len(first_steps), [0.75] * len(first_steps)])


def test_a_stretch_without_histograms_is_a_gap() -> None:
    columns = HistogramColumns()
    columns.add(1, [0.0, 1.0], [5])
    columns.add(4, [0.0, 1.0], [5])
    _, shares = columns.shares()
    assert np.isnan(shares).tolist() == [[False, True, True, False]]


def test_new_edges_begin_the_history_anew() -> None:
    columns = HistogramColumns()
    columns.add(1, [0.0, 1.0], [5])
    columns.add(2, [0.0, 2.0], [7])
    first_steps, _ = columns.shares()
    assert first_steps.tolist() == [2]
