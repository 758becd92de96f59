"""Charts as data: a panel is a tuple of cards, and a card says which metrics it draws and how."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from calibrl_core.metrics import look_up
from dashboard.charts import figures
from dashboard.charts.figures import ChartFigure, Curve, Share
from dashboard.charts.look import PLAIN, Look
from dashboard.charts.marks import Mark
from dashboard.charts.series import StepSeries, scaled
from dashboard.palette import NEUTRAL

Curves = Mapping[str, StepSeries]  # by metric


@dataclass(frozen=True)
class Line:
    """One metric of a card."""

    name: str
    metric: str
    colour: str = NEUTRAL
    dash: str = "solid"
    sparse: bool = False  # measured at some steps only: drawn with a mark at every point, and not smoothed
    exact: bool = False  # drawn as it was reported, not smoothed: a setting, or a maximum so far
    raw: bool = True  # a smoothed line has the raw line behind it


@dataclass(frozen=True)
class Card:
    """Metrics over steps as lines. Hint and unit come from the registry's entry of the first metric, if not given."""

    key: str
    title: str
    lines: tuple[Line, ...]
    hint: str = ""
    unit: str = ""
    share: Share | None = None
    zero_line: bool = False
    value_format: str = ".3f"
    scale: float = 1.0  # from the metric's unit to the card's

    @property
    def text(self) -> str:
        """The hint, or the registry's without a repeated title; empty for a metric without a description."""
        entry = look_up(self.lines[0].metric)
        text = (self.hint or (entry.hint if entry else "")).removeprefix(f"{self.title}: ")
        return text[:1].upper() + text[1:]

    @property
    def unit_text(self) -> str:
        """The unit, or the registry's; empty for a metric without a description."""
        entry = look_up(self.lines[0].metric)
        return self.unit or (entry.unit if entry else "")

    def figure(self, curves: Curves, alerts: Sequence[Mark] = (), look: Look = PLAIN) -> ChartFigure:
        """Return the chart of these curves, with a mark at each alert."""
        drawn = [
            Curve(
                line.name,
                scaled(curves[line.metric], self.scale),
                line.colour,
                line.dash,
                sparse=line.sparse,
                exact=line.exact,
                raw=line.raw,
            )
            for line in self.lines
        ]
        return figures.curves(
            drawn,
            unit=self.unit_text,
            share=self.share,
            zero_line=self.zero_line,
            value_format=self.value_format,
            alerts=alerts,
            look=look,
        )


@dataclass(frozen=True)
class StackCard:
    """Metrics that are parts of a whole, one above the other, from the bottom up."""

    key: str
    title: str
    lines: tuple[Line, ...]
    hint: str
    unit: str
    shares: bool = True  # parts of 1, as percentages

    @property
    def text(self) -> str:
        """The hint."""
        return self.hint

    def figure(self, curves: Curves, alerts: Sequence[Mark] = (), look: Look = PLAIN) -> ChartFigure:
        """Return the chart of those curves that have a value; its areas hide marks of alerts, and are always smoothed
        and linear, because they add up."""
        parts = [(line.name, curves[line.metric], line.colour) for line in self.lines if len(curves[line.metric])]
        return figures.stacked(parts, unit=self.unit, shares=self.shares, x_title=look.x_title)


@dataclass(frozen=True)
class HeatCard:
    """The distribution of a value over steps: of all, or by outcome."""

    title: str
    histograms: Mapping[str, str]  # the histogram of each choice
    hint: str
    unit: str
    colour: str

    @property
    def key(self) -> str:
        """The key of the card's widgets, from its first histogram."""
        return "-".join(["heat", *next(iter(self.histograms.values())).split("/")])


def metrics_of(cards: Iterable[object]) -> tuple[str, ...]:
    """Return the metrics that these cards draw, each once; cards of other kinds draw none."""
    drawn = (card for card in cards if isinstance(card, Card | StackCard))
    return tuple(dict.fromkeys(line.metric for card in drawn for line in card.lines))
