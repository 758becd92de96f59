"""Result of a what-if: the compared updates, and the change of each token."""

from calibrl.schemas import Job, JobStatus
from dashboard import states
from dashboard.panels.panel import Panel
from dashboard.reads import catalogue
from dashboard.views import compared_updates


def draw(job: Job) -> None:
    """Draw the panel."""
    if job.status is JobStatus.SUCCEEDED:
        compared_updates.draw(catalogue.what_if(job.id))
    elif job.status.final:
        states.empty("No result", "The job ended without a result.")
    else:
        states.empty("No result yet", "The updates appear here when the comparison ends.")


PANELS = (Panel("Results", draw, 10, ("what_if",)),)
