"""Selection of jobs: of the latest ones, or of any that a name, ID or link finds."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job, JobKind, JobStatus, JobSummary
from dashboard.markup import as_markdown
from dashboard.reads import catalogue, service

MAX_JOBS = 50
MAX_FOUND = 20  # jobs that a search shows
JOB_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
BY_TEXT = "Select, or type a name, ID or link"


@dataclass(frozen=True)
class Wanted:
    """The jobs that can be selected. `fields`: of their specs, that the selected ones have."""

    kind: JobKind | None = None
    project: str | None = None
    status: JobStatus | None = None
    fields: tuple[str, ...] = ()

    def latest(self) -> list[JobSummary]:
        """Return the latest of these jobs."""
        return catalogue.latest(self.project, self.kind, self.status)

    def find(self, text: str) -> list[JobSummary]:
        """Return those of these jobs, however old, that a text finds: in the name or the notes, or as the beginning of
        the ID. A text with a whole ID, such as a link, finds this job only.
        """
        if whole := JOB_ID.search(text):
            job = readable(UUID(whole[0]))
            return [job] if job is not None and self._fits(job) else []
        query = {"kind": self.kind, "project": self.project, "status": self.status}
        given = {name: value for name, value in query.items() if value is not None}
        return service.jobs(**given, q=text.strip(), limit=MAX_FOUND).data if text.strip() else []

    def named(self, ids: Sequence[UUID]) -> list[JobSummary]:
        """Return those of these jobs that have one of the IDs, in their order, with `fields` of their specs."""
        return [job for job in service.jobs_of(ids, self.fields) if self._fits(job)]

    def _fits(self, job: JobSummary) -> bool:
        wanted = ((self.kind, job.kind), (self.project, job.project), (self.status, job.status))
        return all(want is None or want == has for want, has in wanted)


def readable(id: UUID) -> Job | None:
    """Return a job, or None if it does not exist or the viewer has no access."""
    try:
        return service.job(str(id))
    except CalibrlError as error:
        if error.status not in (403, 404):
            raise
        return None


def job_label(job: JobSummary) -> str:
    """Return the name of a job with the beginning of its ID."""
    return f"{job.name} ({str(job.id)[:8]})"


def _take(key: str, wanted: Wanted) -> None:
    """Replace a typed text in the selection by the only job that it finds; keep several, for the reader to choose."""
    ids = [id for id in st.session_state[key] if isinstance(id, UUID)]
    st.session_state[f"{key}-notes"] = []
    st.session_state.pop(f"{key}-found", None)
    for text in (text for text in st.session_state[key] if isinstance(text, str)):
        try:
            found = wanted.find(text)
        except CalibrlError as error:
            st.session_state[f"{key}-notes"] = [str(error)]
            continue
        _offer(key, found)
        if len(found) == 1:
            ids.append(found[0].id)
        else:
            st.session_state[f"{key}-found"] = (text, [job.id for job in found])
    st.session_state[key] = list(dict.fromkeys(ids))[:MAX_JOBS]


def _offer(key: str, jobs: Sequence[JobSummary]) -> dict[UUID, str]:
    """Add jobs to the options of a selection. Return all options."""
    options: dict[UUID, str] = st.session_state.setdefault(f"{key}-options", {})
    options |= {job.id: job_label(job) for job in jobs}
    return options


def _add(key: str) -> None:
    """Add the job that was chosen among those that a text found."""
    chosen: UUID | None = st.session_state.pop(f"{key}-match", None)
    if chosen and chosen not in st.session_state[key]:
        st.session_state[key] = [*st.session_state[key], chosen][:MAX_JOBS]
    st.session_state.pop(f"{key}-found", None)


def _begin(key: str, wanted: Wanted) -> None:
    """Select the jobs that the URL names, and note those that are left out."""
    texts = [text for text in st.query_params.get("jobs", "").split(",") if text]
    jobs = wanted.named([UUID(text) for text in dict.fromkeys(texts) if JOB_ID.fullmatch(text)])
    notes = []
    if lost := len(set(texts)) - len(jobs):
        notes.append(f"{lost} of {len(set(texts))} jobs in the URL do not exist, do not fit, or you have no access.")
    if len(jobs) > MAX_JOBS:
        notes.append(f"First {MAX_JOBS} of {len(jobs)} jobs: more cannot be distinguished.")
    _offer(key, jobs)
    st.session_state.update({key: [job.id for job in jobs[:MAX_JOBS]], f"{key}-notes": notes})


def pick_jobs(title: str, wanted: Wanted, *, key: str) -> list[JobSummary]:
    """Draw a selection of jobs and return the selected ones. The URL (?jobs=ID,ID) names the initial selection and
    follows it.
    """
    if key not in st.session_state:
        _begin(key, wanted)
    options = _offer(key, wanted.latest())
    st.multiselect(
        title,
        list(options),
        format_func=lambda id: options.get(id, str(id)),
        max_selections=MAX_JOBS,
        placeholder=BY_TEXT,
        accept_new_options=True,
        key=key,
        on_change=_take,
        args=(key, wanted),
    )
    if found := st.session_state.get(f"{key}-found"):
        text, matches = found
        st.caption(as_markdown(f"{len(matches) or 'No'} jobs match {text}"))
        if matches:
            st.pills(
                "Jobs that match", matches, format_func=options.__getitem__, key=f"{key}-match", on_change=_add,
                args=(key,), label_visibility="collapsed",
            )  # fmt: skip
    for note in st.session_state.get(f"{key}-notes", ()):
        st.warning(as_markdown(note))
    jobs = wanted.named(st.session_state[key])
    st.query_params["jobs"] = ",".join(str(job.id) for job in jobs)
    return jobs
