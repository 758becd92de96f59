"""Does the expert help? The gap, its distribution, and the four confidence quadrants of CalibRL."""

from typing import NamedTuple

import streamlit as st

from calibrl.schemas import Job, find_algorithm
from dashboard import states
from dashboard.charts.cards import Card, HeatCard, Line, StackCard, metrics_of
from dashboard.markup import escape, group_link, heading, table
from dashboard.palette import CORRECT, EXPERT, NEUTRAL, POLICY, VALIDATION, WRONG, faded
from dashboard.panels.common import PanelCard, algorithm, draw_cards, live_panel, read
from dashboard.panels.panel import Panel
from dashboard.reads import live

MOST_LISTED = 8  # groups
RECENT_STEPS = 10  # sampled steps that the listed groups come from
HALF = 0.4  # opacity of the quadrants with damped guidance
INTRODUCTION = (
    "The gap compares the policy with the expert, token by token: log π(token) − log π(expert's token at this "
    "position). Above 0 the policy is confident in its own token. CalibRL uses the gap to guide each token: up in "
    "correct completions, down in wrong ones."
)


class Quadrant(NamedTuple):
    """One of the four kinds of token: by outcome, and by the sign of the gap."""

    line: Line
    meaning: str
    push: str
    full: bool  # guidance has full strength; else negative_slope of it


QUADRANTS = (
    Quadrant(
        Line("under-confident, correct", "expert/quadrant_underconfident_correct", CORRECT),
        "Correct completion; the expert's token is more likely.",
        "Pushed up",
        True,
    ),
    Quadrant(
        Line("confident, correct", "expert/quadrant_confident_correct", faded(CORRECT, HALF)),
        "Correct completion; at least as likely as the expert's token.",
        "Pushed up",
        False,
    ),
    Quadrant(
        Line("under-confident, wrong", "expert/quadrant_humble_wrong", faded(WRONG, HALF)),
        "Wrong completion; the expert's token is more likely.",
        "Pushed down",
        False,
    ),
    Quadrant(
        Line("over-confident, wrong", "expert/quadrant_overconfident_wrong", WRONG),
        "Wrong completion; at least as likely as the expert's token.",
        "Pushed down",
        True,
    ),
)


def _strength(job: Job, full: bool) -> str:
    settings = job.spec["algorithm"]
    known = find_algorithm(settings["type"])
    if known is None or not known.has_guidance:
        return f"not at all: {settings['type']} has no guidance"
    slope = 1.0 if full else settings.get("negative_slope", 1.0)
    return "at full strength" if slope == 1 else f"at {slope:g} × full strength"


def _legend(job: Job) -> None:
    """The quadrants in words, with the effect of this job's guidance."""
    rows = "".join(
        f'<div style="display:flex;gap:0.7rem;margin:0.55rem 0;font-size:.92rem">'
        f'<span style="flex:0 0 0.9rem;height:0.9rem;margin-top:0.25rem;border-radius:0.2rem;'
        f'background:{quadrant.line.colour}"></span>'
        f"<span><b>{escape(quadrant.line.name.capitalize())}.</b> {escape(quadrant.meaning)} "
        f"{escape(quadrant.push)} {escape(_strength(job, quadrant.full))}.</span></div>"
        for quadrant in QUADRANTS
    )
    with st.container(border=True, height="stretch", key="card-legend"):
        hint = "Guidance of each token is also weighted by |A|."
        st.html(heading("Effect of guidance by quadrant", hint) + rows)


