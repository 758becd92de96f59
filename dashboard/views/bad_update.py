"""A bisection: the first bad update with its groups, the probes by step, and changes for a fork before it."""

from collections.abc import Iterator
from functools import partial
from uuid import UUID

import streamlit as st
import yaml

from calibrl.schemas import Bisection, GroupGradient, Job, ProbedPolicy, SpecChange
from calibrl_core.health import RULES
from dashboard.markup import chip, escape, heading, job_link, table
from dashboard.palette import CORRECT, NEUTRAL, WRONG
from dashboard.reads import service
from dashboard.views.completions import plain_box
from dashboard.views.new_job_page import submit_and_open

TITLES = {rule.name: rule.title for rule in RULES}
MEASURES = {
    "accuracy": "Accuracy",
    "entropy": "Entropy (nats per token)",
    "length": "Length (tokens)",
    "truncated": "Truncated completions (share)",
}
HINT = (
    "Each policy answers the same validation prompts with the same random numbers. Worse: the 95 % interval of the "
    "difference from the reference excludes 0; of entropy, length and truncation at least half of the change too."
)


def draw(job: Job, result: Bisection) -> None:
    """Draw the result of a bisection."""
    training = UUID(job.spec["kept"][0]["from_job"])
    st.html(
        f"{escape(TITLES[result.rule])} fired at step {result.fired_step} of {job_link(training, 'the training')}. "
        f"Probe: {result.samples} completions of each of {result.prompts:,} validation prompts."
    )
    with st.container(border=True, key="card-finding"):
        st.html(heading("Where it went wrong", "The first step after which the probe is worse.") + _finding(result))
    if result.update is not None:
        for number, group in enumerate(result.update.groups):
            with st.container(border=True, key=f"card-group-{number}"):
                st.html(_group(group))
    with st.container(border=True, key="card-probes"):
        titles = ("After step", MEASURES[result.measure], "Difference", "95 % interval", "Verdict")
        rows = (_probe(probe, titles, result.reference_step) for probe in sorted(result.probes, key=_by_step))
        st.html(heading("Probes", HINT) + table(titles, rows))
    _forks(job, result, training)


def _by_step(probe: ProbedPolicy) -> tuple[int, bool]:
    return probe.step, probe.replayed


def _finding(result: Bisection) -> str:
    if result.first_bad is None:
        return "No checkpoint is worse than the reference by more than the noise of the probe."
    between = f"between step {result.last_good} and step {result.first_bad}"
    if result.update is None:
        return f"It went wrong {between}. The steps were taken again, and did not repeat it."
    update = result.update
    norm = "not finite" if update.gradient_norm is None else f"{update.gradient_norm:.4g}"
    groups = " The groups with the largest gradients follow." if update.groups else ""
    return (
        f"<b>Step {update.step}</b> is the first bad update: gradient norm {norm} before clipping, learning rate "
        f"{update.learning_rate:.3g}. It is {between}, two kept checkpoints.{groups}"
    )


def _group(group: GroupGradient) -> str:
    chips = (
        chip(f"gradient norm {group.gradient_norm:.4g}", WRONG),
        chip(f"{group.passed} of {group.rollouts} passed", CORRECT if group.passed else NEUTRAL),
        chip(f"mean reward {group.reward:.3f}", NEUTRAL),
        chip(group.prompt_id, NEUTRAL),
    )
    about = f"Rollout with the largest advantage ({group.advantage:+.2f}):"
    return f"<div>{' '.join(chips)}</div>{plain_box(group.prompt)}<div>{about}</div>{plain_box(group.completion)}"


def _probe(probe: ProbedPolicy, titles: tuple[str, ...], reference: int) -> str:
    is_reference = probe.step == reference and not probe.replayed
    verdict = "reference" if is_reference else chip("✕ worse", WRONG) if probe.worse else chip("✓ not worse", CORRECT)
    cells = (
        f"{probe.step:,}{' (taken again)' if probe.replayed else ''}",
        f"{probe.value:.3f}",
        "–" if is_reference else f"{probe.difference:+.3f}",
        "–" if is_reference else f"{probe.low:+.3f} to {probe.high:+.3f}",
        verdict,
    )
    return f"<tr>{''.join(_cells(titles, cells))}</tr>"


def _cells(titles: tuple[str, ...], values: tuple[str, ...]) -> Iterator[str]:
    for title, value in zip(titles, values, strict=True):
        yield f'<td data-label="{escape(title)}">{value}</td>'


def _forks(job: Job, result: Bisection, training: UUID) -> None:
    with st.container(border=True, key="card-forks"):
        hint = "Each starts a new job with one change, from the last good checkpoint."
        st.html(heading(f"Fork from step {result.last_good}", hint))
        for number, change in enumerate(result.changes):
            text, button = st.columns([4, 1], vertical_alignment="center")
            with text:
                st.text(change.reason)
                st.code(yaml.safe_dump(change.changes, default_flow_style=True).strip(), language="yaml")
            with button:
                allowed = service.me().may_change(job.project)
                if allowed and st.button("Fork", icon=":material/fork_right:", key=f"fork-{number}"):
                    submit_and_open(partial(_fork, training, result.last_good, change))


def _fork(training: UUID, step: int, change: SpecChange) -> Job:
    return service.client().fork(training, checkpoint=step, changes=change.changes)
