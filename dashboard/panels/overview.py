"""Is it learning? Reward, accuracy and losses, below four numbers."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from calibrl.schemas import Job
from dashboard.charts.cards import Card, Curves, Line, metrics_of
from dashboard.charts.series import StepSeries, averaged, fence, smoothed
from dashboard.palette import EXPERT, NEUTRAL, POLICY, VALIDATION
from dashboard.panels import lineage
from dashboard.panels.common import draw_cards, draw_live, has_rollouts, read, show_if_empty, show_if_not_started
from dashboard.panels.panel import Panel

SPARKLINE = 60  # points


@dataclass(frozen=True)
class Tile:
    """The current value of a metric, its change since the start, and its curve in small."""

    label: str
    metric: str
    value_format: str
    help: str
    sparse: bool = False  # measured at some steps only
    rising_is_good: bool = False  # colours the change; else it stays grey


TILES = (
    Tile(
        "Validation accuracy",
        "validation/accuracy",
        ".1%",
        "Share of sampled completions with a correct answer on validation data, which training never uses. The change "
        "is since the start.",
        sparse=True,
        rising_is_good=True,
    ),
    Tile(
        "Train accuracy",
        "reward/answer_accuracy",
        ".1%",
        "Share of the last step's completions with a correct answer. The chart below also has the mean of some steps. "
        "The change is since the start.",
        rising_is_good=True,
    ),
    Tile("Entropy (nats/token)", "exploration/entropy", ".3f", "Near 0 the policy no longer explores."),
    Tile(
        "Gap to the expert (nats/token)",
        "expert/gap_mean",
        ".2f",
        "Above 0 the policy finds its own tokens more likely than the expert's.",
    ),
)
ACCURACY = Card(
    "accuracy",
    "Accuracy",
    (
        Line("val", "validation/accuracy", VALIDATION, sparse=True),
        Line("val (strict)", "validation/strict_accuracy", VALIDATION, dash="dot", sparse=True),
        Line("train", "reward/answer_accuracy", POLICY),
        Line("train (strict)", "reward/strict_accuracy", POLICY, dash="dot"),
    ),
    hint="Validation accuracy should rise with train accuracy. If only train accuracy rises, it overfits. Strict: the "
    "completion must also have the requested format.",
    unit="accuracy",
    share="of_all",
)
LEARNING_RATE = Card(
    "learning-rate",
    "Learning rate",
    (Line("learning rate", "schedule/learning_rate", exact=True),),
    value_format=".2e",
)
EPOCH = Card("epoch", "Epoch", (Line("epoch", "schedule/epoch", exact=True),), value_format=".2f")
GRADIENT_NORM = Card("grad-norm", "Gradient norm", (Line("gradient norm", "loss/grad_norm"),))
REINFORCEMENT = (
    ACCURACY,
    Card("reward", "Reward", (Line("mean reward", "reward/mean", POLICY),), unit="mean reward"),
    Card(
        "losses",
        "Losses",
        (
            Line("policy", "loss/policy", POLICY),
            Line("guidance", "loss/guidance", EXPERT),
            Line("total", "loss/total", NEUTRAL),
        ),
        hint="A policy loss near 0 is normal. Guidance is shown before `guidance_coef`. Look for sudden jumps.",
        zero_line=True,
        value_format=".4f",
    ),
    GRADIENT_NORM,
    LEARNING_RATE,
    EPOCH,
)
SUPERVISED = (
    ACCURACY,
    Card(
        "nll",
        "Expert negative log-likelihood",
        (Line("expert NLL", "expert/nll", EXPERT),),
        hint="The loss of supervised fine-tuning. It should fall from the first steps on.",
    ),
    GRADIENT_NORM,
    Card(
        "speed",
        "Throughput",
        (Line("tokens", "perf/tokens_per_second"),),
        value_format=",.0f",
    ),
    LEARNING_RATE,
    EPOCH,
)


def draw(job: Job) -> None:
    """Draw the panel, with the job's lineage below."""
    if not show_if_not_started(job):
        draw_live(job, _reinforcement if has_rollouts(job) else _supervised)
    lineage.draw(job)


def _tile(tile: Tile, curves: Curves) -> None:
    series = curves[tile.metric]
    number = "–" if series.current is None else format(series.current, tile.value_format)
    common: dict[str, Any] = {"label": tile.label, "help": tile.help, "border": True, "height": "stretch"}
    if series.lost_at is not None:
        since = f"NaN or infinite since step {series.lost_at}"
        st.metric(**common, value=number, delta=since, delta_color="red", delta_arrow="off")
        return
    finite = series.values[np.isfinite(series.values)]
    if series.current is None or len(finite) < 2:
        st.metric(**common, value=number)
        return
    change = _signed(series.current - float(finite[0]), tile.value_format)
    unchanged = not re.search("[1-9]", change)
    st.metric(
        **common,
        value=number,
        delta=change,
        delta_color="normal" if tile.rising_is_good and not unchanged else "off",
        delta_arrow="off" if unchanged else "auto",
        delta_description=_best(tile, series) or "since start",
        chart_data=_small(series if tile.sparse else smoothed(series)),
    )


def _best(tile: Tile, series: StepSeries) -> str:
    """The highest value and its step, of a metric that should rise."""
    if not tile.rising_is_good:
        return ""
    highest = np.where(np.isfinite(series.high), series.high, -np.inf)
    place = int(highest.argmax())
    first, last = int(series.first[place]), int(series.steps[place])
    at = f"at step {last}" if first == last else f"in steps {first} to {last}"
    return f"best {format(float(highest[place]), tile.value_format)} {at}"


def _small(series: StepSeries) -> list[float] | None:
    """The points of a tile's small curve; huge values are cut off, because its axis follows them."""
    values = averaged(series, SPARKLINE).values
    values = values[np.isfinite(values)]
    return np.clip(values, *(fence(values) or (None, None))).tolist() if len(values) > 2 else None


def _signed(change: float, value_format: str) -> str:
    """A change with its sign; of a share in percentage points (pp)."""
    if value_format.endswith("%"):
        return f"{100 * change:+.1f} pp"
    return format(change, f"+{value_format}")


def _reinforcement(job: Job) -> None:
    curves = read(job, (*metrics_of(REINFORCEMENT), *(tile.metric for tile in TILES)))
    if show_if_empty(job, curves):
        return
    with st.grid(4, min_column_width=150):
        for tile in TILES:
            _tile(tile, curves)
    draw_cards(job, REINFORCEMENT, curves)


def _supervised(job: Job) -> None:
    curves = read(job, metrics_of(SUPERVISED))
    if not show_if_empty(job, curves):
        draw_cards(job, SUPERVISED, curves)


PANELS = (Panel("Overview", draw, 10, charted=True),)
