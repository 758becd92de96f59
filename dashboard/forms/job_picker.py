"""Selection of several jobs, kept in the URL: ?jobs=ID,ID."""

from collections.abc import Callable, Sequence
from uuid import UUID

import streamlit as st

from calibrl.schemas import Job, JobSummary
from dashboard.reads import service

MAX_JOBS = 8  # as many as there are distinguishable colours


def _jobs_in_url() -> list[Job]:
    ids = []
    for text in st.query_params.get("jobs", "").split(","):
        try:
            ids.append(UUID(text))
        except ValueError:
            continue
    return [service.job(str(id)) for id in dict.fromkeys(ids)][:MAX_JOBS]


def pick_jobs(
    title: str,
    latest: Sequence[JobSummary],
    *,
    key: str,
    placeholder: str,
    fits: Callable[[Job], bool] = lambda _: True,
) -> list[Job]:
    """Draw a selection of jobs and return the selected ones. The URL names the initial selection and follows it.

    The options are the jobs in the URL that fit, and `latest`.
    """
    initial = [job for job in _jobs_in_url() if fits(job)]
    names: dict[UUID, str] = {job.id: job.name for job in [*latest, *initial]}
    st.session_state.setdefault(key, [job.id for job in initial])
    ids: list[UUID] = st.multiselect(
        title,
        list(names),
        format_func=lambda id: f"{names[id]} ({str(id)[:8]})",
        max_selections=MAX_JOBS,
        placeholder=placeholder,
        key=key,
    )
    st.query_params["jobs"] = ",".join(map(str, ids))
    return [service.job(str(id)) for id in ids]
