"""A training's stored completions, scored again with other verifiers: which verdicts flip?"""

from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Replay, ReplayRequest, Rescored
from dashboard import states
from dashboard.forms.schema import Schema
from dashboard.forms.schema_form import Form
from dashboard.markup import chip, escape, table
from dashboard.palette import CORRECT, NEUTRAL, WRONG
from dashboard.reads import catalogue, data

SCHEMA = Schema(ReplayRequest.model_json_schema())
START = {"rewards": [{"type": "numeric"}]}
COMMON = ("weight", "relative_tolerance", "absolute_tolerance", "ignore_case")  # what verdicts depend on
SHOWN = 200  # completions that are listed
TITLES = ("Completion", "Verdict", "Reward", "By verifier")


def draw() -> None:
    """Choose a training and verifiers, score, and see what changed."""
    st.caption(
        "Would another verifier have said the same? The completions that a training has kept are scored again; "
        "nothing of the job changes."
    )
    trainings = {job.id: f"{job.name} ({str(job.id)[:8]})" for job in catalogue.newest(None, "train")}
    if not trainings:
        states.empty("No training yet", "Once one has kept some of its completions, they can be scored again here.")
        return
    job_id: UUID = st.selectbox("Training job", list(trainings), format_func=trainings.__getitem__, key="replay-job")
    form = Form(SCHEMA, START, key="replay", offered={}, named={}, common=COMMON)
    form.fields("rewards", "first_step", "last_step", "limit")
    if st.button("Score again", type="primary", icon=":material/replay:", disabled=bool(form.missing)):
        _score(job_id, form)
    kept: tuple[UUID, Replay] | None = st.session_state.get("replayed")
    if kept and kept[0] == job_id:
        _found(kept[1])


def _score(job_id: UUID, form: Form) -> None:
    st.session_state.pop("replayed", None)
    asked = form.value
    try:
        with st.spinner("Scoring: a minute at most …"):
            found = data.client().replay(
                job_id,
                asked["rewards"],
                first_step=asked["first_step"],
                last_step=asked["last_step"],
                limit=asked["limit"],
            )
    except CalibrlError as error:
        form.blame(error.errors)
        states.trouble(error)
        return
    st.session_state["replayed"] = (job_id, found)


def _found(found: Replay) -> None:
    with st.grid(4, min_column_width=150):
        st.metric("Scored", f"{found.scored:,} of {found.completions:,}", border=True, height="stretch")
        change = found.passed_after - found.passed_before
        st.metric(
            "Passed", f"{found.passed_after:,}", delta=f"{change:+,}", delta_color="off", border=True, height="stretch"
        )
        st.metric("Pass now and did not", f"{found.now_passed:,}", border=True, height="stretch")
        st.metric("Passed and do not now", f"{found.now_failed:,}", border=True, height="stretch")
    if found.stopped:
        st.caption("Not all were scored:")
        st.text(found.stopped)
    if not found.completions:
        states.empty("Nothing was kept", "The job has no stored completions of these steps.")
    elif not found.data:
        states.empty("No verdict flips", f"The verifiers agree on all {found.scored:,} completions.")
    else:
        st.html(table(TITLES, [_row(found.job_id, one) for one in found.data[:SHOWN]]))
    if len(found.data) > SHOWN:
        st.caption(f"The first {SHOWN} of {len(found.data):,} are shown; `calibrl replay` lists all.")


def _mark(passed: bool) -> str:
    return chip("✓ correct", CORRECT) if passed else chip("✕ wrong", WRONG)


def _row(job_id: UUID, one: Rescored) -> str:
    where = f"job?id={job_id}&panel=Rollouts&step={one.step}"
    before = "–" if one.reward_before is None else f"{one.reward_before:.2f}"
    verdicts = " ".join(chip(f"{name} {value:g}", NEUTRAL) for name, value in one.by_verifier.items())
    failure = f'<div style="font-size:.85rem">No verdict: {escape(one.failure)}</div>' if one.failure else ""
    return (
        f'<tr><td><a href="{where}" target="_self">step {one.step}</a>, {escape(one.prompt_id)}, '
        f"no. {one.completion + 1}</td><td>{_mark(one.passed_before)} → {_mark(one.passed_after)}</td>"
        f'<td data-label="Reward">{before} → {one.reward_after:.2f}</td><td>{verdicts}{failure}</td></tr>'
    )
