"""Result of an audit of experts: verdicts, distributions, the effect of guidance, and the worst rows."""

from calibrl.schemas import Job, JobStatus
from dashboard import states
from dashboard.panels.panel import Panel
from dashboard.reads import catalogue
from dashboard.views import expert_audit


def draw(job: Job) -> None:
    """Draw the panel."""
    if job.status is JobStatus.SUCCEEDED:
        expert_audit.draw(catalogue.expert_audit(job.id))
    elif job.status.final:
        states.empty("No result", "The job ended without a result.")
    else:
        states.empty("No result yet", "The verdicts appear here when the audit ends.")


PANELS = (Panel("Results", draw, 10, ("audit",)),)
