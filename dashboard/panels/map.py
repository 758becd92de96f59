"""Map of prompts: each sampled group is a point, entropy against rareness weight; a click opens it."""

from typing import Any

import streamlit as st

from calibrl.schemas import Job, SampleSummary
from dashboard import states
from dashboard.charts import figures, live_chart
from dashboard.charts.figures import Dot
from dashboard.markup import group_link, table
from dashboard.panels.common import LATEST, live_panel, show_if_no_sample
from dashboard.panels.panel import Panel
from dashboard.reads import live

MOST_OTHERS = 600  # groups of other steps: the latest ones
INTRODUCTION = (
    "Each point is one sampled prompt with its group of completions. Prompts at the top still teach the policy, "
    "because their rewards differ. Prompts at the bottom have equal rewards: they are solved, or the policy always "
    "fails."
)
TITLES = ("Prompt", "Correct", "Mean reward", "Entropy (nats/token)", "Mean |A|")
Steps = dict[int, list[SampleSummary]]


def _panel(job: Job) -> None:
    if opened := st.session_state.pop("opened", None):
        st.query_params.update(step=str(opened[0]), group=str(opened[1]))
        st.rerun()  # shows the group's panel: a click on the map runs only this one
    samples = live.samples(job.id, job.attempt)
    with states.tolerated():
        samples.refresh()
    steps = samples.by_step()
    if show_if_no_sample(job, steps):
        return
    st.caption(INTRODUCTION)
    step = _choose(steps)
    _map(job, steps, step)
    _list(job, steps, step)


def _choose(steps: Steps) -> int:
    if len(steps) == 1:
        return next(iter(steps))
    chosen = st.select_slider("Step", [*map(str, reversed(steps)), LATEST], value=LATEST, key="map_step")
    return next(iter(steps)) if chosen == LATEST else int(chosen)


def _dots(steps: Steps, step: int) -> list[Dot]:
    return [
        Dot(
            entropy=summary.entropy,
            rareness=summary.rareness,
            reward=summary.mean_reward,
            text=f"step {step}, {summary.prompt_id}: {summary.passed} of {summary.size} correct",
            opens=[step, number],
        )
        for number, summary in enumerate(steps[step], 1)
        if summary.entropy is not None and summary.rareness is not None and summary.mean_reward is not None
    ]


def _range(job: Job, steps: Steps) -> tuple[float, float]:
    """Return the range of rewards that the spec allows, wider if a group is outside, so that colours stay the same."""
    highest = sum(reward.get("weight", 1.0) for reward in job.spec.get("rewards", []))
    rewards = [group.mean_reward for groups in steps.values() for group in groups if group.mean_reward is not None]
    return min([0.0, *rewards]), max([highest or 1.0, *rewards])


def _map(job: Job, steps: Steps, step: int) -> None:
    low, high = _range(job, steps)
    others = [dot for other in steps if other != step for dot in _dots(steps, other)][:MOST_OTHERS]
    shown = _dots(steps, step)
    live_chart.card(
        f"Prompt map, step {step}",
        "x: entropy. y: mean |A|, the learning signal. Colour: mean reward. Bottom left in orange: confidently wrong. "
        "Faint: other steps. Click a point to open the group.",
        figures.dots(shown, others, low=low, high=high),
        key="map",
        on_pick=_open,
    )


def _open(group: Any) -> None:
    """Open a picked group (step and number within the step) in the panel Rollouts."""
    if group:
        st.session_state.update(panel="Rollouts", opened=group)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _list(job: Job, steps: Steps, step: int) -> None:
    """The same groups as a table, for keyboards and screen readers."""
    rows = (
        f"<tr><td>{group_link(job.id, step, number, summary.prompt_id)}</td>"
        f'<td data-label="Correct">{summary.passed} of {summary.size}</td>'
        f'<td data-label="Mean reward">{_number(summary.mean_reward)}</td>'
        f'<td data-label="Entropy (nats/token)">{_number(summary.entropy)}</td>'
        f'<td data-label="Mean |A|">{_number(summary.rareness)}</td></tr>'
        for number, summary in enumerate(steps[step], 1)
    )
    st.html(table(TITLES, rows))


draw = live_panel(_panel)


PANELS = (Panel("Map", draw, 40, of_rollouts=True),)
