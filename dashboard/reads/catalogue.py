"""Cached reads of projects, evaluations, datasets and plans.

As in `service.py`, reads are cached for a moment per API key.
"""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import (
    AttemptRecord,
    Audit,
    Bisection,
    Comparison,
    DataReport,
    Dataset,
    Evaluation,
    JobPlan,
    JobStatus,
    JobSummary,
    Page,
    PreviewRow,
    SeriesComparison,
    Study,
    StudyReport,
    StudySummary,
    WhatIf,
)
from dashboard import signin
from dashboard.reads import service
from dashboard.reads.service import FRESH

MAX_OPTIONS = 100  # latest jobs, or datasets, to select from
PAGE = 25  # evaluations, or datasets, per page


def projects() -> list[str]:
    """Return the slugs of the viewer's projects."""
    return _projects(signin.key())


@st.cache_resource(ttl=30.0, max_entries=256, show_spinner=False)
def _projects(key: str) -> list[str]:
    return [project.slug for project in service.client().projects()]


def forget_access() -> None:
    """Read projects and roles again: a viewer has just changed them."""
    _projects.clear()
    service.forget_me()


def own_projects() -> list[str]:
    """Return the projects in which the viewer can submit jobs and upload data."""
    me = service.me()
    return [slug for slug in projects() if me.may_change(slug)]


def administered() -> list[str]:
    """Return the projects that the viewer's key can administer."""
    return [slug for slug in projects() if service.me().may_administer(slug)]


def may_administer() -> bool:
    """Return true if the viewer's key can administer the service or a project."""
    me = service.me()
    return (me.admin and me.scope == "write") or any(map(me.may_administer, me.projects))


def plan(spec: Mapping[str, Any]) -> JobPlan:
    """Return the plan of a spec.

    Raises:
        CalibrlError: the spec is invalid; `errors` names the fields.
    """
    return _plan(signin.key(), json.dumps(spec))


@st.cache_resource(ttl=10.0, max_entries=64, show_spinner=False)
def _plan(key: str, spec: str) -> JobPlan:
    return service.client().plan(json.loads(spec))


def latest(project: str | None, kind: str | None, status: JobStatus | None = None) -> list[JobSummary]:
    """Return the latest jobs of one project, or of all projects of the viewer."""
    return _latest(signin.key(), project, kind, status)


@st.cache_resource(ttl=FRESH * 4, max_entries=64, show_spinner=False)
def _latest(key: str, project: str | None, kind: str | None, status: JobStatus | None) -> list[JobSummary]:
    return service.client().jobs(project=project, kind=kind, status=status, limit=MAX_OPTIONS).data


def evaluations(project: str | None, status: JobStatus | None, text: str, after: UUID | None) -> Page[JobSummary]:
    """Return a page of the viewer's evaluations, newest first."""
    return _evaluations(signin.key(), project, status, text, after)


@st.cache_resource(ttl=FRESH, max_entries=64, show_spinner=False)
def _evaluations(
    key: str, project: str | None, status: JobStatus | None, text: str, after: UUID | None
) -> Page[JobSummary]:
    return service.client().jobs(
        kind="evaluate", project=project, status=status, q=text or None, after=after, limit=PAGE
    )


def evaluation(job_id: UUID) -> Evaluation:
    """Return the results of a succeeded evaluation; they never change."""
    return _evaluation(signin.key(), job_id)


def try_read(job_id: UUID) -> Evaluation | CalibrlError:
    """Return the results of an evaluation, or the error, so that others are still shown."""
    try:
        return evaluation(job_id)
    except CalibrlError as error:
        if error.status == 401:  # no other one can be read either
            raise
        return error


def accuracies(job: JobSummary) -> tuple[str, str]:
    """Return the accuracies of an evaluation's models on its first dataset, and the name of that dataset.

    The name has the number of further datasets. Both are dashes if there are no results.
    """
    evaluation = try_read(job.id) if job.status is JobStatus.SUCCEEDED else None
    if not isinstance(evaluation, Evaluation) or not evaluation.results:
        return "–", "–"
    first, *others = dict.fromkeys(result.split for result in evaluation.results)
    measured = [result.metrics.get("accuracy") for result in evaluation.results if result.split == first]
    values = [f"{metric.value:.0%}" for metric in measured if metric is not None and metric.value is not None]
    models = f" ({len(values)} models)" if len(values) > 1 else ""
    return " / ".join(values) + models or "–", f"{first} and {len(others)} more" if others else first


@st.cache_resource(max_entries=500, show_spinner=False)
def _evaluation(key: str, job_id: UUID) -> Evaluation:
    return service.client().evaluation(job_id)


def expert_audit(job_id: UUID) -> Audit:
    """Return the result of a succeeded audit of experts; it never changes."""
    return _expert_audit(signin.key(), job_id)


@st.cache_resource(max_entries=100, show_spinner=False)
def _expert_audit(key: str, job_id: UUID) -> Audit:
    return service.client().expert_audit(job_id)


def what_if(job_id: UUID) -> WhatIf:
    """Return the result of a succeeded what-if; it never changes."""
    return _what_if(signin.key(), job_id)


@st.cache_resource(max_entries=100, show_spinner=False)
def _what_if(key: str, job_id: UUID) -> WhatIf:
    return service.client().what_if_result(job_id)


