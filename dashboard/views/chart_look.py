"""The reader's choice of how curves are drawn, in the URL: smoothing, y axis and x axis; curves on another x axis."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import streamlit as st

from calibrl.schemas import Job
from dashboard import addresses
from dashboard.charts.look import Look
from dashboard.charts.series import EMA, WINDOW, Smoothing, StepSeries
from dashboard.reads import catalogue
from dashboard.reads.live import Buckets
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


def on_axis(job: Job, buckets: Mapping[str, Buckets], metrics: Sequence[str]) -> dict[str, StepSeries]:
    """Return the curves of a job on the chosen x axis; empty if it does not have the values of the axis."""
    kind = axis()
    attempts = catalogue.attempts(job.id) if kind == "time" else []
    by_job = {(job.id, name): curve for name, curve in buckets.items()}
    return {name: _placed(buckets[name], places_of(job, buckets[name], by_job, kind, attempts)) for name in metrics}


def _placed(curve: Buckets, places: Sequence[int]) -> StepSeries:
    if not places:
        return StepSeries.of([], [])
    series = curve.at(places)
    return replace(series, first=np.asarray(places, dtype=np.int64))
