"""Surroundings of a job, and the comparison of a repeated job with its original, step by step."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from calibrl.schemas import Deviation, DifferentField, Job, SeriesComparison
from dashboard.markup import chip, escape, heading, job_link, table
from dashboard.palette import CORRECT, NEUTRAL, WRONG
from dashboard.reads import catalogue
from dashboard.views.spec_diff import flat

SHOWN = 20  # rows of each table
PACKAGES = "packages"  # part of a record, of which the number is shown
HINT = "Metrics of both jobs, step by step and bit for bit, without times and speeds"


def draw(job: Job) -> None:
    """Draw the record of the last attempt, and the comparison with the job that this one runs again."""
    records = [attempt.record for attempt in catalogue.attempts(job.id) if attempt.record]
    if records:
        with st.container(border=True, key="card-surroundings"):
            st.html(heading("Surroundings", "What the last attempt ran on") + _record(records[-1]))
    if job.forked_from is None or job.forked_step is not None:
        return
    with st.container(border=True, key="card-reproduction"):
        st.html(heading("Reproduction", HINT))
        if st.button("Compare step by step", icon=":material/difference:", key="compare-series"):
            with st.spinner("Comparing…"):
                _comparison(catalogue.series_comparison(job.id))


def _record(record: Mapping[str, Any]) -> str:
    rows = [*flat({name: value for name, value in record.items() if name != PACKAGES}).items()]
    rows.append((PACKAGES, f"{len(record.get(PACKAGES, {}))} distributions"))
    return table(("Field", "Value"), (_cells(f"<code>{escape(field)}</code>", value) for field, value in rows))


def _cells(first: str, *texts: object) -> str:
    rest = "".join(f'<td style="overflow-wrap:anywhere">{escape(text)}</td>' for text in texts)
    return f"<tr><td>{first}</td>{rest}</tr>"


def _comparison(found: SeriesComparison) -> None:
    verdict = chip("equal bit for bit", CORRECT) if found.equal else chip("different", WRONG)
    if not found.metrics:
        verdict = chip("nothing to compare: a job has no metrics", NEUTRAL)
    facts = [f"{found.steps:,} steps", f"{found.metrics} metrics"]
    if found.checkpoint_equal is not None:
        same = "equal" if found.checkpoint_equal else "different"
        facts.append(f"weights of step {found.checkpoint_step}: {same}")
    if not found.complete:
        facts.append("not complete: a job has not ended, or one has more steps")
    chips = "".join(chip(fact, NEUTRAL) for fact in facts)
    original = job_link(found.first, f"job {str(found.first)[:8]}")
    st.html(f'<div style="display:flex;flex-wrap:wrap;gap:.35rem">{verdict}{chips} {original}</div>')
    if found.deviations:
        _more("First step at which each metric differs", len(found.deviations))
        titles = ("Metric", "Step", "Original", "This job", "Relative difference")
        st.html(table(titles, map(_deviation, found.deviations[:SHOWN])))
    _fields("Settings that differ", found.settings)
    _fields("Surroundings that differ", found.surroundings)


def _deviation(one: Deviation) -> str:
    relative = "–" if one.relative is None else f"{one.relative:.2g}"
    return _cells(f"<code>{escape(one.metric)}</code>", one.step, one.first, one.second, relative)


def _fields(title: str, fields: Sequence[DifferentField]) -> None:
    if fields:
        _more(title, len(fields))
        rows = (_cells(f"<code>{escape(one.field)}</code>", one.first, one.second) for one in fields[:SHOWN])
        st.html(table(("Field", "Original", "This job"), rows))


def _more(title: str, count: int) -> None:
    st.caption(title if count <= SHOWN else f"{title}: first {SHOWN} of {count}")
