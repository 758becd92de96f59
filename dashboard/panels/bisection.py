"""Result of a bisection: the first bad update, the probes, and forks before it."""

from calibrl.schemas import Job, JobStatus
from dashboard import states
from dashboard.panels.panel import Panel
from dashboard.reads import catalogue
from dashboard.views import bad_update


def draw(job: Job) -> None:
    """Draw the panel."""
    if job.status is JobStatus.SUCCEEDED:
        bad_update.draw(job, catalogue.bisection(job.id))
    elif job.status.final:
        states.empty("No result", "The job ended without a result.")
    else:
        states.empty("No result yet", "The first bad update appears here when the bisection ends.")


PANELS = (Panel("Results", draw, 10, ("bisect",)),)