CARDS: tuple[PanelCard, ...] = (
    Card(
        "gap",
        "Gap to the expert",
        (
            Line("correct", "expert/gap_correct", CORRECT, raw=False),
            Line("wrong", "expert/gap_wrong", WRONG, dash="dash", raw=False),
            Line("all", "expert/gap_mean", EXPERT),
        ),
        hint="Mean gap by outcome. Correct should rise above wrong. Many nats above 0 everywhere: the expert is out "
        "of distribution for this policy.",
        zero_line=True,
        value_format=".2f",
    ),
    HeatCard(
        "Distribution of the gap",
        {"all": "expert/gap", "correct": "expert/gap_correct", "wrong": "expert/gap_wrong"},
        hint="Stronger colour: more tokens. Above 0: log π(token) > log π(expert's token at this position).",
        unit="nats/token",
        colour=EXPERT,
    ),
    StackCard(
        "quadrants",
        "Confidence quadrants",
        tuple(quadrant.line for quadrant in QUADRANTS),
        hint="Strong colours: guidance at full strength. In a healthy run over-confident wrong tokens turn into "
        "correct ones.",
        unit="share of tokens",
    ),
    _legend,
    Card(
        "damped",
        "Damped and opposed tokens",
        (
            Line("damped", "expert/damped_share", NEUTRAL),
            Line("opposed to the policy gradient", "expert/opposing_share", WRONG),
        ),
        hint="Damped: guidance at `negative_slope` only; near 1 the slope decides how strong guidance is. Opposed: "
        "advantage and outcome differ in sign.",
        share="of_all",
    ),
    Card(
        "expert-nll",
        "Expert negative log-likelihood",
        (Line("experts of the step's prompts", "expert/nll", EXPERT),),
    ),
    Card(
        "probe-nll",
        "Validation expert NLL",
        (Line("validation probe", "expert/probe_nll", VALIDATION, sparse=True),),
    ),
    Card(
        "probe-gap",
        "Validation expert gap",
        (Line("validation probe", "expert/probe_gap", VALIDATION, sparse=True),),
        zero_line=True,
    ),
    Card(
        "expert-losses",
        "Policy loss vs guidance loss",
        (Line("policy", "loss/policy", POLICY), Line("guidance", "loss/guidance", EXPERT)),
        hint="Guidance is shown before `guidance_coef`. Falling guidance loss: the policy follows the calibration by "
        "the expert.",
        zero_line=True,
        value_format=".4f",
    ),
    Card(
        "guidance-control",
        "Controlled guidance",
        (
            Line("guidance_coef", "algorithm/guidance_coef", EXPERT, exact=True),
            Line("negative_slope", "algorithm/negative_slope", NEUTRAL, dash="dash", exact=True),
        ),
        hint="The setting that `algorithm.guidance_control` moves. At its minimum or maximum for long: it cannot keep "
        "the measure within the band.",
        unit="value of the setting",
    ),
    Card(
        "expert-gradients",
        "Gradient norm by loss term",
        (
            Line("policy", "loss/policy_grad_norm", POLICY, sparse=True),
            Line("guidance", "loss/guidance_grad_norm", EXPERT, sparse=True),
        ),
        hint="Measured every `diagnostics.gradients_every` steps. Guidance × `guidance_coef` is its share of the "
        "update.",
    ),
    Card(
        "expert-agreement",
        "Gradient alignment (cosine)",
        (
            Line("cosine", "loss/guidance_cosine", EXPERT, sparse=True),
            Line("opposed elements", "loss/guidance_opposing_share", WRONG, dash="dot", sparse=True),
        ),
        hint="Cosine near 1: guidance only lengthens the step. Lower: guidance adds a direction of its own. Below 0: "
        "the gradients conflict. 0.5 opposed = uncorrelated.",
        unit="cosine, share",
        zero_line=True,
    ),
)


def _largest_gaps(job: Job) -> None:
    """The sampled groups of the last steps with the largest gaps, as links."""
    samples = live.samples(job.id, job.attempt)
    with states.tolerated():
        samples.refresh()
    groups = [
        (step, number, summary)
        for step, summaries in list(samples.by_step().items())[:RECENT_STEPS]
        for number, summary in enumerate(summaries, 1)
        if summary.gap is not None
    ]
    largest = sorted(groups, key=lambda group: -(group[2].gap or 0.0))[:MOST_LISTED]
    rows = (
        f"<tr><td>{group_link(job.id, step, number, summary.prompt_id)}</td>"
        f'<td data-label="Step">{step}</td><td data-label="Mean gap (nats/token)">{summary.gap:+.2f}</td>'
        f'<td data-label="Correct">{summary.passed} of {summary.size}</td></tr>'
        for step, number, summary in largest
    )
    with st.container(border=True, key="card-furthest"):
        hint = f"Groups saved at the last {RECENT_STEPS} sampled steps. Open one to compare expert and policy."
        st.html(heading("Prompts with the largest expert gap", hint))
        if largest:
            st.html(table(("Prompt", "Step", "Mean gap (nats/token)", "Correct"), rows))
        else:
            st.caption("No saved group has an expert yet.")


def _panel(job: Job) -> None:
    curves = read(job, metrics_of(CARDS))
    if not len(curves["expert/gap_mean"]) and job.status.final:
        states.empty("No expert data", f"This job ({algorithm(job)}) reported no gap to an expert.")
        return
    st.caption(INTRODUCTION)
    draw_cards(job, CARDS, curves)
    _largest_gaps(job)


draw = live_panel(_panel)


PANELS = (Panel("Expert mismatch", draw, 30, of_rollouts=True, charted=True),)
