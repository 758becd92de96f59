"""Prompts of a run: lists of those that do not learn, and each visit of one, in this run and in others."""

import re
from urllib.parse import quote

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job, PromptLife, PromptList, PromptRun, PromptVisits, Visit
from dashboard import states
from dashboard.markup import chip, escape, heading, job_link, sparkline, table
from dashboard.palette import CORRECT, EXPERT, NEUTRAL
from dashboard.panels.common import live_panel
from dashboard.panels.panel import Panel
from dashboard.reads import service

LISTS: dict[str, PromptList] = {
    "All": "all",
    "Only the expert solves it": "only_expert",
    "Solved, then lost": "lost",
    "Never moved": "never_moved",
}
HINTS: dict[PromptList, str] = {
    "all": "A visit is a step that learned from a group of the prompt. It is solved if a rollout is correct.",
    "only_expert": "Visited twice or more, never solved, and there is an expert: sampling alone does not get there.",
    "lost": "Solved at an earlier visit, and not at the last one: forgetting.",
    "never_moved": "Always the same share of correct rollouts: too hard, too easy, or a wrong answer in the data.",
}
TITLES = ("Prompt", "Share correct", "First", "Last", "Solved visits", "Steps", "Entropy")
VISIT_TITLES = ("Step", "Correct", "Entropy (nats)", "Gap (nats)", "|A|")
RUN_TITLES = ("Run", "Visits", "Solved visits", "First", "Last")
MAX_SHOWN = 200
DIGEST = re.compile(r"[0-9a-f]{16}")


def _row(job: Job, one: PromptLife) -> str:
    link = f"job?id={job.id}&panel=Prompts&prompt={quote(one.prompt)}"
    expert = f" {chip('expert', EXPERT)}" if one.expert else ""
    known = [value for value in one.entropies if value is not None]
    curve = sparkline(one.shares, CORRECT, f"share of correct rollouts of {one.prompt_id}", top=1.0)
    return (
        f'<tr><td><a href="{escape(link)}" target="_self">{escape(one.prompt_id)}</a>{expert}</td><td>{curve}</td>'
        f'<td data-label="First">{one.shares[0]:.0%}</td><td data-label="Last">{one.shares[-1]:.0%}</td>'
        f'<td data-label="Solved visits">{one.solved} of {one.visits}</td>'
        f'<td data-label="Steps">{one.first_step}–{one.last_step}</td>'
        f'<td data-label="Entropy">{f"{known[-1]:.2f}" if known else "–"}</td></tr>'
    )


def _list(job: Job) -> None:
    chosen = st.segmented_control(
        "Prompts", list(LISTS), default="All", required=True, key="prompts", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    which = LISTS[chosen or "All"]
    page = service.prompts(job.id, which, MAX_SHOWN)
    counts = page.counts.model_dump()
    if not counts["all"]:
        states.empty("No visits yet", "Each step adds the prompts that it learned from.")
        return
    st.caption(f"{counts[which]:,} of {counts['all']:,} prompts. {HINTS[which]}")
    if page.data:
        st.html(table(TITLES, [_row(job, one) for one in page.data]))
    if page.has_more:
        st.caption(f"First {MAX_SHOWN}. `calibrl prompts` lists more.")


def _visit_row(job: Job, visit: Visit, sampled: bool) -> str:
    step = str(visit.step)
    if sampled:
        step = f'<a href="job?id={job.id}&panel=Rollouts&step={step}" target="_self">{step}</a>'
    numbers = ("–" if value is None else f"{value:.3f}" for value in (visit.entropy, visit.gap, visit.rareness))
    cells = "".join(
        f'<td data-label="{escape(title)}">{value}</td>' for title, value in zip(VISIT_TITLES[2:], numbers, strict=True)
    )
    return (
        f'<tr><td data-label="Step">{step}</td><td data-label="Correct">{visit.passed} of {visit.size}</td>{cells}</tr>'
    )


def _run_row(run: PromptRun) -> str:
    return (
        f'<tr><td>{job_link(run.job_id, run.name)}</td><td data-label="Visits">{run.visits}</td>'
        f'<td data-label="Solved visits">{run.solved}</td><td data-label="First">{run.first_share:.0%}</td>'
        f'<td data-label="Last">{run.last_share:.0%}</td></tr>'
    )


def _one(job: Job, prompt: PromptVisits) -> None:
    with st.container(border=True, key="card-prompt-life"):
        expert = chip("expert", EXPERT) if prompt.expert else chip("no expert", NEUTRAL)
        st.html(heading(prompt.prompt_id, "Each visit of this prompt in this run") + expert)
        every = (job.spec.get("samples") or {}).get("every_steps") or 0
        sampled = {1, job.steps_total} | {visit.step for visit in prompt.visits if every and visit.step % every == 0}
        st.html(table(VISIT_TITLES, [_visit_row(job, visit, visit.step in sampled) for visit in prompt.visits]))
    with st.container(border=True, key="card-prompt-runs"):
        st.html(heading("Other runs", "Newest runs that visited a prompt of equal text, images and answer"))
        if prompt.runs:
            st.html(table(RUN_TITLES, map(_run_row, prompt.runs)))
        else:
            st.caption("No other run has visited this prompt.")


def _panel(job: Job) -> None:
    digest = st.query_params.get("prompt", "")
    if not DIGEST.fullmatch(digest):
        _list(job)
        return
    st.html(f'<a href="job?id={job.id}&panel=Prompts" target="_self" style="color:inherit">All prompts</a>')
    try:
        prompt = service.prompt(job.id, digest)
    except CalibrlError as error:
        states.trouble(error, "trouble-prompt")
        return
    _one(job, prompt)


draw = live_panel(_panel)


PANELS = (Panel("Prompts", draw, 60, of_rollouts=True),)
