"""Curves that are averaged and smoothed, and histograms in columns."""

import numpy as np
import pytest

from dashboard.charts.series import HistogramColumns, StepSeries, averaged, fence, smoothed, spikes


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


def test_the_current_value_is_the_last_finite_one_and_no_mean() -> None:
    assert StepSeries.of([1, 2, 3], [np.nan, 1.0, None]).current == 1.0
    assert StepSeries.of([8, 16], [0.5, 0.6], latest=[0.7, 0.8]).current == 0.8
    assert StepSeries.of([], []).current is None


def test_a_curve_that_ends_in_nan_names_the_first_step_of_it() -> None:
    assert StepSeries.of([1, 2, 3, 4], [1.0, 2.0, np.nan, np.nan]).lost_at == 3
    assert StepSeries.of([7, 15], [1.0, None], first=[0, 8]).lost_at == 8
    assert StepSeries.of([1], [np.nan]).lost_at == 1
    assert StepSeries.of([1, 2], [np.nan, 1.0]).lost_at is None
    assert StepSeries.of([], []).lost_at is None


def test_averages_are_bounded_and_keep_the_mean() -> None:
    shown = averaged(StepSeries.of(range(4_096), [float(step % 2) for step in range(4_096)]), limit=100)
    assert len(shown) <= 100
    np.testing.assert_allclose(shown.values, 0.5)


def test_smoothing_is_the_mean_of_the_last_eight() -> None:
    values = [float(value) for value in range(20)]
    values[3] = np.nan
    smooth = smoothed(curve(values))
    assert smooth.values[2] == 1.0
    assert np.isnan(smooth.values[3])  # a gap
    assert smooth.values[4] == np.mean([0, 1, 2, 4])  # it does not count
    assert smooth.values[15] == np.mean(values[8:16])


def test_a_huge_value_spoils_only_the_means_of_its_windows() -> None:
    values = [0.5] * 60
    values[30] = 1e30
    smooth = smoothed(curve(values)).values
    np.testing.assert_array_equal(smooth[:30], 0.5)
    np.testing.assert_allclose(smooth[30:38], 1.25e29)
    np.testing.assert_array_equal(smooth[38:], 0.5)


def test_the_bounds_of_a_band_are_smoothed_like_its_mean() -> None:
    values = [float(value) for value in range(20)]
    series = StepSeries.of(range(20), values, [value - 1 for value in values], [value + 2 for value in values])
    smooth = smoothed(series)
    np.testing.assert_allclose(smooth.low, smooth.values - 1)
    np.testing.assert_allclose(smooth.high, smooth.values + 2)


@pytest.mark.parametrize(
    ("values", "inside"),
    [
        ([*[0.4, 0.5, 0.6] * 20, 1e30], (0.4, 0.6)),
        ([*[0.4, 0.5, 0.6] * 20, -1e30], (0.4, 0.6)),
        ([*[0.4, 0.5, 0.6] * 20, 6.0], None),  # ten times the usual value
        ([0.0] * 60 + [0.3], None),  # a share that is 0 at first
        ([float(value) for value in range(60)], None),
        ([0.5] * 40 + [1e30] * 20, None),  # too many: the run has exploded
        ([np.nan, np.nan], None),
        ([], None),
    ],
)
def test_a_fence_leaves_out_a_few_huge_values(values: list[float], inside: tuple[float, float] | None) -> None:
    assert fence(np.asarray(values)) == inside


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


def test_a_moving_average_is_corrected_for_its_start() -> None:
    """With the weight 0.9: (0.9 x 0.1 x 1 + 0.1 x 2) / (0.9 x 0.1 + 0.1) = 0.29 / 0.19."""
    shown = smoothed(StepSeries.of([1, 2, 3], [1.0, 2.0, float("nan")]), "ema")
    assert shown.values[:2] == pytest.approx([1.0, 0.29 / 0.19]) and np.isnan(shown.values[2])


def test_no_smoothing_leaves_the_series() -> None:
    series = StepSeries.of([1, 2], [1.0, 5.0])
    assert smoothed(series, "none") is series
