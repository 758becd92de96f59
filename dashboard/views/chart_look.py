"""The reader's choice of how curves are drawn, in the URL: smoothing, y axis and x axis; curves on another x axis."""

from dataclasses import replace
from functools import lru_cache
from typing import get_args

import numpy as np
import streamlit as st

from calibrl.schemas import AttemptRecord, Job
from dashboard import addresses, states
from dashboard.charts.look import Look
from dashboard.charts.series import EMA, KEPT, WINDOW, Smoothing, StepSeries
from dashboard.reads import catalogue
from dashboard.reads.live import History
from dashboard.views.compare_curves import AXES, RATE, SECONDS, Axis, places_of

SMOOTHINGS: dict[Smoothing, str] = {"mean": f"Mean of {WINDOW}", "ema": f"EMA {EMA:g}", "none": "None"}
TOKENS = (RATE, SECONDS)  # metrics that the axis of tokens needs


def choose() -> None:
    """Draw the choice. `current` and `axis` return it."""
    addresses.check("smoothing", SMOOTHINGS, "mean", SMOOTHINGS.__getitem__)
    addresses.check("axis", AXES, "step")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.segmented_control(
            "Smoothing", list(SMOOTHINGS), default="mean", required=True, key="smoothing", bind="query-params",
            format_func=SMOOTHINGS.__getitem__,
            help="Also of the minimum and the maximum of a bucket of steps. Values measured at some steps only are "
            "never smoothed.",
        )  # fmt: skip
        st.segmented_control("X axis", list(AXES), default="step", required=True, key="axis", bind="query-params")
        st.toggle(
            "Log y axis", key="log", bind="query-params", help="Leaves out values of 0 and less.",
        )  # fmt: skip


def axis() -> Axis:
    """Return the x axis that the reader has chosen."""
    chosen: Axis = st.session_state.get("axis", "step")
    return chosen if chosen in get_args(Axis) else "step"


def current(*, legend: bool = True) -> Look:
    """Return how the reader wants curves to be drawn."""
    smoothing = st.session_state.get("smoothing")
    return Look(
        smoothing if smoothing in SMOOTHINGS else "mean", bool(st.session_state.get("log")), AXES[axis()], legend
    )


def on_axis(job: Job, history: History) -> dict[str, StepSeries]:
    """Return the curves of a job on the chosen x axis; empty if it does not have the values of the axis."""
    kind = axis()
    if kind == "step":
        return history.curves()
    attempts: list[AttemptRecord] = []
    if kind == "time":
        with states.tolerated():
            attempts = catalogue.attempt_times(job)
    curves, buckets = history.curves_and_buckets()
    by_job = {(job.id, name): curve for name, curve in buckets.items()}
    return {
        name: _placed(curve, tuple(places_of(job, buckets[name], by_job, kind, attempts)))
        for name, curve in curves.items()
    }


@lru_cache(KEPT)
def _placed(curve: StepSeries, places: tuple[int, ...]) -> StepSeries:
    """The curve at other places of the x axis. Equal arguments give the same object, for cached figures."""
    if not places:
        return StepSeries.of([], [])
    at = np.asarray(places, dtype=np.int64)
    return replace(curve, steps=at, first=at)
