"""Studies: the list, and one study: /studies?id=ID."""

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Study, StudyStatus, StudySummary
from dashboard import paging, states
from dashboard.markup import chip, duration, escape, moment, progress_bar, status_chip, table
from dashboard.palette import NEUTRAL, POLICY
from dashboard.reads import catalogue, service
from dashboard.views import study_report

ALL = "all"
PAGES = "studies-before"  # key of the list's pages
TITLES = ("Study", "Status", "Project", "User", "Jobs", "Slot-hours", "Time left", "Posted")
NO_STUDY = (404, 422)  # statuses of a study that does not exist, and of an id that is none


def _row(study: StudySummary) -> str:
    link = f'<a href="studies?id={study.id}" target="_self" style="color:inherit;font-weight:600">'
    return (
        f"<tr><td>{link}{escape(study.name)}</a></td><td>{status_chip(study.status)}</td>"
        f'<td data-label="Project">{escape(study.project)}</td><td data-label="User">{escape(study.user)}</td>'
        f'<td data-label="Jobs">{_jobs(study)}</td><td data-label="Slot-hours">{study.progress.slot_hours:.2f}</td>'
        f'<td data-label="Time left">{_time_left(study)}</td>'
        f'<td data-label="Posted">{escape(moment(study.created_at))}</td></tr>'
    )


def _jobs(study: StudySummary) -> str:
    progress = study.progress
    ended = progress.succeeded + progress.failed
    bar = progress_bar(ended / max(1, progress.planned), POLICY, f"progress of {study.name}")
    failed = f", {progress.failed} failed" if progress.failed else ""
    return f'{bar}<span style="font-size:.8rem">{ended} of {progress.planned} ended{failed}</span>'


def _time_left(study: StudySummary) -> str:
    if study.status is not StudyStatus.RUNNING:
        return "–"
    left = study.progress.seconds_left
    return "unknown" if left is None else f"about {duration(left)}"


def _first_page() -> None:
    paging.reset(PAGES)


def _list() -> None:
    st.title("Studies", anchor=False)
    chosen = st.selectbox("Project", [ALL, *catalogue.projects()], key="studies-project", on_change=_first_page)
    shown = catalogue.studies(None if chosen == ALL else chosen, paging.after(PAGES))
    if shown.data:
        st.html(table(TITLES, map(_row, shown.data)))
    else:
        states.empty(
            "No studies yet",
            "A study compares arms with the same seeds on the same prompts. Describe it in a file and post it: "
            "calibrl study run FILE",
        )
    paging.buttons(PAGES, shown)


def _facts(study: Study) -> str:
    progress = study.progress
    counts = f"{progress.running} running, {progress.waiting} waiting"
    facts = [f"project {study.project}", f"posted {moment(study.created_at)} by {study.user}", counts]
    facts.append(f"{progress.slot_hours:.2f} slot-hours")
    if study.status is StudyStatus.RUNNING:
        facts.append(f"time left: {_time_left(study)}")
    chips = "".join(chip(fact, NEUTRAL) for fact in facts)
    return f'<div style="display:flex;flex-wrap:wrap;gap:.35rem">{status_chip(study.status)}{chips}</div>'


def _cancel(study: Study) -> None:
    with st.popover("Cancel", icon=":material/cancel:"):
        st.write("Cancels the open jobs that the study submitted. Jobs of other studies go on.")
        if st.button("Cancel study", type="primary"):
            try:
                service.client().cancel_study(study.id)
            except CalibrlError as error:
                st.text(error.detail or str(error))
                return
            catalogue.clear_study_caches()
            st.rerun()


def _live(id: str, shown_status: StudyStatus) -> None:
    """Draw the progress and the report. The page runs again when the status changes."""
    with states.explained("trouble-live"), states.tolerated():
        study = catalogue.study(id)
        if study.status is not shown_status:
            st.rerun()
        st.html(_facts(study) + f'<div style="margin-top:.6rem">{_jobs(study)}</div>')
        for note in [study.message, *study.progress.notes]:
            if note:
                st.text(note)
        with st.spinner("Comparing prompt by prompt…"):
            report = catalogue.study_report(study)
        study_report.draw(study, report)


def _detail(id: str) -> None:
    st.html('<a href="studies" target="_self" style="color:inherit">← All studies</a>')
    try:
        study = catalogue.study(id)
    except CalibrlError as error:
        if error.status not in NO_STUDY:
            raise
        states.empty("Study not found", "It was removed, or you have no access to its project.")
        return
    title, action = st.columns([3, 2], vertical_alignment="center")
    title.html(f'<h1 style="overflow-wrap:anywhere;padding:0">{escape(study.name)}</h1>')
    with action, st.container(horizontal=True, horizontal_alignment="right"):
        if study.status is StudyStatus.RUNNING and service.me().may_change(study.project):
            _cancel(study)
    st.fragment(_live, run_every=None if study.status.final else service.IDLE_TICK)(id, study.status)


def page() -> None:
    """Draw the page."""
    if "id" in st.query_params:
        _detail(st.query_params["id"])
    else:
        _list()


with states.explained():
    page()
