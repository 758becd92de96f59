"""What the panels share: reading metrics at a tick, and laying charts out."""

from collections.abc import Callable, Sequence
from contextlib import suppress

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job
from dashboard import states
from dashboard.charts import figures, live_chart
from dashboard.charts.series import Series
from dashboard.reads import data, live

NEWEST = "newest"  # in place of a step: the last one that was sampled, whichever that is


def draw_live(job: Job, draw: Callable[[Job], None]) -> None:
    """Draw now, and again at every tick until the job ends, for as long as the viewer may see the job."""
    st.fragment(_drawn, run_every=None if job.status.final else data.TICK)(job, draw)


def _drawn(job: Job, draw: Callable[[Job], None]) -> None:
    with suppress(CalibrlError):  # no answer: the header says so
        states.reread(job)
    with states.explained("trouble-panel"):
        draw(job)


def read(job: Job, names: Sequence[str]) -> dict[str, Series]:
    """Curves of these metrics, with what is new."""
    history = live.history(job.id, job.attempt, tuple(names))
    with states.tolerated():
        history.refresh()
    return {name: history.series(name) for name in names}


def nothing(job: Job, of: dict[str, Series]) -> bool:
    """Whether a job ended without having measured any of these; says so in that case."""
    if job.status.final and not any(map(len, of.values())):
        states.empty("Nothing was measured", "The job ended before its first step. Its log and events say more.")
        return True
    return False


def grid(cards: Sequence[Callable[[], None]]) -> None:
    """Cards in two columns, which a phone shows as one."""
    with st.grid(2, min_column_width=400):
        for card in cards:
            card()


def heat(job: Job, names: dict[str, str], *, title: str, hint: str, colour: str, unit: str) -> None:
    """A card with a histogram's history: of all, or by outcome. `names`: the histogram of each choice."""
    key = "-".join(["heat", *next(iter(names.values())).split("/")])
    with st.container(height="stretch", gap="small"):
        chosen = st.segmented_control(
            f"{title}: of", list(names), default=next(iter(names)), required=True, key=f"{key}-of",
            format_func=str.capitalize, label_visibility="collapsed",
        )  # fmt: skip
        history = live.histogram(job.id, job.attempt, names[chosen or next(iter(names))])
        with states.tolerated():
            history.refresh()
        columns = history.columns()
        figure = figures.heat_map(columns, colour=colour, unit=unit) if len(columns) else figures.NOTHING
        live_chart.card(title, hint, figure, key=key)


def waiting(job: Job) -> bool:
    """Whether nothing can have been measured yet; says so in that case."""
    if job.attempt == 0 and not job.status.final:
        states.empty("Not started yet", "Curves appear here as soon as the job's first step is done.")
        return True
    return False


def algorithm(job: Job) -> str:
    """The job's algorithm by its type, such as calibrl; evaluations have none."""
    return str((job.spec.get("algorithm") or {}).get("type", ""))
