"""Which prompts still divide the policy: each sampled group as a point, entropy against rareness; a click opens it."""

from typing import Any

import streamlit as st

from calibrl.schemas import Job, SampleSummary
from dashboard import states
from dashboard.charts import figures, live_chart
from dashboard.charts.figures import Dot
from dashboard.markup import group_link, table
from dashboard.panels.common import NEWEST, algorithm, draw_live, waiting
from dashboard.reads import live

MOST_OTHERS = 600  # groups of other steps, the newest ones
TITLES = ("Prompt", "Correct", "Mean reward", "Entropy", "|A|")
Steps = dict[int, list[SampleSummary]]


def draw(job: Job) -> None:
    if algorithm(job) == "sft":
        states.empty("No map", "Supervised fine-tuning samples nothing while it trains.")
    elif not waiting(job):
        draw_live(job, _panel)


def _panel(job: Job) -> None:
    if opened := st.session_state.pop("opened", None):
        st.query_params.update(step=str(opened[0]), group=str(opened[1]))
        st.rerun()  # with the group's panel: a click on the map runs only this one
    kept = live.samples(job.id, job.attempt)
    with states.tolerated():
        kept.refresh()
    steps = kept.by_step()
    if not steps:
        states.empty("No group yet", "Some groups are kept whole every few steps; the first comes with the first step.")
        return
    step = _choose(steps)
    _map(job, steps, step)
    _list(job, steps, step)


def _choose(steps: Steps) -> int:
    if len(steps) == 1:
        return next(iter(steps))
    chosen = st.select_slider("Step", [*map(str, reversed(steps)), NEWEST], value=NEWEST, key="map_step")
    return next(iter(steps)) if chosen == NEWEST else int(chosen)


def _dots(steps: Steps, step: int) -> list[Dot]:
    return [
        Dot(
            entropy=summary.entropy,
            rareness=summary.rareness,
            reward=summary.mean_reward,
            words=f"step {step}, {summary.prompt_id}: {summary.passed} of {summary.size} correct",
            opens=[step, number],
        )
        for number, summary in enumerate(steps[step], 1)
        if summary.entropy is not None and summary.rareness is not None and summary.mean_reward is not None
    ]


def _range(job: Job, steps: Steps) -> tuple[float, float]:
    """The rewards that the run can give, by its spec: the same colours at every step; wider where some are outside."""
    most = sum(reward.get("weight", 1.0) for reward in job.spec.get("rewards", []))
    given = [each.mean_reward for groups in steps.values() for each in groups if each.mean_reward is not None]
    return min([0.0, *given]), max([most or 1.0, *given])


def _map(job: Job, steps: Steps, step: int) -> None:
    low, high = _range(job, steps)
    others = [dot for other in steps if other != step for dot in _dots(steps, other)][:MOST_OTHERS]
    shown = _dots(steps, step)
    live_chart.card(
        f"Groups of step {step}",
        "To the right: undecided. Upward: outcomes differ, so the group teaches. Low and to the left it is certain; "
        "low, left and without reward it is certainly wrong. Faint: other steps. A click opens the group.",
        figures.dots(shown, others, low=low, high=high),
        key="map",
        on_pick=_open,
    )


def _open(picked: Any) -> None:
    """Show a group in its panel, at its own address: its step, and its place in that."""
    if picked:
        st.session_state.update(panel="Rollouts", opened=picked)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _list(job: Job, steps: Steps, step: int) -> None:
    """The same groups in words, which a keyboard reaches."""
    rows = (
        f"<tr><td>{group_link(job.id, step, number, summary.prompt_id)}</td>"
        f'<td data-label="Correct">{summary.passed} of {summary.size}</td>'
        f'<td data-label="Mean reward">{_number(summary.mean_reward)}</td>'
        f'<td data-label="Entropy">{_number(summary.entropy)}</td>'
        f'<td data-label="|A|">{_number(summary.rareness)}</td></tr>'
        for number, summary in enumerate(steps[step], 1)
    )
    st.html(table(TITLES, rows))
