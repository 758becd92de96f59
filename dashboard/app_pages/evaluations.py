"""Evaluations: the list, several beside one another, and stored completions scored again."""

import streamlit as st

from calibrl.schemas import Job, JobStatus, JobSummary
from dashboard import paging, states
from dashboard.forms import job_picker
from dashboard.markup import escape, job_link, moment, status_chip, table
from dashboard.reads import catalogue
from dashboard.views import evaluation_table, verifier_replay

ALL = "all"
BEFORE = "evaluations-before"  # the list's pages
LIST, COMPARE, REPLAY = "List", "Compare", "Score again"
TITLES = ("Evaluation", "Status", "Project", "Accuracy", "On", "Submitted")


def _row(job: JobSummary) -> str:
    accuracy, split = catalogue.reached(job)
    return (
        f"<tr><td>{job_link(job.id, job.name)}</td><td>{status_chip(job.status)}</td>"
        f'<td data-label="Project">{escape(job.project)}</td><td data-label="Accuracy">{accuracy}</td>'
        f'<td data-label="On">{escape(split)}</td>'
        f'<td data-label="Submitted">{escape(moment(job.created_at))}</td></tr>'
    )


def _first_page() -> None:
    paging.begin(BEFORE)


def _list() -> None:
    text, project, status = st.columns([2, 1, 1])
    words = text.text_input("Find", placeholder="Part of a name or note", key="evaluations-text", on_change=_first_page)
    chosen = project.selectbox(
        "Project", [ALL, *catalogue.projects()], key="evaluations-project", on_change=_first_page
    )
    state = status.selectbox("Status", [ALL, *JobStatus], key="evaluations-status", on_change=_first_page)
    shown = catalogue.evaluations(
        None if chosen == ALL else chosen,
        None if state == ALL else JobStatus(state),
        words.strip(),
        paging.after(BEFORE),
    )
    if shown.data:
        st.html(table(TITLES, map(_row, shown.data)))
    elif words or chosen != ALL or state != ALL:
        states.empty("None like that", "Loosen what you look for to see the others.")
    else:
        states.empty("No evaluation yet", "An evaluation measures models on data sets, so that they can be compared.")
    paging.buttons(BEFORE, shown)


def _has_succeeded(job: Job) -> bool:
    return job.kind == "evaluate" and job.status is JobStatus.SUCCEEDED


def _compare() -> None:
    jobs = job_picker.several(
        "Evaluations",
        catalogue.newest(None, "evaluate", JobStatus.SUCCEEDED),
        key="compared",
        placeholder="Choose two or more",
        fits=_has_succeeded,
    )
    if not jobs:
        states.empty(
            "Choose evaluations",
            "Two or more, or one with several models. Models are compared over the same prompts, data set by data set.",
        )
        return
    evaluation_table.side_by_side(jobs)


def page() -> None:
    title, action = st.columns([3, 1], vertical_alignment="center")
    title.title("Evaluations", anchor=False)
    with action, st.container(horizontal=True, horizontal_alignment="right"):
        if catalogue.own_projects() and st.button("New evaluation", icon=":material/add:"):
            st.switch_page("app_pages/new_job.py", query_params={"kind": "Evaluation"})
    view = st.segmented_control(
        "View",
        [LIST, COMPARE, REPLAY],
        default=LIST,
        required=True,
        key="view",
        bind="query-params",
        label_visibility="collapsed",
    )
    {LIST: _list, COMPARE: _compare, REPLAY: verifier_replay.draw}[view or LIST]()


with states.explained():
    page()
