"""Figures from hand-made data. Plotly itself checks each: building one by hand skips that."""

import json
import math
import tomllib
from pathlib import Path

import plotly.graph_objects as go
import pytest

from dashboard import palette
from dashboard.charts import figures
from dashboard.charts.figures import ChartFigure, Curve, Dot
from dashboard.charts.series import BUCKETS, POINTS, HistogramColumns, StepSeries
from tests.support.charts import LABELS, result

HOSTILE = '<b>x</b><a href="javascript:alert(1)">y</a>'


def valid(figure: ChartFigure) -> go.Figure:
    """The figure, once Plotly accepts it and JSON can say it."""
    return go.Figure(json.loads(figure.json))


def series(count: int) -> StepSeries:
    return StepSeries.of(range(1, count + 1), [math.sin(step) for step in range(count)])


def test_a_long_curve_is_drawn_smoothed_over_its_raw_line() -> None:
    figure = valid(figures.curves([Curve("entropy", series(200), palette.ENTROPY)], unit="nats per token"))
    raw, smooth = figure.data
    assert list(raw.x) == list(range(1, 201))
    assert raw.hoverinfo == "skip"
    assert smooth.name == "entropy"
    assert smooth.line.color == palette.ENTROPY
    assert max(smooth.y) < max(raw.y)
    assert figure.layout.yaxis.title.text == "nats per token"


def test_a_bucketed_curve_keeps_its_spikes_in_the_raw_line() -> None:
    means = [0.0] * BUCKETS
    high = [9.0 if bucket == 77 else 0.0 for bucket in range(BUCKETS)]
    curve = Curve("loss", StepSeries.of(range(BUCKETS), means, means, high), palette.POLICY)
    raw, smooth = valid(figures.curves([curve], unit="loss")).data
    assert max(raw.y) == 9.0
    assert max(smooth.y) == 0.0
    assert len(raw.x) <= POINTS


def test_sparse_measurements_get_a_mark_each_and_are_not_smoothed() -> None:
    figure = valid(
        figures.curves([Curve("validation", series(30), palette.VALIDATION, sparse=True)], unit="x", share="of_all")
    )
    (trace,) = figure.data
    assert trace.mode == "lines+markers"
    assert list(trace.x) == list(range(1, 31))
    low, high = figure.layout.yaxis.range
    assert low < 0 < 1 < high


def test_a_value_that_is_not_finite_is_a_gap_with_a_mark_at_its_step() -> None:
    curve = Curve("loss", StepSeries.of([11, 12, 13], [1.0, math.nan, 3.0]), "#000000")
    raw, smooth, mark = valid(figures.curves([curve], unit="loss")).data
    assert list(raw.y) == [1.0, None, 3.0]
    assert list(smooth.y) == [1.0, None, 2.0]
    assert (list(mark.x), list(mark.text)) == ([12], ["loss: NaN or infinite"])


def test_a_bucket_with_values_that_are_not_finite_has_their_number() -> None:
    curve = Curve("loss", StepSeries.of([8, 16], [1.0, 2.0], non_finite=[0, 3]), "#000000")
    *_, mark = valid(figures.curves([curve], unit="loss")).data
    assert (list(mark.x), list(mark.text)) == ([16], ["loss: 3 values NaN or infinite"])


def test_a_run_without_a_finite_value_shows_its_marks() -> None:
    figure = valid(figures.curves([Curve("loss", StepSeries.of([1, 2], [None, None]), "#000000")], unit="loss"))
    assert list(figure.data[-1].x) == [1, 2]
    assert figure.data[-1].yaxis == "y2"


def test_one_huge_value_is_a_mark_and_not_the_axis() -> None:
    values = [0.4, 0.5, 0.6] * 20
    values[30] = 1e30
    figure = valid(figures.curves([Curve("entropy", StepSeries.of(range(60), values), "#000000")], unit="nats"))
    low, high = figure.layout.yaxis.range
    assert 0 < low < 0.4 and 0.6 < high < 1
    mark = figure.data[-1]
    assert (list(mark.x), list(mark.text)) == ([30], ["entropy: 1e+30 beyond the axis"])


def test_a_maximum_so_far_is_drawn_as_reported() -> None:
    steps = StepSeries.of(range(1, 61), [1.0] * 30 + [2.0] * 30)
    (trace,) = valid(figures.curves([Curve("peak", steps, "#000000", exact=True)], unit="GiB")).data
    assert list(trace.y) == [1.0] * 30 + [2.0] * 30


@pytest.mark.parametrize("count", [3, 23, 24, 500])
def test_a_curve_of_any_length_is_smoothed_alike(count: int) -> None:
    raw, smooth = valid(figures.curves([Curve("entropy", series(count), "#000000")], unit="x")).data
    window = list(raw.y)[max(0, count - 8) :]
    assert smooth.y[-1] == pytest.approx(sum(window) / len(window), rel=1e-3)
    assert raw.line.width < smooth.line.width


@pytest.mark.parametrize(("values", "mode"), [([0.4, 0.4], "nonnegative"), ([0.4, -0.1], None)])
def test_the_axis_of_curves_without_negative_values_begins_at_0_or_above(values: list[float], mode: str | None) -> None:
    curve = Curve("step", StepSeries.of([1, 2], values), "#000000")
    assert valid(figures.curves([curve], unit="s")).layout.yaxis.rangemode == mode


def test_a_curve_without_values_is_left_out() -> None:
    assert figures.curves([Curve("nothing", StepSeries.of([], []), "#000000")], unit="x").data == []


