"""What there is to choose among and to begin with: projects, evaluations, data sets, and plans of jobs to come.

As in `data.py`, a read is shared for a moment by those who ask with the same key.
"""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Comparison, Dataset, Evaluation, JobPlan, JobStatus, JobSummary, Page, PreviewRow
from dashboard import signin
from dashboard.reads import data
from dashboard.reads.data import FRESH

OFFERED = 100  # newest jobs to choose among
PAGE = 25  # evaluations, or data sets, shown at once


def projects() -> list[str]:
    """The projects that the viewer sees, by name."""
    return _projects(signin.key())


@st.cache_resource(ttl=30.0, max_entries=256, show_spinner=False)
def _projects(key: str) -> list[str]:
    return [project.slug for project in data.client().projects()]


def own_projects() -> list[str]:
    """Those in which the viewer may submit jobs and upload data."""
    me = data.me()
    return [slug for slug in projects() if me.may_change(slug)]


def plan(spec: Mapping[str, Any]) -> JobPlan:
    """What would become of a spec. Raises CalibrlError, which names the fields at fault."""
    return _plan(signin.key(), json.dumps(spec))


@st.cache_resource(ttl=10.0, max_entries=64, show_spinner=False)
def _plan(key: str, spec: str) -> JobPlan:
    return data.client().plan(json.loads(spec))


def newest(project: str | None, kind: str | None, status: JobStatus | None = None) -> list[JobSummary]:
    """The newest jobs, of one project or of all that the viewer sees."""
    return _newest(signin.key(), project, kind, status)


@st.cache_resource(ttl=FRESH * 4, max_entries=64, show_spinner=False)
def _newest(key: str, project: str | None, kind: str | None, status: JobStatus | None) -> list[JobSummary]:
    return data.client().jobs(project=project, kind=kind, status=status, limit=OFFERED).data


def evaluations(project: str | None, status: JobStatus | None, text: str, after: UUID | None) -> Page[JobSummary]:
    """A page of the viewer's evaluations, newest first."""
    return _evaluations(signin.key(), project, status, text, after)


@st.cache_resource(ttl=FRESH, max_entries=64, show_spinner=False)
def _evaluations(
    key: str, project: str | None, status: JobStatus | None, text: str, after: UUID | None
) -> Page[JobSummary]:
    return data.client().jobs(kind="evaluate", project=project, status=status, q=text or None, after=after, limit=PAGE)


def evaluation(job_id: UUID) -> Evaluation:
    """What an evaluation that has succeeded found, if the viewer may see it. It never changes."""
    return _evaluation(signin.key(), job_id)


def tried(job_id: UUID) -> Evaluation | CalibrlError:
    """What an evaluation found, or why that can't be read: the others beside it are shown all the same."""
    try:
        return evaluation(job_id)
    except CalibrlError as error:
        if error.status == 401:  # none of the others can be read either
            raise
        return error


def reached(job: JobSummary) -> tuple[str, str]:
    """For a row: the accuracies of an evaluation's models on its first data set, and that one's name with the number of
    others; dashes where there are no such figures."""
    found = tried(job.id) if job.status is JobStatus.SUCCEEDED else None
    if not isinstance(found, Evaluation) or not found.results:
        return "–", "–"
    first, *others = dict.fromkeys(result.split for result in found.results)
    measured = [result.metrics.get("accuracy") for result in found.results if result.split == first]
    shares = [f"{one.value:.0%}" for one in measured if one is not None and one.value is not None]
    return " → ".join(shares) or "–", f"{first} and {len(others)} more" if others else first


@st.cache_resource(max_entries=500, show_spinner=False)
def _evaluation(key: str, job_id: UUID) -> Evaluation:
    return data.client().evaluation(job_id)


def comparison(ids: tuple[UUID, ...]) -> list[Comparison]:
    """How the models of these evaluations compare, by data set. Raises CalibrlError (409) where they can't be."""
    return _comparison(signin.key(), ids)


@st.cache_resource(ttl=600.0, max_entries=64, show_spinner=False)
def _comparison(key: str, ids: tuple[UUID, ...]) -> list[Comparison]:
    return data.client().compare_evaluations(*ids)


def datasets(project: str | None, after: UUID | None = None, limit: int = OFFERED) -> Page[Dataset]:
    """A page of the viewer's data sets, newest first."""
    return _datasets(signin.key(), project, after, limit)


@st.cache_resource(ttl=FRESH, max_entries=64, show_spinner=False)
def _datasets(key: str, project: str | None, after: UUID | None, limit: int) -> Page[Dataset]:
    return data.client().datasets(project, after=after, limit=limit)


def preview(dataset_id: UUID) -> list[PreviewRow]:
    """The first rows of an uploaded file, if the viewer may see them."""
    return _preview(signin.key(), dataset_id)


@st.cache_resource(ttl=60.0, max_entries=32, show_spinner=False)
def _preview(key: str, dataset_id: UUID) -> list[PreviewRow]:
    return data.client().preview(dataset_id)


def changed() -> None:
    """Read data sets anew: somebody here has just added one, or deleted one."""
    _datasets.clear()
