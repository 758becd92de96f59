"""Does the expert help or pull? The gap, its distribution, and the four quadrants that CalibRL treats differently."""

import streamlit as st

from calibrl.schemas import Job
from dashboard import states
from dashboard.charts import figures, live_chart
from dashboard.charts.figures import Curve
from dashboard.charts.series import Series
from dashboard.markup import escape, group_link, heading, table
from dashboard.palette import CORRECT, EXPERT, HELD_OUT, NEUTRAL, POLICY, WRONG, faded
from dashboard.panels.common import algorithm, draw_live, grid, heat, read, waiting
from dashboard.reads import live

FURTHEST = 8  # groups listed
RECENT_STEPS = 10  # sampled steps that they are chosen from
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
    "expert/probe_nll",
    "expert/probe_gap",
    "expert/damped_share",
    "expert/opposing_share",
    "loss/policy",
    "loss/guidance",
    "loss/policy_grad_norm",
    "loss/guidance_grad_norm",
    "loss/guidance_cosine",
    "loss/guidance_opposing_share",
    *(quadrant[0] for quadrant in QUADRANTS),
)


def draw(job: Job) -> None:
    if algorithm(job) == "sft":
        states.empty(
            "No rollouts to compare", "Supervised fine-tuning imitates the expert; its surprise is in the overview."
        )
    elif not waiting(job):
        draw_live(job, _panel)


def _gap(of: dict[str, Series]) -> None:
    lines = [
        Curve("correct", of["expert/gap_correct"], CORRECT, raw=False),
        Curve("wrong", of["expert/gap_wrong"], WRONG, dash="dash", raw=False),
        Curve("all", of["expert/gap_mean"], EXPERT),
    ]
    live_chart.card(
        "Gap to the expert",
        "Log-probability of the rollout's token minus that of the expert's token there. Correct should rise above "
        "wrong; many nats above 0 everywhere means an expert too far from the policy to guide it.",
        figures.curves(lines, unit="nats a token", zero_line=True, value_format=".2f"),
        key="gap",
    )


def _nll(of: dict[str, Series]) -> None:
    lines = [Curve("of the step's prompts", of["expert/nll"], EXPERT)]
    live_chart.card(
        "Expert negative log-likelihood",
        "How surprised the policy is by the expert's tokens. Falling: it comes nearer to the expert; rising: it "
        "leaves the expert behind.",
        figures.curves(lines, unit="nats a token"),
        key="expert-nll",
    )


def _probe_nll(of: dict[str, Series]) -> None:
    live_chart.card(
        "Surprise at held-out experts",
        "The same over experts that are the same at every step.",
        figures.curves([Curve("held-out probe", of["expert/probe_nll"], HELD_OUT, sparse=True)], unit="nats a token"),
        key="probe-nll",
    )


def _probe_gap(of: dict[str, Series]) -> None:
    lines = [Curve("held-out probe", of["expert/probe_gap"], HELD_OUT, sparse=True)]
    live_chart.card(
        "Distance to held-out experts",
        "Log-probability of the policy's own completions less that of the experts, each a token. 0: the expert could "
        "be one of its own; a rise: they part.",
        figures.curves(lines, unit="nats a token", zero_line=True),
        key="probe-gap",
    )


def _damped(of: dict[str, Series]) -> None:
    lines = [
        Curve("damped", of["expert/damped_share"], NEUTRAL),
        Curve("against the policy gradient", of["expert/opposing_share"], WRONG),
    ]
    live_chart.card(
        "Tokens damped, and opposed",
        "Damped: pushed at negative_slope only; near 1 that slope decides how strong guidance is. Opposed: advantage "
        "and outcome differ in sign.",
        figures.curves(lines, unit="share of tokens with a gap", share="of_all"),
        key="damped",
    )


def _gradients(of: dict[str, Series]) -> None:
    lines = [
        Curve("policy", of["loss/policy_grad_norm"], POLICY, sparse=True),
        Curve("guidance", of["loss/guidance_grad_norm"], EXPERT, sparse=True),
    ]
    live_chart.card(
        "Gradient norms, each alone",
        "Measured now and then, with a mark each. Guidance times guidance_coef is its share of the update.",
        figures.curves(lines, unit="2-norm"),
        key="expert-gradients",
    )


def _agreement(of: dict[str, Series]) -> None:
    lines = [
        Curve("cosine", of["loss/guidance_cosine"], EXPERT, sparse=True),
        Curve("share of opposed elements", of["loss/guidance_opposing_share"], WRONG, dash="dot", sparse=True),
    ]
    live_chart.card(
        "Do the two gradients agree?",
        "Cosine near 1: guidance only lengthens the step; lower: it teaches something of its own; below 0: they "
        "fight. Half of the elements opposed is no relation at all.",
        figures.curves(lines, unit="cosine, share", zero_line=True),
        key="expert-agreement",
    )


def _losses(of: dict[str, Series]) -> None:
    lines = [Curve("policy", of["loss/policy"], POLICY), Curve("guidance", of["loss/guidance"], EXPERT)]
    live_chart.card(
        "Policy loss against guidance loss",
        "Guidance is shown before guidance_coef. Falling: the policy does what the expert's calibration asks for.",
        figures.curves(lines, unit="loss", zero_line=True, value_format=".4f"),
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
        figures.stacked(parts, unit="share of tokens", shares=True),
        key="quadrants",
    )


def _legend(job: Job) -> None:
    rows = "".join(
        f'<div style="display:flex;gap:0.7rem;margin:0.55rem 0;font-size:.92rem">'
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
        {"all": "expert/gap", "correct": "expert/gap_correct", "wrong": "expert/gap_wrong"},
        title="Distribution of the gap",
        hint="Stronger colour: more tokens. Above 0 the policy is surer of its own token than of the expert's.",
        colour=EXPERT,
        unit="nats a token",
    )


def _furthest(job: Job) -> None:
    """The sampled groups with the largest gaps of late, as links."""
    kept = live.samples(job.id, job.attempt)
    with states.tolerated():
        kept.refresh()
    places = [
        (step, number, summary)
        for step, groups in list(kept.by_step().items())[:RECENT_STEPS]
        for number, summary in enumerate(groups, 1)
        if summary.gap is not None
    ]
    furthest = sorted(places, key=lambda place: -(place[2].gap or 0.0))[:FURTHEST]
    rows = (
        f"<tr><td>{group_link(job.id, step, number, summary.prompt_id)}</td>"
        f'<td data-label="Step">{step}</td><td data-label="Gap">{summary.gap:+.2f}</td>'
        f'<td data-label="Correct">{summary.passed} of {summary.size}</td></tr>'
        for step, number, summary in furthest
    )
    with st.container(border=True, key="card-furthest"):
        hint = f"Among the groups kept of the last {RECENT_STEPS} sampled steps. Open one and read expert and policy."
        st.html(heading("Prompts furthest from their expert", hint))
        if furthest:
            st.html(table(("Prompt", "Step", "Mean gap (nats)", "Correct"), rows))
        else:
            st.caption("No group with an expert was kept yet.")


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
            lambda: _damped(of),
            lambda: _nll(of),
            lambda: _probe_nll(of),
            lambda: _probe_gap(of),
            lambda: _losses(of),
            lambda: _gradients(of),
            lambda: _agreement(of),
        ]
    )
    _furthest(job)