def bisection(job_id: UUID) -> Bisection:
    """Return the result of a succeeded bisection; it never changes."""
    return _bisection(signin.key(), job_id)


@st.cache_resource(max_entries=100, show_spinner=False)
def _bisection(key: str, job_id: UUID) -> Bisection:
    return service.client().bisection(job_id)


def comparison(ids: tuple[UUID, ...]) -> list[Comparison]:
    """Return the paired differences of the models of these evaluations, by dataset.

    Raises:
        CalibrlError: status 409 if they cannot be compared.
    """
    return _comparison(signin.key(), ids)


@st.cache_resource(ttl=600.0, max_entries=64, show_spinner=False)
def _comparison(key: str, ids: tuple[UUID, ...]) -> list[Comparison]:
    return service.client().compare_evaluations(*ids)


def studies(project: str | None, after: UUID | None) -> Page[StudySummary]:
    """Return a page of the viewer's studies, newest first."""
    return _studies(signin.key(), project, after)


@st.cache_resource(ttl=FRESH, max_entries=64, show_spinner=False)
def _studies(key: str, project: str | None, after: UUID | None) -> Page[StudySummary]:
    return service.client().studies(project=project, after=after, limit=PAGE)


def study(id: str) -> Study:
    """Return the current state of a study, if the viewer has access."""
    return _study(signin.key(), id)


@st.cache_resource(ttl=FRESH, max_entries=64, show_spinner=False)
def _study(key: str, id: str) -> Study:
    return service.client().study(id)


def study_report(study: Study) -> StudyReport:
    """Return the report of a study. It is read again when a job has ended, or after a while for the curves."""
    progress = study.progress
    return _study_report(signin.key(), study.id, json.dumps(study.spec), progress.succeeded, progress.failed)


@st.cache_resource(ttl=30.0, max_entries=32, show_spinner=False)
def _study_report(key: str, id: UUID, spec: str, succeeded: int, failed: int) -> StudyReport:
    return service.client().study_report(id)


def clear_study_caches() -> None:
    """Read studies again: a viewer has just changed one."""
    _studies.clear()
    _study.clear()


def attempts(job_id: UUID) -> list[AttemptRecord]:
    """Return the attempts of a job, each with what it ran on."""
    return _attempts(signin.key(), job_id)


@st.cache_resource(ttl=10.0, max_entries=64, show_spinner=False)
def _attempts(key: str, job_id: UUID) -> list[AttemptRecord]:
    return service.client().attempts(job_id)


def attempt_times(job: JobSummary) -> list[AttemptRecord]:
    """Return the attempts of a job, read once per status: their times change with it, and stay if the API is away."""
    return _attempt_times(signin.key(), job.id, job.attempt, job.status)


@st.cache_resource(max_entries=512, show_spinner=False)
def _attempt_times(key: str, job_id: UUID, attempt: int, status: JobStatus) -> list[AttemptRecord]:
    return service.client().attempts(job_id)


def series_comparison(job_id: UUID) -> SeriesComparison:
    """Return the comparison of a job with the one that it runs again."""
    return _series_comparison(signin.key(), job_id)


@st.cache_resource(ttl=10.0, max_entries=16, show_spinner=False)
def _series_comparison(key: str, job_id: UUID) -> SeriesComparison:
    return service.client().compare_series(job_id)


def datasets(project: str | None, after: UUID | None = None, limit: int = MAX_OPTIONS) -> Page[Dataset]:
    """Return a page of the viewer's datasets, newest first."""
    return _datasets(signin.key(), project, after, limit)


@st.cache_resource(ttl=FRESH, max_entries=64, show_spinner=False)
def _datasets(key: str, project: str | None, after: UUID | None, limit: int) -> Page[Dataset]:
    return service.client().datasets(project, after=after, limit=limit)


def find_datasets(project: str, text: str) -> list[Dataset]:
    """Return the datasets of a project that have a text in their name or as the beginning of their ID, or whose ID is
    in the text, such as a link."""

    def fits(dataset: Dataset) -> bool:
        id = str(dataset.id)
        return text.casefold() in dataset.name.casefold() or id.startswith(text) or id in text

    found: list[Dataset] = []
    page = datasets(project)
    while True:
        found += filter(fits, page.data)
        if not page.has_more or len(found) >= MAX_OPTIONS:
            return found
        page = datasets(project, page.data[-1].id)


def preview(dataset_id: UUID) -> list[PreviewRow]:
    """Return the first rows of an uploaded file."""
    return _preview(signin.key(), dataset_id)


@st.cache_resource(ttl=60.0, max_entries=32, show_spinner=False)
def _preview(key: str, dataset_id: UUID) -> list[PreviewRow]:
    return service.client().preview(dataset_id)


def report(dataset_id: UUID, options: Mapping[str, Any]) -> DataReport:
    """Return the data report of an uploaded file. `options`: as of the client."""
    return _report(signin.key(), dataset_id, json.dumps(options, default=str))


@st.cache_resource(ttl=600.0, max_entries=32, show_spinner=False)
def _report(key: str, dataset_id: UUID, options: str) -> DataReport:
    return service.client().dataset_report(dataset_id, **json.loads(options))


def clear_dataset_caches() -> None:
    """Read datasets again: a viewer has just added or deleted one."""
    _datasets.clear()
