"""Measurements of a study: which evaluations have succeeded, and their accuracies per prompt, paired."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from calibrl.schemas.evaluations import SplitAccuracies
from calibrl.schemas.jobs import JobSummary
from calibrl.schemas.status import JobStatus
from calibrl.schemas.studies import StudySpec
from calibrl.schemas.study_reports import StudyPoint
from jobs.errors import Conflict
from jobs.studies.expansion import Expansion

Rows = list[list[float]]  # [S, N] accuracies of S seeds on N prompts
Load = Callable[[UUID], dict[str, SplitAccuracies]]  # accuracies of an evaluation by dataset, in the order of its spec


@dataclass(frozen=True)
class Trained:
    """Results of a training job: its validations, and the mean of each metric over the last quarter of the steps."""

    curve: list[StudyPoint]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Evaluated:
    """Succeeded evaluations of a study by arm and seed."""

    jobs: Mapping[str, Mapping[int, JobSummary]]

    def common_seeds(self, first: str, second: str, seeds: Sequence[int]) -> list[int]:
        """Return those of the seeds for which both arms are evaluated."""
        return [seed for seed in seeds if seed in self.jobs[first] and seed in self.jobs[second]]


def evaluated(expansion: Expansion, known: Mapping[str, JobSummary]) -> Evaluated:
    """Return the succeeded evaluations of a study."""
    jobs: dict[str, dict[int, JobSummary]] = {arm.name: {} for arm in expansion.arms}
    for job in expansion.of("evaluation"):
        found = known.get(job.digest)
        if found is not None and found.status is JobStatus.SUCCEEDED and job.arm is not None and job.seed is not None:
            jobs[job.arm][job.seed] = found
    return Evaluated(jobs)


def pairs(study: StudySpec, expansion: Expansion) -> list[tuple[str, str]]:
    """Return the pairs of arms to compare: the baseline and each other arm, or all pairs."""
    names = [arm.name for arm in expansion.arms]
    if study.baseline is not None:
        return [(study.baseline, name) for name in names if name != study.baseline]
    return [(first, second) for place, first in enumerate(names) for second in names[place + 1 :]]


class Measurements:
    """Reader of accuracies per prompt, which loads each evaluation once."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._accuracies: dict[UUID, dict[str, SplitAccuracies]] = {}

    def splits(self, evaluation: UUID) -> dict[str, SplitAccuracies]:
        """Return the accuracies of an evaluation by dataset, in the order of its spec.

        Raises:
            Conflict: the accuracies are not stored.
        """
        if evaluation not in self._accuracies:
            self._accuracies[evaluation] = self._load(evaluation)
        return self._accuracies[evaluation]

    def split(self, job: JobSummary, split: str) -> SplitAccuracies:
        """Return the accuracies of an evaluation on a dataset.

        Raises:
            Conflict: the accuracies are not stored, or the evaluation has no such dataset.
        """
        own = self.splits(job.id)
        if split not in own:
            raise Conflict(f"evaluation {job.id} has no dataset {split!r}, only {', '.join(own)}")
        return own[split]

    def primary(self, study: StudySpec, evaluations: Evaluated) -> str | None:
        """Return the name of the dataset that decides. None: no evaluation has succeeded yet."""
        if study.primary is not None:
            return study.primary
        first = next((job for seeds in evaluations.jobs.values() for job in seeds.values()), None)
        return None if first is None else next(iter(self.splits(first.id)))

    def paired(
        self, evaluations: Evaluated, first: str, second: str, seeds: Sequence[int], split: str
    ) -> tuple[Rows, Rows]:
        """Return the accuracies of two arms on a dataset, seed by seed, with the prompts in one order.

        Raises:
            Conflict: an evaluation had other prompts, or has no such dataset.
        """
        found = [[self._values(evaluations.jobs[arm][seed], split) for seed in seeds] for arm in (first, second)]
        prompts = found[0][0][0]
        for arm, rows in zip((first, second), found, strict=True):
            for seed, (own, _) in zip(seeds, rows, strict=True):
                if own != prompts:
                    job = evaluations.jobs[arm][seed]
                    raise Conflict(f"evaluation {job.id} of arm {arm} had other prompts on {split!r} than arm {first}")
        before, after = ([values for _, values in rows] for rows in found)
        return before, after

    def _values(self, job: JobSummary, split: str) -> tuple[list[str], list[float]]:
        """Return the prompts of an evaluation in the order of their digests, and their accuracies; equal prompts keep
        their order.
        """
        own = self.split(job, split)
        rows = sorted(zip(own.prompts, own.values, strict=True), key=lambda row: row[0])
        return [prompt for prompt, _ in rows], [value for _, value in rows]
