"""Curves that are averaged and smoothed, and histograms in columns."""

import numpy as np

from dashboard.charts.series import HistogramColumns, StepSeries, averaged, smoothed, spikes


def curve(values: list[float]) -> StepSeries:
    return StepSeries.of(range(1, len(values) + 1), values)


def test_a_short_curve_stays_as_it_is() -> None:
    series = curve([1.0, 2.0, 3.0])
    assert spikes(series) is series


def test_buckets_are_drawn_through_their_extremes() -> None:
    shown = spikes(StepSeries.of([8, 16], [1.0, None], [0.0, None], [9.0, None]))
    assert shown.steps.tolist() == [8, 8, 16, 16]
    assert shown.values[:2].tolist() == [0.0, 9.0]
    assert np.isnan(shown.values[2:]).all()


def test_the_last_finite_value_is_returned() -> None:
    assert StepSeries.of([1, 2, 3], [np.nan, 1.0, None]).last == 1.0
    assert StepSeries.of([], []).last is None


def test_averages_are_bounded_and_keep_the_mean() -> None:
    shown = averaged(StepSeries.of(range(4_096), [float(step % 2) for step in range(4_096)]), limit=100)
    assert len(shown) <= 100
    np.testing.assert_allclose(shown.values, 0.5)


def test_smoothing_is_the_mean_of_the_last_eight() -> None:
    values = [float(value) for value in range(20)]
    values[3] = np.nan
    smooth = smoothed(curve(values))
    assert smooth.values[2] == 1.0
    assert smooth.values[3] == 1.0  # the gap does not count
    assert smooth.values[15] == np.mean(values[8:16])


def test_columns_are_shares_and_are_replaced() -> None:
    columns = HistogramColumns(width=4)
    columns.put(0, [0.0, 1.0, 2.0], [1, 1])
    columns.put(4, [0.0, 1.0, 2.0], [5, 5])
    columns.put(4, [0.0, 1.0, 2.0], [1, 3])
    first_steps, shares = columns.shares()
    assert first_steps.tolist() == [0, 4]
    assert shares.tolist() == [[0.5, 0.25], [0.5, 0.75]]


def test_a_stretch_without_histograms_is_a_gap() -> None:
    columns = HistogramColumns()
    columns.put(1, [0.0, 1.0], [5])
    columns.put(4, [0.0, 1.0], [5])
    _, shares = columns.shares()
    assert np.isnan(shares).tolist() == [[False, True, True, False]]


def test_new_edges_restart_the_history() -> None:
    columns = HistogramColumns()
    columns.put(1, [0.0, 1.0], [5])
    columns.put(2, [0.0, 2.0], [7])
    first_steps, _ = columns.shares()
    assert first_steps.tolist() == [2]
