"""Is it learning? Reward, accuracy and losses, under four numbers that answer at a glance."""

import streamlit as st

from calibrl.schemas import Job
from dashboard.charts import figures, live_chart
from dashboard.charts.figures import Curve
from dashboard.charts.series import Series, averaged, smoothed
from dashboard.palette import EXPERT, HELD_OUT, NEUTRAL, POLICY
from dashboard.panels import lineage
from dashboard.panels.common import algorithm, draw_live, grid, nothing, read, waiting

NAMES = (
    "reward/mean",
    "reward/answer_accuracy",
    "reward/strict_accuracy",
    "validation/accuracy",
    "validation/strict_accuracy",
    "exploration/entropy",
    "expert/gap_mean",
    "expert/nll",
    "loss/policy",
    "loss/guidance",
    "loss/total",
    "loss/grad_norm",
    "perf/tokens_per_second",
)
SPARKLINE = 60  # points


def draw(job: Job) -> None:
    if not waiting(job):
        draw_live(job, _sft if algorithm(job) == "sft" else _reinforcement)
    lineage.draw(job)


def _tile(label: str, series: Series, value_format: str, *, smooth: bool, help: str, judged: bool = False) -> None:
    """A number, its change since the start, and its curve in small. `judged`: rising is good."""
    curve = smoothed(series) if smooth else series
    if curve.last is None:
        st.metric(label, "–", help=help, border=True, height="stretch")
        return
    change = curve.last - float(curve.values[0])
    st.metric(
        label,
        format(curve.last, value_format),
        delta=_signed(change, value_format) if len(curve) > 1 else None,
        delta_color="normal" if judged else "off",
        delta_description="since start" if len(curve) > 1 else None,
        chart_data=averaged(curve, SPARKLINE).values.tolist() if len(curve) > 2 else None,
        help=help,
        border=True,
        height="stretch",
    )


def _signed(change: float, value_format: str) -> str:
    if value_format.endswith("%"):
        return f"{100 * change:+.1f} points"
    return format(change, f"+{value_format}")


def _accuracy_tile(series: Series) -> None:
    _tile(
        "Held-out accuracy",
        series,
        ".1%",
        smooth=False,
        judged=True,
        help="Share of sampled completions that are right on validation data, which training never sees.",
    )


def _tiles(of: dict[str, Series]) -> None:
    with st.grid(4, min_column_width=150):
        _accuracy_tile(of["validation/accuracy"])
        _tile(
            "Accuracy in training",
            of["reward/answer_accuracy"],
            ".1%",
            smooth=True,
            judged=True,
            help="Share of this step's completions that are right, averaged over the last steps.",
        )
        _tile(
            "Entropy",
            of["exploration/entropy"],
            ".3f",
            smooth=True,
            help="Nats a token: how undecided the policy is. Near 0 it no longer explores.",
        )
        _tile(
            "Gap to the expert",
            of["expert/gap_mean"],
            ".2f",
            smooth=True,
            help="Nats a token: above 0, the policy trusts its own tokens more than the expert's.",
        )


def _accuracy(of: dict[str, Series]) -> None:
    lines = [
        Curve("held out", of["validation/accuracy"], HELD_OUT, sparse=True),
        Curve("held out, strict", of["validation/strict_accuracy"], HELD_OUT, dash="dot", sparse=True),
        Curve("in training", of["reward/answer_accuracy"], POLICY),
        Curve("in training, strict", of["reward/strict_accuracy"], POLICY, dash="dot"),
    ]
    live_chart.card(
        "Accuracy",
        "Held-out accuracy should rise with accuracy in training; training alone rising is memorising. "
        "Strict also asks for the right format.",
        figures.curves(lines, unit="completions that are right", share="of_all"),
        key="accuracy",
    )


def _loss(of: dict[str, Series]) -> None:
    lines = [
        Curve("policy", of["loss/policy"], POLICY),
        Curve("guidance", of["loss/guidance"], EXPERT),
        Curve("total", of["loss/total"], NEUTRAL),
    ]
    live_chart.card(
        "Losses",
        "A policy loss near 0 is normal; guidance is shown before guidance_coef. Look for sudden jumps.",
        figures.curves(lines, unit="loss", zero_line=True, value_format=".4f"),
        key="losses",
    )


def _grad_norm(of: dict[str, Series]) -> None:
    live_chart.card(
        "Gradient norm",
        "Before clipping. Spikes that keep coming back ask for a lower learning rate.",
        figures.curves([Curve("gradient norm", of["loss/grad_norm"], NEUTRAL)], unit="2-norm"),
        key="grad-norm",
    )


def _reward(of: dict[str, Series]) -> None:
    live_chart.card(
        "Reward",
        "It should rise and then level off. Reward rising without accuracy is a verifier being gamed.",
        figures.curves([Curve("mean reward", of["reward/mean"], POLICY)], unit="reward a completion"),
        key="reward",
    )


def _reinforcement(job: Job) -> None:
    of = read(job, NAMES)
    if nothing(job, of):
        return
    _tiles(of)
    grid([lambda: _accuracy(of), lambda: _reward(of), lambda: _loss(of), lambda: _grad_norm(of)])


def _expert_nll(of: dict[str, Series]) -> None:
    live_chart.card(
        "Expert negative log-likelihood",
        "The loss: how surprised the model is by the expert's tokens. It should fall from the first steps on.",
        figures.curves([Curve("negative log-likelihood", of["expert/nll"], EXPERT)], unit="nats a token"),
        key="nll",
    )


def _speed(of: dict[str, Series]) -> None:
    live_chart.card(
        "Speed",
        "It should be steady. A lasting fall means that something else uses the machine.",
        figures.curves(
            [Curve("tokens", of["perf/tokens_per_second"], NEUTRAL)], unit="tokens a second", value_format=",.0f"
        ),
        key="speed",
    )


def _sft(job: Job) -> None:
    of = read(job, NAMES)
    if not nothing(job, of):
        grid([lambda: _accuracy(of), lambda: _expert_nll(of), lambda: _grad_norm(of), lambda: _speed(of)])
