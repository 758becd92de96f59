"""Verdicts of people on completions: two buttons per completion, and the error rates of the verifiers."""

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import CompletionToJudge, Job, Picked, Rate, Trust
from dashboard import states
from dashboard.markup import chip, escape
from dashboard.palette import CORRECT, WRONG
from dashboard.reads import service
from dashboard.views import completions

NEXT = "to-judge"  # in the session: the completion that the service picked, by job


def buttons(job: Job, sample_id: int, completion: int, picked: Picked = "chosen") -> None:
    """Draw the verdicts on a completion, and two buttons for the viewer's own."""
    given = [one for one in service.verdicts(job.id, sample_id) if one.completion == completion]
    key = f"{picked}-{sample_id}-{completion}"
    with st.container(horizontal=True, vertical_alignment="center", key=f"verdict-{key}"):
        if service.me().may_change(job.project):
            for label, right in (("Right", True), ("Wrong", False)):
                icon = ":material/thumb_up:" if right else ":material/thumb_down:"
                if st.button(label, icon=icon, key=f"{label}-{key}", help="Your verdict. Rewards do not change."):
                    _give(job, sample_id, completion, right, picked)
        st.html("".join(_chip(one.user, one.right) for one in given) or "<span></span>")


def _chip(user: str, right: bool) -> str:
    return chip(f"{user}: {'right' if right else 'wrong'}", CORRECT if right else WRONG) + " "


def _give(job: Job, sample_id: int, completion: int, right: bool, picked: Picked) -> None:
    try:
        service.client().put_verdict(job.id, sample_id, completion, right=right, picked=picked)
    except CalibrlError as error:
        st.text(str(error))
        return
    st.session_state.pop(NEXT, None)
    service.clear_verdicts()
    st.rerun()


def trust(job: Job) -> None:
    """Draw the error rates of the verifiers, and a random completion to judge."""
    with st.expander("Verifier trust", icon=":material/fact_check:", on_change="rerun", key="trust") as shown:
        if not shown.open:
            return
        with states.tolerated():
            _rates(service.trust(job.id))
            _next(job)


def _rates(trust: Trust) -> None:
    st.caption(
        "How often the verifiers err on the stored completions, by the verdicts of people on random ones, with 95 % "
        "intervals. `calibrl trust` lists all verdicts that differ."
    )
    accuracy = "–" if trust.accuracy is None else f"{trust.accuracy:.1%}"
    with st.grid(4, min_column_width=150):
        st.metric("Accuracy by the verifiers", accuracy, border=True, height="stretch")
        for title, rate in {
            "Passed, but wrong": trust.false_passes,
            "Failed, but right": trust.false_failures,
            "Corrected accuracy": trust.corrected,
        }.items():
            st.metric(title, *_shown(rate), delta_color="off", delta_arrow="off", border=True, height="stretch")


def _shown(rate: Rate | None) -> tuple[str, str]:
    if rate is None:
        return "–", "no verdicts yet"
    return f"{rate.value:.1%}", f"{rate.low:.1%} to {rate.high:.1%}, {rate.count} verdicts"


def _next(job: Job) -> None:
    if not service.me().may_change(job.project):
        return
    if st.button("Judge a random completion", icon=":material/casino:", key="judge-next"):
        st.session_state[NEXT] = (job.id, service.client().next_to_judge(job.id))
    picked = st.session_state.get(NEXT)
    if picked and picked[0] == job.id:
        one: CompletionToJudge = picked[1]
        with st.container(border=True, key="card-to-judge"):
            st.html(f"<b>Step {one.step}, {escape(one.prompt_id)}</b>")
            for title, text in (("Prompt", one.prompt), ("Reference answer", one.answer), ("Completion", one.text)):
                st.caption(title)
                st.html(completions.plain_box(text))
            buttons(job, one.sample_id, one.completion, "random")
