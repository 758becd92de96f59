"""Evaluations: the list, a comparison, and re-scoring of stored completions."""

import streamlit as st

from calibrl.schemas import JobStatus, JobSummary
from dashboard import addresses, paging, states
from dashboard.forms import job_picker
from dashboard.forms.job_picker import Wanted
from dashboard.markup import escape, job_link, moment, status_chip, table
from dashboard.reads import catalogue
from dashboard.views import evaluation_table, verifier_replay

ALL = "all"
PAGES = "evaluations-before"  # key of the list's pages
LIST, COMPARE, REPLAY = "List", "Compare", "Re-score"
TITLES = ("Evaluation", "Status", "Project", "Accuracy", "Dataset", "Submitted")


def _row(job: JobSummary) -> str:
    accuracy, split = catalogue.accuracies(job)
    return (
        f"<tr><td>{job_link(job.id, job.name)}</td><td>{status_chip(job.status)}</td>"
        f'<td data-label="Project">{escape(job.project)}</td><td data-label="Accuracy">{accuracy}</td>'
        f'<td data-label="Dataset">{escape(split)}</td>'
        f'<td data-label="Submitted">{escape(moment(job.created_at))}</td></tr>'
    )


def _first_page() -> None:
    paging.reset(PAGES)


def _list() -> None:
    text, project, status = st.columns([2, 1, 1])
    words = text.text_input("Search", placeholder="Search name or notes", key="evaluations-text", on_change=_first_page)
    chosen = project.selectbox(
        "Project", [ALL, *catalogue.projects()], key="evaluations-project", on_change=_first_page
    )
    state = status.selectbox("Status", [ALL, *JobStatus], key="evaluations-status", on_change=_first_page)
    shown = catalogue.evaluations(
        None if chosen == ALL else chosen,
        None if state == ALL else JobStatus(state),
        words.strip(),
        paging.after(PAGES),
    )
    if shown.data:
        st.html(table(TITLES, map(_row, shown.data)))
    elif words or chosen != ALL or state != ALL:
        states.empty("No evaluations match", "Change the search or the filters.")
    else:
        states.empty("No evaluations yet", "An evaluation measures models on datasets and compares them.")
    paging.buttons(PAGES, shown)


def _compare() -> None:
    jobs = job_picker.pick_jobs("Evaluations", Wanted("evaluate", status=JobStatus.SUCCEEDED), key="compared")
    if not jobs:
        states.empty(
            "Select evaluations",
            "Two or more, or one with several models. Models are compared on the same prompts of each dataset.",
        )
        return
    evaluation_table.draw(jobs)


def page() -> None:
    """Draw the page."""
    title, action = st.columns([3, 1], vertical_alignment="center")
    title.title("Evaluations", anchor=False)
    with action, st.container(horizontal=True, horizontal_alignment="right"):
        if catalogue.own_projects() and st.button("New evaluation", icon=":material/add:"):
            st.switch_page("app_pages/new_job.py", query_params={"kind": "Evaluation"})
    addresses.check("view", [LIST, COMPARE, REPLAY], LIST)
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
