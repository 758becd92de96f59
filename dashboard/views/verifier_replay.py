"""Re-scoring of a training job's stored completions with other verifiers."""

from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Replay, ReplayRequest, Rescored
from dashboard import states
from dashboard.forms.schema import Schema
from dashboard.forms.schema_form import SpecForm
from dashboard.markup import chip, escape, sparkline, table
from dashboard.palette import CORRECT, NEUTRAL, POLICY, WRONG
from dashboard.reads import catalogue, service

SCHEMA = Schema(ReplayRequest.model_json_schema())
START = {"rewards": [{"type": "numeric"}]}
COMMON = ("weight", "relative_tolerance", "absolute_tolerance", "ignore_case")  # unfolded fields
MAX_SHOWN = 200  # completions
TITLES = ("Completion", "Result", "Reward", "Verifier scores")


def draw() -> None:
    """Draw the form, re-score on request, and show what changed."""
    st.caption(
        "Score the stored completions of a training job with other verifiers and see which results change. The job "
        "itself does not change."
    )
    trainings = {job.id: f"{job.name} ({str(job.id)[:8]})" for job in catalogue.latest(None, "train")}
    if not trainings:
        states.empty("No training jobs yet", "Stored completions of a training job can be re-scored here.")
        return
    job_id: UUID = st.selectbox("Training job", list(trainings), format_func=trainings.__getitem__, key="replay-job")
    form = SpecForm(SCHEMA, START, key="replay", offered={}, named={}, common=COMMON)
    form.fields("rewards", "first_step", "last_step", "limit")
    form.blame(form.errors)
    if st.button("Re-score", type="primary", icon=":material/replay:", disabled=bool(form.errors)):
        _score(job_id, form)
    last: tuple[UUID, Replay] | None = st.session_state.get("replayed")
    if last and last[0] == job_id:
        _results(last[1])


def _score(job_id: UUID, form: SpecForm) -> None:
    st.session_state.pop("replayed", None)
    request = form.value
    try:
        with st.spinner("Scoring, up to one minute…"):
            replay = service.client().replay(
                job_id,
                request["rewards"],
                first_step=request["first_step"],
                last_step=request["last_step"],
                limit=request["limit"],
            )
    except CalibrlError as error:
        form.blame(error.errors)
        states.trouble(error)
        return
    st.session_state["replayed"] = (job_id, replay)


def _results(replay: Replay) -> None:
    with st.grid(4, min_column_width=150):
        st.metric("Scored", f"{replay.scored:,} of {replay.completions:,}", border=True, height="stretch")
        change = replay.passed_after - replay.passed_before
        st.metric(
            "Passed", f"{replay.passed_after:,}", delta=f"{change:+,}", delta_color="off", border=True, height="stretch"
        )
        st.metric("Newly passing", f"{replay.now_passed:,}", border=True, height="stretch")
        st.metric("Newly failing", f"{replay.now_failed:,}", border=True, height="stretch")
    if replay.stopped:
        st.caption("Not all completions were scored:")
        st.text(replay.stopped)
    _curves(replay)
    if not replay.data:
        states.empty("No changes", f"Same result for all {replay.scored:,} completions.")
    else:
        st.html(table(TITLES, [_row(replay.job_id, completion) for completion in replay.data[:MAX_SHOWN]]))
    if len(replay.data) > MAX_SHOWN:
        st.caption(f"First {MAX_SHOWN} of {len(replay.data):,} completions. `calibrl replay` lists all.")


def _curves(replay: Replay) -> None:
    """Draw the share of passed completions by step, in the run and scored again."""
    if len(replay.by_step) < 2:
        return
    before = [one.passed_before / one.scored for one in replay.by_step]
    after = [one.passed_after / one.scored for one in replay.by_step]
    curves = "".join(
        f"<tr><td>{escape(title)}</td><td>{sparkline(values, colour, title, top=1.0)}</td>"
        f'<td data-label="First step">{values[0]:.0%}</td><td data-label="Last step">{values[-1]:.0%}</td></tr>'
        for title, values, colour in (("In the run", before, NEUTRAL), ("Scored again", after, POLICY))
    )
    steps = f"Step {replay.by_step[0].step}", f"Step {replay.by_step[-1].step}"
    st.html(table(("Share of passed completions", "By step", *steps), [curves]))


def _mark(passed: bool) -> str:
    return chip("✓ correct", CORRECT) if passed else chip("✕ wrong", WRONG)


def _row(job_id: UUID, completion: Rescored) -> str:
    change = f"{_mark(completion.passed_before)} → {_mark(completion.passed_after)}"
    where = f"job?id={job_id}&panel=Rollouts&step={completion.step}"
    before = "–" if completion.reward_before is None else f"{completion.reward_before:.2f}"
    scores = " ".join(chip(f"{name} {value:g}", NEUTRAL) for name, value in completion.by_verifier.items())
    failure = (
        f'<div style="font-size:.85rem">No score: {escape(completion.failure)}</div>' if completion.failure else ""
    )
    return (
        f'<tr><td><a href="{where}" target="_self">step {completion.step}</a>, {escape(completion.prompt_id)}, '
        f"no. {completion.completion + 1}</td><td>{change}</td>"
        f'<td data-label="Reward">{before} → {completion.reward_after:.2f}</td><td>{scores}{failure}</td></tr>'
    )
