"""Output of `calibrl hours`: what the slot-hours of a job or a project bought."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from calibrl.schemas import JobHours, Price, ProjectHours, SlotHours
from calibrl.views.terminal import meter, plain, table_of

NONE = "–"


def job_page(hours: JobHours) -> RenderableType:
    """Return the hours of a job, what they bought, and what a point of validation accuracy took."""
    head = f"{plain(hours.name)}: {hours.slot_hours:,.2f} slot-hours, {hours.gpu_hours:,.2f} GPU-hours"
    facts = Table.grid(padding=(0, 2))
    facts.add_row(Text("without a slot", style="dim"), f"{hours.queued_hours:,.2f} hours")
    if hours.first_accuracy is not None and hours.best_accuracy is not None:
        facts.add_row(
            Text("validation", style="dim"), f"{hours.first_accuracy:.1%} first, {hours.best_accuracy:.1%} best"
        )
    facts.add_row(Text("slot-hours per point", style="dim"), _number(hours.slot_hours_per_point))
    facts.add_row(Text("price", style="dim"), _price(hours.price))
    return Group(Text(head, style="bold"), _bought(hours.bought, hours.slot_hours), Text(), facts)


def project_page(hours: ProjectHours) -> RenderableType:
    """Return the hours of a project, what they bought, and its most expensive jobs."""
    head = (
        f"{plain(hours.project)}, last {hours.days} days: {hours.jobs} jobs, {hours.slot_hours:,.2f} slot-hours "
        f"({hours.lost_slot_hours:,.2f} of failed or cancelled jobs), {hours.gpu_hours:,.2f} GPU-hours, "
        f"price {_price(hours.price)}"
    )
    table = table_of("JOB", "NAME~", "STATUS", ">SLOT-HOURS", ">NO ADVANTAGE", ">RESTARTS", ">PER POINT", ">PRICE")
    for job in hours.most:
        shares = (_share(value, job.slot_hours) for value in (job.bought.no_advantage, job.bought.restarts))
        cells = (f"{job.slot_hours:,.2f}", *shares, _number(job.slot_hours_per_point), _price(job.price))
        table.add_row(str(job.job_id)[:8], Text(plain(job.name)), job.status.value, *cells)
    return Group(Text(head, style="bold"), _bought(hours.bought, hours.slot_hours), Text(), table)


def _bought(bought: SlotHours, total: float) -> Table:
    table = table_of("BOUGHT", ">SLOT-HOURS", ">SHARE")
    for name, value in bought:
        if value:
            share = value / total
            table.add_row(name.replace("_", " "), f"{value:,.2f}", f"{meter(share)} {share:4.0%}")
    return table


def _share(value: float, total: float) -> str:
    return f"{value / total:.0%}" if total else NONE


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:,.3g}"


def _price(price: Price | None) -> str:
    return "not set" if price is None else f"{price.amount:,.2f} {price.currency}"
