"""Output of the commands of webhooks, alert rules and the audit log."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from calibrl.schemas import AlertRule, AuditEntry, Delivery, Webhook
from calibrl.schemas.alert_rules import condition_text
from calibrl.views.terminal import moment, plain, table_of


def webhook_table(rows: Sequence[Webhook]) -> Table:
    """Return webhooks with the events that they receive."""
    table = table_of("ID", "URL~", "FORMAT", "EVENTS~", "ADDED BY")
    for row in rows:
        places = (Text(plain(row.url)), row.format.value, ", ".join(row.events), Text(plain(row.created_by)))
        table.add_row(str(row.id)[:8], *places)
    return table


def delivery_table(rows: Sequence[Delivery]) -> Table:
    """Return messages with the result of the last try of each."""
    table = table_of("SENT", "EVENT", "JOB", "STATUS", ">TRIES", "RESULT~")
    for row in rows:
        job = str(row.job_id)[:8] if row.job_id else ""
        result = Text(plain(row.response or ""))
        table.add_row(moment(row.created_at), row.type, job, row.status.value, str(row.attempts), result)
    return table


def alert_rule_table(rows: Sequence[AlertRule]) -> Table:
    """Return alert rules with their conditions and the jobs that they concern."""
    table = table_of("NAME", "FIRES IF~", "JOBS~", "ADDED BY")
    for row in rows:
        jobs = " ".join([row.job_names or "*", *(f"{key}={value}" for key, value in row.labels.items())])
        table.add_row(row.name, Text(plain(condition_text(row.condition))), Text(plain(jobs)), Text(row.created_by))
    return table


def audit_table(rows: Sequence[AuditEntry]) -> Table:
    """Return entries of the audit log."""
    table = table_of("TIME", "USER", "PROJECT", "ACTION~", "PATH~")
    for row in rows:
        places = (row.project or "", Text(plain(row.action)), Text(plain(row.path)))
        table.add_row(moment(row.ts), Text(plain(row.user)), *places)
    return table
