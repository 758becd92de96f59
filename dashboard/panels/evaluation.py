"""Results of an evaluation job: each model on each split, with intervals and paired differences."""

from calibrl.schemas import Job
from dashboard import states
from dashboard.panels.panel import Panel
from dashboard.views import evaluation_table


def draw(job: Job) -> None:
    """Draw the panel."""
    if (job.result or {}).get("results"):
        evaluation_table.draw([job])
    elif job.status.final:
        states.empty("No results", "The job ended without results.")
    else:
        states.empty("No results yet", "Results appear here when the evaluation ends.")


PANELS = (Panel("Results", draw, 10, ("evaluate",)),)
