"""Does the expert help or pull? The gap, its distribution, and the four quadrants that CalibRL treats differently."""

import streamlit as st

from dashboard import charts, live_chart, states
from dashboard.charts import Curve
from dashboard.markup import escape, heading
from dashboard.palette import CORRECT, EXPERT, POLICY, WRONG, faded
from dashboard.panels.common import algorithm, grid, heat, live, read, waiting
from dashboard.series import Series
from jobs.schemas import Job

HALF = 0.4  # opacity of the quadrants that are pushed less
QUADRANTS = (  # metric, name, colour, what the tokens are, which way they are pushed, whether in full
    (
        "expert/quadrant_underconfident_correct",
        "under-confident, correct",
        CORRECT,
        "Right, though the expert's token was the likelier one.",
        "Pushed up",
        True,
    ),
    (
        "expert/quadrant_confident_correct",
        "confident, correct",
        faded(CORRECT, HALF),
        "Right, and likelier than the expert's token.",
        "Pushed up",
        False,
    ),
    (
        "expert/quadrant_humble_wrong",
        "humble, wrong",
        faded(WRONG, HALF),
        "Wrong, but less likely than the expert's token.",
        "Pushed down",
        False,
    ),
    (
        "expert/quadrant_overconfident_wrong",
        "over-confident, wrong",
        WRONG,
        "Wrong, and likelier than the expert's token.",
        "Pushed down",
        True,
    ),
)
NAMES = (
    "expert/gap_mean",
    "expert/gap_correct",
    "expert/gap_wrong",
    "expert/nll",
    "loss/policy",
    "loss/guidance",
    *(quadrant[0] for quadrant in QUADRANTS),
)


def draw(job: Job) -> None:
    if algorithm(job) == "sft":
        states.empty(
            "No rollouts to compare", "Supervised fine-tuning imitates the expert; its surprise is in the overview."
        )
    elif not waiting(job):
        live(job, _panel)


def _gap(of: dict[str, Series]) -> None:
    lines = [
        Curve("correct", of["expert/gap_correct"], CORRECT),
        Curve("wrong", of["expert/gap_wrong"], WRONG),
        Curve("all", of["expert/gap_mean"], EXPERT),
    ]
    live_chart.card(
        "Gap to the expert",
        "Log-probability of the rollout's token minus that of the expert's token there. Correct should rise above "
        "wrong; many nats above 0 everywhere means an expert too far from the policy to guide it.",
        charts.curves(lines, unit="nats a token", zero_line=True, value_format=".2f"),
        key="gap",
    )


def _nll(of: dict[str, Series]) -> None:
    live_chart.card(
        "Expert negative log-likelihood",
        "How surprised the policy is by the expert's tokens. Falling: it comes nearer to the expert; rising: it "
        "leaves the expert behind.",
        charts.curves([Curve("expert tokens", of["expert/nll"], EXPERT)], unit="nats a token"),
        key="expert-nll",
    )


def _losses(of: dict[str, Series]) -> None:
    lines = [Curve("policy", of["loss/policy"], POLICY), Curve("guidance", of["loss/guidance"], EXPERT)]
    live_chart.card(
        "Policy loss against guidance loss",
        "Guidance is shown before guidance_coef. Falling: the policy does what the expert's calibration asks for.",
        charts.curves(lines, unit="loss", zero_line=True, value_format=".4f"),
        key="expert-losses",
    )


def _strength(job: Job, full: bool) -> str:
    settings = job.spec["algorithm"]
    if settings["type"] != "calibrl":
        return f"not at all: {settings['type']} has no guidance"
    return "at full strength" if full else f"at {settings['negative_slope']:g} of full strength"


def _quadrants(job: Job, of: dict[str, Series]) -> None:
    parts = [(name, of[metric], colour) for metric, name, colour, *_ in QUADRANTS if len(of[metric])]
    live_chart.card(
        "Four kinds of token",
        "Strong colours are what CalibRL pushes in full. A healthy run turns over-confident wrong tokens into correct "
        "ones.",
        charts.stacked_shares(parts, unit="share of tokens"),
        key="quadrants",
    )


def _legend(job: Job) -> None:
    rows = "".join(
        f'<div style="display:flex;gap:0.7rem;margin:0.55rem 0">'
        f'<span style="flex:0 0 0.9rem;height:0.9rem;margin-top:0.25rem;border-radius:0.2rem;background:{colour}">'
        "</span>"
        f"<span><b>{escape(name.capitalize())}.</b> {escape(meaning)} "
        f"{escape(push)} {escape(_strength(job, full))}.</span></div>"
        for _, name, colour, meaning, push, full in QUADRANTS
    )
    with st.container(border=True, height="stretch", key="card-legend"):
        st.html(heading("What happens to each kind", "The guidance of each token is weighted by |A| as well.") + rows)


def _heat(job: Job) -> None:
    heat(
        job,
        "expert/gap",
        title="Distribution of the gap",
        hint="Stronger colour: more tokens. Two bands: experts in the policy's style, and in other words.",
        colour=EXPERT,
        unit="nats a token",
    )


def _panel(job: Job) -> None:
    of = read(job, NAMES)
    if not len(of["expert/gap_mean"]) and job.status.final:
        states.empty("No expert was compared", f"This job ({algorithm(job)}) reported no gap to an expert.")
        return
    grid(
        [
            lambda: _gap(of),
            lambda: _heat(job),
            lambda: _quadrants(job, of),
            lambda: _legend(job),
            lambda: _nll(of),
            lambda: _losses(of),
        ]
    )
