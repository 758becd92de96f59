"""All metrics that a job reports, found by their names and drawn as charts."""

from fnmatch import fnmatchcase

import streamlit as st

from calibrl.schemas import Job
from dashboard import states
from dashboard.charts.cards import Card, Line
from dashboard.palette import POLICY, VALIDATION
from dashboard.panels.common import draw_cards, live_panel, read
from dashboard.reads import service

MOST_DRAWN = 24  # charts at once
SPARSE = ("validation/", "evaluation/", "image/", "expert/probe_", "loss/guidance_", "loss/policy_grad_norm")


def matches(name: str, text: str) -> bool:
    """Return true if a metric has all words of a text in its name; `*` in a word matches any characters."""
    return all(fnmatchcase(name.casefold(), f"*{word.casefold()}*") for word in text.split())


def _card(name: str) -> Card:
    sparse = name.startswith(SPARSE)
    line = Line(name, name, VALIDATION if name.startswith("validation/") else POLICY, sparse=sparse)
    return Card(f"metric-{name.replace('/', '-')}", name, (line,), value_format=".4g")


def _panel(job: Job) -> None:
    names: list[str] = []
    with states.tolerated():
        names = service.metric_names(job.id)
    if not names:
        states.empty("No metrics", "Metrics appear here after the first step.")
        return
    text = st.text_input(
        "Search", key="metric", bind="query-params", max_chars=200, icon=":material/search:",
        placeholder="Words of the name, such as reward, kl or validation *_low", label_visibility="collapsed",
    )  # fmt: skip
    found = [name for name in names if matches(name, text)]
    shown = f", first {MOST_DRAWN} shown" if len(found) > MOST_DRAWN else ""
    st.caption(f"{len(found)} of {len(names)} metrics{shown}")
    cards = [_card(name) for name in found[:MOST_DRAWN]]
    if cards:
        draw_cards(job, cards, read(job, found[:MOST_DRAWN]))


draw = live_panel(_panel)
