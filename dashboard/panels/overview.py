"""Is it learning? Reward, accuracy and losses, below four numbers."""

from dataclasses import dataclass

import streamlit as st

from calibrl.schemas import Job
from dashboard.charts.cards import Card, Curves, Line, metrics_of
from dashboard.charts.series import averaged, smoothed
from dashboard.palette import EXPERT, NEUTRAL, POLICY, VALIDATION
from dashboard.panels import lineage
from dashboard.panels.common import draw_cards, draw_live, has_rollouts, read, show_if_empty, show_if_not_started

SPARKLINE = 60  # points


@dataclass(frozen=True)
class Tile:
    """A number, its change since the start, and its curve in small."""

    label: str
    metric: str
    value_format: str
    help: str
    smooth: bool = True
    rising_is_good: bool = False  # colours the change; else it stays grey


TILES = (
    Tile(
        "Validation accuracy",
        "validation/accuracy",
        ".1%",
        "Share of sampled completions with a correct answer on validation data, which training never uses.",
        smooth=False,
        rising_is_good=True,
    ),
    Tile(
        "Train accuracy",
        "reward/answer_accuracy",
        ".1%",
        "Share of a step's completions with a correct answer, averaged over the last steps.",
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
)


def draw(job: Job) -> None:
    """Draw the panel, with the job's lineage below."""
    if not show_if_not_started(job):
        draw_live(job, _reinforcement if has_rollouts(job) else _supervised)
    lineage.draw(job)


def _tile(tile: Tile, curves: Curves) -> None:
    series = curves[tile.metric]
    curve = smoothed(series) if tile.smooth else series
    if curve.last is None:
        st.metric(tile.label, "–", help=tile.help, border=True, height="stretch")
        return
    change = curve.last - float(curve.values[0])
    st.metric(
        tile.label,
        format(curve.last, tile.value_format),
        delta=_signed(change, tile.value_format) if len(curve) > 1 else None,
        delta_color="normal" if tile.rising_is_good else "off",
        delta_description="since start" if len(curve) > 1 else None,
        chart_data=averaged(curve, SPARKLINE).values.tolist() if len(curve) > 2 else None,
        help=tile.help,
        border=True,
        height="stretch",
    )


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
