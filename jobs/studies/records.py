"""Results of jobs as a study reads them: accuracies of evaluations, validation curves of trainings."""

from collections.abc import Sequence
from uuid import UUID

from calibrl.schemas import SplitAccuracies
from jobs.db import session_scope
from jobs.evaluations import compare
from jobs.repository import jobs, metrics
from jobs.studies.curves import METRICS, curve, last_means
from jobs.studies.measurements import Trained

STEPS_AT_ONCE = 5000


def load_splits(evaluation: UUID) -> dict[str, SplitAccuracies]:
    """Return the accuracies of the model of an evaluation by dataset, in the order of its spec.

    Raises:
        Conflict: the job is not a succeeded evaluation, or its accuracies are not stored.
        Invalid: there are too many prompts.
    """
    with session_scope() as session:
        job = jobs.get(session, evaluation)
        order = [row.split for row in compare.evaluation(job).results]
        rows = compare.split_accuracies(session, job, None)
    found = {one.split: one for one in rows if one.model_index == 0}
    return {split: found[split] for split in order if split in found}


def load_training(training: UUID, names: Sequence[str]) -> Trained:
    """Return the validations of a training job, and the means of the named metrics."""
    steps: list[tuple[int, dict[str, float | str]]] = []
    with session_scope() as session:
        spec = jobs.get(session, training).spec
        while True:
            last = steps[-1][0] if steps else -1
            page = metrics.page(session, training, names=[*METRICS, *names], after_step=last, limit=STEPS_AT_ONCE)
            steps += [(step, values) for step, _, values in page]
            if len(page) < STEPS_AT_ONCE:
                return Trained(curve(steps, spec), last_means(steps, names))