def test_stacked_parts_meet_at_the_same_steps() -> None:
    parts = [("a", series(500), palette.CORRECT), ("b", series(500), palette.WRONG)]
    figure = valid(figures.stacked(parts, unit="share of tokens", shares=True))
    assert figure.data[0].x == figure.data[1].x
    assert {trace.stackgroup for trace in figure.data} == {"all"}
    assert figure.layout.yaxis.tickformat == ".0%"
    seconds = valid(figures.stacked(parts, unit="seconds", shares=False))
    assert seconds.layout.yaxis.tickformat is None


def test_groups_are_points_with_the_address_they_open() -> None:
    shown = [Dot(0.5, 0.9, 0.1, f"train-1 {HOSTILE}", [10, 1]), Dot(0.6, 0.0, 0.5, "train-2", [10, 2])]
    others = [Dot(0.7, 0.8, 1.1, "train-3", [1, 1])]
    figure = figures.dots(shown, others, low=0.1, high=1.1)
    assert [trace["customdata"] for trace in figure.data] == [[[1, 1]], [[10, 1], [10, 2]]]
    faint, strong = valid(figure).data
    assert faint.marker.opacity < strong.marker.opacity
    assert "<b>" not in strong.text[0]
    assert len(figures.dots(shown, [], low=0.0, high=0.0).data) == 1


def test_a_heat_map_has_a_border_around_every_cell() -> None:
    columns = HistogramColumns()
    for step in (1, 2, 3):
        columns.put(step, [0.0, 0.5, 1.0], [step, 1])
    (trace,) = valid(figures.heat_map(columns, colour=palette.RARENESS, unit="|advantage|")).data
    assert list(trace.x) == [0.5, 1.5, 2.5, 3.5]
    assert list(trace.y) == [0.0, 0.5, 1.0]
    assert [list(row) for row in trace.z] == [[0.5, 0.66667, 0.75], [0.5, 0.33333, 0.25]]


def test_small_shares_get_an_axis_of_their_size() -> None:
    none = figures.curves([Curve("cut", StepSeries.of([1, 2], [0.0, 0.0]), "#000000")], unit="x", share="small")
    some = figures.curves([Curve("cut", StepSeries.of([1, 2], [0.0, 0.2]), "#000000")], unit="x", share="small")
    assert valid(none).layout.yaxis.range[1] == pytest.approx(0.05)
    assert valid(some).layout.yaxis.range[1] == pytest.approx(0.22)


def test_a_heat_map_shows_the_values_that_occur_and_leaves_out_strays() -> None:
    columns = HistogramColumns()
    counts = [0] * 20
    counts[9:11] = [500, 498]
    counts[0] = 2  # a stray
    columns.put(1, [float(edge) for edge in range(-10, 11)], counts)
    assert figures.heat_map(columns, colour=palette.EXPERT, unit="nats").layout["yaxis"]["range"] == [-2.0, 2.0]


def test_evaluated_models_are_dots_with_their_interval() -> None:
    results = [result("before", accuracy=0.4, accuracy_low=0.35, accuracy_high=0.47), result("after", accuracy=0.7)]
    before, after = valid(figures.intervals(["accuracy"], results, LABELS)).data
    assert list(before.error_x.array) == pytest.approx([0.07])
    assert list(before.error_x.arrayminus) == pytest.approx([0.05])
    assert list(after.error_x.array) == [0.0]
    assert before.marker.color != after.marker.color


def test_names_are_text_and_not_markup() -> None:
    drawn = (
        figures.curves([Curve(HOSTILE, series(3), "#000000")], unit=HOSTILE).json
        + figures.intervals(["accuracy"], [result(HOSTILE, accuracy=0.5)], {"accuracy": HOSTILE}).json
    )
    assert "<b>" not in drawn
    assert "<a " not in drawn
    assert "&lt;b&gt;" in drawn


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colour", palette.MODELS)
@pytest.mark.parametrize("background", ["#FFFFFF", "#12161B"])
def test_every_colour_has_contrast_in_light_and_dark(colour: str, background: str) -> None:
    darker, lighter = sorted((luminance(colour), luminance(background)))
    assert (lighter + 0.05) / (darker + 0.05) >= 3.0


def test_buttons_and_links_are_legible_in_both_themes() -> None:
    theme = tomllib.loads((Path(figures.__file__).parents[1] / ".streamlit" / "config.toml").read_text())["theme"]
    for shades in (theme["light"], theme["dark"]):
        assert contrast(shades["primaryColor"], "#FFFFFF") >= 4.5
        assert contrast(shades.get("linkColor", shades["primaryColor"]), shades["backgroundColor"]) >= 4.5


def test_an_error_of_a_page_offers_no_link_that_leaves_the_service() -> None:
    settings = tomllib.loads((Path(figures.__file__).parents[1] / ".streamlit" / "config.toml").read_text())
    assert settings["client"]["showErrorLinks"] is False
    assert settings["browser"]["gatherUsageStats"] is False


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_a_curve_without_its_raw_line_is_one_line() -> None:
    (line,) = figures.curves([Curve("wrong", series(200), palette.WRONG, raw=False)], unit="nats").data
    assert line["name"] == "wrong"


def test_dots_are_whole_and_numbers_have_powers() -> None:
    figure = figures.dots([Dot(0.5, 0.0, 1.5, "p", [1, 1])], [], low=0, high=2)
    assert figure.data[0]["cliponaxis"] is False
    assert valid(figures.curves([], unit="x")).layout.yaxis.exponentformat == "power"
