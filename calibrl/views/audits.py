"""Output of `calibrl audit`: the summary of an audit of experts, and its worst rows."""

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from calibrl.schemas import Audit, AuditRow
from calibrl.views.terminal import plain, table_of

NONE = "–"
STYLES = {"use": "green", "rewrite": "yellow", "drop": "red"}


def audit_page(audit: Audit, rows: int) -> RenderableType:
    """Return the facts of an audit, its conclusion, and at most `rows` of its worst rows."""
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(audit).items():
        facts.add_row(Text(name, style="dim"), Text(value))
    parts: list[RenderableType] = [facts, Text(), Text(plain(audit.conclusion))]
    if shown := audit.worst[:rows]:
        parts += [Text(), _rows(shown)]
    return Group(*parts)


def _facts(audit: Audit) -> dict[str, str]:
    gap = NONE if audit.gap_mean is None else f"{audit.gap_mean:+.2f} nats"
    verdicts = {str(name): count for name, count in audit.verdicts.items()}  # JSON of the database keeps no order
    shares = sorted(audit.quadrants.items(), key=lambda each: each[1], reverse=True)
    facts = {
        "rows": f"{audit.rows:,} with an expert, {audit.without_expert:,} without",
        "verdicts": ", ".join(f"{name} {verdicts[name]:,} ({verdicts[name] / audit.rows:.1%})" for name in STYLES),
        "experts": f"{audit.passed:,} right, {audit.in_format:,} in the format, {audit.cut:,} cut",
        "NLL": f"{audit.nll_per_token:.2f} nats per token",
        "pass rate": f"{audit.pass_rate:.1%}; {audit.active_groups:.1%} of the groups are active",
        "mean gap": gap,
        "quadrants": ", ".join(f"{name.replace('_', ' ')} {share:.1%}" for name, share in shares) or NONE,
    }
    return facts | ({"restated": f"{audit.rewritten:,} of the rows to rewrite"} if audit.rewritten else {})


def _rows(rows: list[AuditRow]) -> Table:
    table = table_of(">ROW", "VERDICT", ">NLL", ">PASS RATE", ">GAP", "REASONS~")
    for row in rows:
        gap = NONE if row.gap_mean is None else f"{row.gap_mean:+.2f}"
        new = row.rewritten_nll_per_token
        reasons = [*row.reasons, *([] if new is None else [f"restated with {new:.2f} nats per token"])]
        numbers = f"{row.nll_per_token:.2f}", f"{row.pass_rate:.0%}", gap
        verdict = Text(row.verdict, style=STYLES[row.verdict])
        table.add_row(str(row.row), verdict, *numbers, Text(plain("; ".join(reasons))))
    return table


def written_line(rows: int, replaced: int, left_out: int, file: Path) -> str:
    """Return how many rows were written, how many of them with a restated expert, and how many of these were not."""
    parts = [f"{rows:,} rows are in {file}"]
    if replaced:
        parts.append(f"{replaced:,} of them have a restated expert")
    if left_out:
        parts.append(f"{left_out:,} restated rows are left out, because their format composes the expert of columns")
    return "; ".join(parts)
