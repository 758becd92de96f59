"""Several jobs to choose, in an address that can be shared: ?jobs=ID,ID."""

from collections.abc import Callable, Sequence
from uuid import UUID

import streamlit as st

from calibrl.schemas import Job, JobSummary
from dashboard.reads import data

MOST = 8  # at once: as many as there are colours that can be told apart


def _asked() -> list[Job]:
    """The jobs that the address names."""
    found = []
    for text in st.query_params.get("jobs", "").split(","):
        try:
            found.append(UUID(text))
        except ValueError:
            continue
    return [data.job(str(id)) for id in dict.fromkeys(found)][:MOST]


def several(
    title: str,
    newest: Sequence[JobSummary],
    *,
    key: str,
    placeholder: str,
    fits: Callable[[Job], bool] = lambda _: True,
) -> list[Job]:
    """Those of the address that fit at first, and then what is chosen among them and the newest, which the address
    follows."""
    asked = [job for job in _asked() if fits(job)]
    offered: dict[UUID, str] = {job.id: job.name for job in [*newest, *asked]}
    st.session_state.setdefault(key, [job.id for job in asked])
    ids: list[UUID] = st.multiselect(
        title,
        list(offered),
        format_func=lambda id: f"{offered[id]} ({str(id)[:8]})",
        max_selections=MOST,
        placeholder=placeholder,
        key=key,
    )
    st.query_params["jobs"] = ",".join(map(str, ids))
    return [data.job(str(id)) for id in ids]
