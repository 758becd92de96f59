"""All metrics that a job reports, found by their names and drawn as charts."""

import re
from fnmatch import fnmatchcase

import streamlit as st

from calibrl.schemas import Job
from dashboard import states
from dashboard.charts.cards import Card, Line
from dashboard.markup import as_markdown
from dashboard.palette import POLICY, VALIDATION
from dashboard.panels.common import draw_cards, live_panel, read
from dashboard.panels.panel import Panel
from dashboard.reads import service

MOST_DRAWN = 24  # charts at once
SPARSE = ("validation/", "evaluation/", "image/", "expert/probe_", "loss/guidance_", "loss/policy_grad_norm")


def matches(name: str, text: str) -> bool:
    """Return true if a metric has all words of a text in its name; `*` in a word matches any characters.

    A text between slashes is a regular expression.

    Raises:
        re.error: the expression is invalid.
    """
    if len(text) > 2 and text[0] == text[-1] == "/":
        return re.search(text[1:-1], name, re.IGNORECASE) is not None
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
        placeholder="Words, such as validation *_low, or a regular expression between slashes: /^(kl|loss)/",
        label_visibility="collapsed",
    )  # fmt: skip
    pinned = st.multiselect(
        "Pinned", names, key="pinned", bind="query-params", max_selections=MOST_DRAWN,
        placeholder="Pinned metrics come first and stay in the URL", label_visibility="collapsed",
    )  # fmt: skip
    try:
        found = [*pinned, *(name for name in names if name not in pinned and matches(name, text))]
    except re.error as error:
        st.error(as_markdown(f"Invalid regular expression: {error}"))
        found = pinned
    shown = f", first {MOST_DRAWN} shown" if len(found) > MOST_DRAWN else ""
    st.caption(f"{len(found)} of {len(names)} metrics{shown}")
    cards = [_card(name) for name in found[:MOST_DRAWN]]
    if cards:
        draw_cards(job, cards, read(job, found[:MOST_DRAWN]))


draw = live_panel(_panel)


PANELS = (Panel("Metrics", draw, 70, charted=True),)
