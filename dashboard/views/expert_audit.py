"""An audit of experts: its conclusion, counts with bars, two distributions, and the worst rows with their reasons."""

from collections.abc import Iterator, Mapping

import streamlit as st

from calibrl.schemas import Audit, AuditRow
from dashboard.charts import figures, live_chart
from dashboard.markup import chip, escape, heading, progress_bar, table
from dashboard.palette import CORRECT, EXPERT, POLICY, RARENESS, WRONG, faded

VERDICTS = {  # colour and meaning
    "use": (CORRECT, "right, complete and near the policy"),
    "rewrite": (RARENESS, "right and complete, but far from the policy or in another form"),
    "drop": (WRONG, "refused by a reward that judges the answer, or cut"),
}
QUADRANTS = {  # label and colour
    "underconfident_correct": ("under-confident, correct: full guidance", CORRECT),
    "confident_correct": ("confident, correct: damped", faded(CORRECT, 0.4)),
    "overconfident_wrong": ("over-confident, wrong: full guidance", WRONG),
    "humble_wrong": ("under-confident, wrong: damped", faded(WRONG, 0.4)),
}
TITLES = ("Row", "Verdict", "NLL (nats/token)", "Pass rate", "Mean gap (nats)", "Tokens", "Reasons")


def draw(audit: Audit) -> None:
    """Draw the result of an audit."""
    with st.container(border=True, key="card-audit"):
        st.html(heading("Effect of guidance", audit.conclusion))
        st.html("".join((_verdicts(audit), _facts(audit), _quadrants(audit))))
    left, right = st.columns(2)
    with left:
        live_chart.card(
            "NLL per token",
            "Negative log-likelihood of the experts under the policy. Far right: far from the policy.",
            figures.distribution(audit.nll_histogram.edges, audit.nll_histogram.counts, EXPERT, "experts"),
            key="audit-nll",
        )
    with right:
        live_chart.card(
            "Gap",
            "log π(token) − log π(expert's token there). On one side of 0 only: guidance scales the gradient.",
            figures.distribution(audit.gap_histogram.edges, audit.gap_histogram.counts, POLICY, "tokens"),
            key="audit-gap",
        )
    with st.container(border=True, key="card-audit-rows"):
        hint = f"The worst {len(audit.worst):,} of {audit.rows:,} rows. All rows: `audit.jsonl` in Files."
        st.html(heading("Rows", hint) + table(TITLES, map(_row, audit.worst)))


def _bars(title: str, counts: Mapping[str, tuple[int, str]], of: int) -> str:
    """Return a table of counts with their share as bars. counts: count and colour by label."""
    rows = (
        f'<tr><td>{escape(name)}</td><td data-label="Count">{count:,}</td>'
        f"<td>{progress_bar(count / max(of, 1), colour, f'{name}: {count:,} of {of:,}')}</td></tr>"
        for name, (count, colour) in counts.items()
    )
    return table((title, "Rows", "Share"), rows)


def _verdicts(audit: Audit) -> str:
    found = {str(name): count for name, count in audit.verdicts.items()}  # JSON of the database keeps no order
    counts = {f"{name}: {meaning}": (found[name], colour) for name, (colour, meaning) in VERDICTS.items()}
    return _bars("Verdict", counts, audit.rows)


def _quadrants(audit: Audit) -> str:
    shares = {str(name): share for name, share in audit.quadrants.items()}
    rows = (
        f'<tr><td>{escape(label)}</td><td data-label="Share">{shares[name]:.1%}</td>'
        f"<td>{progress_bar(shares[name], colour, f'{label}: {shares[name]:.1%}')}</td></tr>"
        for name, (label, colour) in QUADRANTS.items()
        if name in shares
    )
    return table(("Expected quadrant", "Tokens", "Share"), rows) if audit.quadrants else ""


def _facts(audit: Audit) -> str:
    rows = (f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in _figures(audit))
    return table(("Rows", f"{audit.rows:,} with an expert, {audit.without_expert:,} without"), rows)


def _figures(audit: Audit) -> Iterator[tuple[str, str]]:
    """Yield figures of the whole data."""
    yield "Experts", f"{audit.passed:,} right, {audit.in_format:,} in the format, {audit.cut:,} cut"
    if audit.rewritten:
        far = audit.verdicts["rewrite"]
        yield "Restated", f"{audit.rewritten:,} of the {far:,} rows to rewrite, right and more likely than before"
    yield "NLL", f"{audit.nll_per_token:.2f} nats/token"
    yield "Pass rate", f"{audit.pass_rate:.1%}; {audit.active_groups:.1%} of the groups are active"
    if audit.gap_mean is not None:
        yield "Mean gap", f"{audit.gap_mean:+.2f} nats"


def _row(row: AuditRow) -> str:
    gap = "–" if row.gap_mean is None else f"{row.gap_mean:+.2f}"
    reasons = [*row.reasons]
    if row.rewritten_nll_per_token is not None:
        reasons.append(f"restated with {row.rewritten_nll_per_token:.2f} nats per token")
    cells = {
        "NLL": f"{row.nll_per_token:.2f}",
        "Pass rate": f"{row.pass_rate:.0%}",
        "Gap": gap,
        "Tokens": f"{row.tokens:,}",
    }
    numbers = "".join(f'<td data-label="{name}">{value}</td>' for name, value in cells.items())
    colour, _ = VERDICTS[row.verdict]
    return (
        f'<tr><td data-label="Row">{row.row:,}</td><td>{chip(row.verdict, colour)}</td>{numbers}'
        f"<td>{escape('; '.join(reasons))}</td></tr>"
    )
