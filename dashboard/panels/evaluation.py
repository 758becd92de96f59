"""Results of an evaluation job: each model on each split, with intervals, and whether two can be told apart."""

from calibrl.schemas import Job
from dashboard import states
from dashboard.views import evaluation_table


def draw(job: Job) -> None:
    if (job.result or {}).get("results"):
        evaluation_table.side_by_side([job])
    elif job.status.final:
        states.empty("No results", "The job ended without results.")
    else:
        states.empty("Not measured yet", "Results appear here when the evaluation is done.")
