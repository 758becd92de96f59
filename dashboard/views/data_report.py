"""The data report of a dataset: warnings first, then counts with bars, and sizes."""

from collections.abc import Iterator, Mapping
from typing import Any

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import DataReport, Dataset, ReportWarning, UploadOptions
from dashboard import states
from dashboard.markup import chip, escape, progress_bar, table
from dashboard.palette import CORRECT, EXPERT, NEUTRAL, POLICY, RARENESS
from dashboard.reads import catalogue

REWARDS = ("math", "choice", "numeric", "exact")
FORMATS = UploadOptions.model_json_schema()["properties"]["format"]["enum"]
NONE = "none"
SPREAD = ("Smallest", "Median", "95 %", "Largest")


def section(dataset: Dataset) -> None:
    """Draw the choices of a report, and the report once it is asked for."""
    with st.expander("Data report"):
        options = _options(dataset)
        if not st.button("Check the rows", key="report-button"):
            st.caption("Reads the first rows as a job does: duplicates, answers and experts that harm a run.")
            return
        try:
            with st.spinner("Reading rows…"):
                found = catalogue.report(dataset.id, options)
        except CalibrlError as error:
            states.trouble(error, "report-trouble")
            return
        st.html(page(found))


def _options(dataset: Dataset) -> dict[str, Any]:
    """Draw the options of a report, and return them as the client takes them."""
    held_out = {one.id: one.name for one in catalogue.datasets(dataset.project).data if one.hub is None}
    held_out.pop(dataset.id, None)
    left, middle, right = st.columns(3)
    reward = left.selectbox("Reward", REWARDS, key="report-reward")
    against = middle.selectbox(
        "Validation dataset",
        [None, *held_out],
        format_func=lambda id: NONE if id is None else held_out[id],
        key="report-against",
    )
    form = right.selectbox(
        "Row format",
        [None, *FORMATS],
        format_func=lambda name: "as uploaded" if name is None else name,
        key="report-format",
    )
    left, middle, right = st.columns(3)
    model = left.text_input(
        "Model folder",
        key="report-model",
        placeholder="counts no tokens",
        help="Folder of a saved model on the server. Its tokenizer counts tokens, without chat template and images.",
    )
    limits = {
        name: column.number_input(title, step=1, value=None, disabled=not model, key=f"report-{name}")
        for name, title, column in (
            ("max_prompt_tokens", "Tokens of a prompt, at most", middle),
            ("max_completion_tokens", "Tokens of a completion, at most", right),
        )
    }
    tokens = {"model": model, **limits} if model else {}
    return {"rewards": [{"type": reward}], "against": against, "format": form, **tokens}


def page(report: DataReport) -> str:
    """Return a report as HTML."""
    read = f"{report.rows:,} rows" if report.complete else f"the first {report.rows:,} rows"
    warnings = "".join(map(_warning_row, report.warnings))
    head = table(("Warning", "Rows"), [warnings]) if warnings else chip("✓ No warnings", CORRECT)
    facts = table(("Read", read), (_fact_row(name, text) for name, text in _facts(report).items()))
    sizes = table(("Size", *SPREAD), _sizes(report))
    return "".join((head, facts, *_counts(report), sizes))


def _warning_row(warning: ReportWarning) -> str:
    rows = ", ".join(map(str, warning.rows)) + (" …" if warning.count > len(warning.rows) else "")
    name = chip(warning.kind.replace("_", " "), RARENESS)
    return f'<tr><td>{name} {escape(warning.message)}</td><td data-label="Rows">{rows}</td></tr>'


def _fact_row(name: str, text: str) -> str:
    return f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>"


def _facts(report: DataReport) -> dict[str, str]:
    facts = {
        "Row format": ", ".join(report.formats) or NONE,
        "Columns used": ", ".join(report.used_columns) or NONE,
        "Columns left out": ", ".join(report.unused_columns) or NONE,
        "Repeated": f"{report.duplicates:,} duplicates, {report.near_duplicates:,} near duplicates, "
        f"{report.contradictions:,} with another answer",
    }
    if report.overlap_prompts is not None:
        facts["Also in validation"] = (
            f"{report.overlap_prompts:,} prompts, {report.overlap_near or 0:,} more nearly, "
            f"{report.overlap_images or 0:,} more by an image"
        )
    return facts


def _counts(report: DataReport) -> Iterator[str]:
    """Yield tables of counts; each count has a bar of its share."""
    experts = {
        "with expert": report.with_expert,
        "accepted by the reward": report.right_experts,
        "refused by the reward": report.judged_experts - report.right_experts,
    }
    ratios = {
        f"pass ratio {place / 10:.1f} to {(place + 1) / 10:.1f}": count
        for place, count in enumerate(report.pass_ratios)
    }
    yield _bars("Answers", report.truths, report.rows, POLICY)
    yield _bars("Experts", experts if report.with_expert else {}, report.rows, EXPERT)
    yield _bars("Image formats", report.images.formats, report.images.count, NEUTRAL)
    yield _bars("Images that are converted", report.images.converted, report.images.count, NEUTRAL)
    yield _bars("Pass ratio", ratios, sum(report.pass_ratios), NEUTRAL)


def _bars(title: str, counts: Mapping[str, int], total: int, colour: str) -> str:
    if not counts:
        return ""
    rows = (
        f'<tr><td>{escape(name)}</td><td data-label="Count">{count:,}</td>'
        f"<td>{progress_bar(count / max(total, 1), colour, f'{name}: {count:,} of {total:,}')}</td></tr>"
        for name, count in counts.items()
    )
    return table((title, "Count", "Share"), rows)


def _sizes(report: DataReport) -> Iterator[str]:
    for name, spread in report.sizes.items():
        numbers = (spread.smallest, spread.median, spread.p95, spread.largest)
        cells = (f'<td data-label="{title}">{number:,}</td>' for title, number in zip(SPREAD, numbers, strict=True))
        yield f"<tr><td>{name}</td>{''.join(cells)}</tr>"
