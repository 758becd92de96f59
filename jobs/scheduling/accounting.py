"""Slot-hours that projects and users have used."""

from sqlalchemy.orm import Session

from calibrl.schemas import HOUR, Usage
from jobs.repository import projects
from jobs.settings import get_settings


def month(session: Session) -> list[Usage]:
    """Return the slot-hours and GPU-hours of this calendar month (UTC) by project and user. Running jobs count up to
    now."""
    budgets = {project.slug: project.budget_slot_hours for project in projects.all_of(session)}
    used = projects.usage(session, get_settings().fair_share_half_life_hours * HOUR)
    return [
        Usage(
            project=row.project,
            user=row.user,
            slot_hours=row.month / HOUR,
            gpu_hours=row.month_gpu / HOUR,
            budget_slot_hours=budgets[row.project],
        )
        for row in used
    ]
