"""Shared by the panels: reading metrics at each tick, and drawing cards."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job, find_algorithm
from dashboard import states
from dashboard.charts import figures, live_chart
from dashboard.charts.cards import Card, Curves, HeatCard, StackCard, metrics_of
from dashboard.markup import as_markdown, heading
from dashboard.reads import live, service
from dashboard.views import alerts, chart_look

LATEST = "Latest"  # in place of a step: the last sampled step
PanelCard = Card | StackCard | HeatCard | Callable[[Job], None]


def draw_live(job: Job, draw: Callable[[Job], None]) -> None:
    """Draw a panel now and at every tick until the job ends, while the viewer is allowed to see the job."""
    st.fragment(_draw_once, run_every=None if job.status.final else service.TICK)(job, draw)


def _draw_once(job: Job, draw: Callable[[Job], None]) -> None:
    warned: AbstractContextManager[None] = nullcontext()
    try:
        states.reread(job)
    except CalibrlError:
        warned = states.warned_above()  # the header reports an API that does not answer
    with warned, states.explained("trouble-panel"):
        draw(job)


def live_panel(draw_started: Callable[[Job], None]) -> Callable[[Job], None]:
    """Return the function that draws a panel live, or a notice while the job has not started."""

    def draw(job: Job) -> None:
        if not show_if_not_started(job):
            draw_live(job, draw_started)

    return draw


def chart_panel(cards: Sequence[PanelCard]) -> Callable[[Job], None]:
    """Return the function that draws a panel of these cards, with live curves."""

    def draw_panel(job: Job) -> None:
        curves = read(job, metrics_of(cards))
        if not show_if_empty(job, curves):
            draw_cards(job, cards, curves)

    return live_panel(draw_panel)


def read(job: Job, metrics: Sequence[str]) -> Curves:
    """Return the curves of these metrics over the steps, with the latest points."""
    more = chart_look.TOKENS if chart_look.axis() == "tokens" else ()
    history = live.history(job.id, job.attempt, tuple(dict.fromkeys((*metrics, *more))))
    with states.tolerated():
        history.refresh()
    return history.curves()


def draw_cards(job: Job, cards: Sequence[PanelCard], curves: Curves) -> None:
    """Draw cards in two columns, one column on a phone, on the x axis that the reader has chosen. Cards without data
    take no place once the job has ended.

    `curves`: of `read`.
    """
    drawn = chart_look.on_axis(job, live.history(job.id, job.attempt, tuple(curves)))
    empty = live_chart.NOT_REPORTED if job.status.final else live_chart.NO_DATA
    events = live.events(job.id)
    with states.tolerated():
        events.refresh()
    look = chart_look.current()
    marks = alerts.marks(events.events) if chart_look.axis() == "step" else ()
    absent: list[str] = []
    with st.grid(2, min_column_width=400):
        for card in cards:
            if isinstance(card, Card | StackCard):
                figure = card.figure(drawn, marks, look)
                if job.status.final and not figure.data:
                    absent.append(card.title)
                else:
                    live_chart.card(card.title, card.text, figure, key=card.key, empty=empty)
            elif isinstance(card, HeatCard):
                heat_map_card(job, card, empty)
            else:
                card(job)
    if absent:
        st.caption(f"{live_chart.NOT_REPORTED}: {', '.join(map(as_markdown, absent))}")


def heat_map_card(job: Job, card: HeatCard, empty: str) -> None:
    """Draw the history of a histogram, with a choice of the outcome. `empty`: the text if there is no data."""
    with st.container(border=True, height="stretch", key=f"card-{card.key}"):
        st.html(heading(card.title, card.hint))
        names = list(card.histograms)
        outcome = st.segmented_control(
            f"{card.title}: of", names, default=names[0], required=True, key=f"{card.key}-of",
            format_func=str.capitalize, label_visibility="collapsed",
        )  # fmt: skip
        history = live.histogram(job.id, job.attempt, card.histograms[outcome or names[0]])
        with states.tolerated():
            history.refresh()
        columns = history.columns()
        figure = figures.heat_map(columns, colour=card.colour, unit=card.unit) if len(columns) else figures.NOTHING
        live_chart.chart(card.title, card.hint, figure, key=card.key, empty=empty)


def show_if_empty(job: Job, curves: Curves) -> bool:
    """Return true, and say so on the page, if a job ended without any of these metrics."""
    if job.status.final and not any(map(len, curves.values())):
        states.empty("No metrics", "The job ended before its first step. See its log and its events.")
        return True
    return False


def show_if_not_started(job: Job) -> bool:
    """Return true, and say so on the page, if the job has not started, so that no metric can exist yet."""
    if job.attempt == 0 and not job.status.final:
        states.empty("Not started yet", "Charts appear here after the job's first step.")
        return True
    return False


def show_if_no_sample(job: Job, steps: Mapping[int, object]) -> bool:
    """Return true, and say so on the page, if the job has not saved a sample of its rollouts yet."""
    if not steps:
        every = (job.spec.get("samples") or {}).get("every_steps")
        when = f"Samples are saved every {every} steps." if every else "Samples are saved every few steps."
        states.empty("No rollouts yet", when)
    return not steps


def has_rollouts(job: Job) -> bool:
    """Return true if the job samples completions while it trains; supervised fine-tuning does not."""
    settings = find_algorithm(algorithm(job))
    return job.kind == "train" and (settings is None or settings.samples)


def algorithm(job: Job) -> str:
    """Return the type of the job's algorithm, such as calibrl; empty for an evaluation."""
    return str((job.spec.get("algorithm") or {}).get("type", ""))
