"""Situation of a study: which jobs should run now, which arms are stopped, the progress. Pure, but for the clock."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from calibrl.schemas import JobStatus, JobSummary, StudyProgress, StudySpec
from calibrl.schemas.base import HOUR
from calibrl.schemas.studies import MAX_ARMS
from jobs.studies.expansion import Expansion, StudyJob, groups
from jobs.studies.recorded import RecordedRuns
from jobs.studies.state import BROKEN, Expected, broken, expected_costs, left_of, seeds_in_budget, slot_hours, slots

NO_LOOKS: Mapping[int, Sequence[str]] = {}
NO_RUNS = RecordedRuns()


class Situation:
    """Situation of a study. `known`: its jobs that exist, by digest. `looks`: arms that each look stopped, by the
    number of seeds at that look. `recorded`: runs that another service made; their jobs are in `known` too.
    """

    def __init__(
        self,
        study: StudySpec,
        expansion: Expansion,
        known: dict[str, JobSummary],
        looks: Mapping[int, Sequence[str]] = NO_LOOKS,
        recorded: RecordedRuns = NO_RUNS,
    ) -> None:
        self.study, self.expansion = study, expansion
        self.known, self.looks, self.recorded = known, dict(looks), recorded

    @property
    def stopped(self) -> dict[str, int]:
        """Return the stopped arms, with the number of seeds at the look that stopped each."""
        return {arm: look for look, arms in sorted(self.looks.items(), reverse=True) for arm in arms}

    def due_look(self) -> int | None:
        """Return the number of seeds of the next look if all its evaluations have ended, else None."""
        look = self._next_look()
        return look if look is not None and self._evaluated(look) else None

    def allowed(self) -> list[StudyJob]:
        """Return the jobs that should run: of all arms and seeds, without stopped arms, up to the next look and within
        the budget.
        """
        last = self._next_look() or len(self.study.seeds)
        stopped = self.stopped
        budget = self._seeds_in_budget()
        allowed = [job for job in self.expansion.of("warm-up") if self._is_needed(job)]
        for count, seed in enumerate(self.study.seeds[: min(last, budget)]):
            for job in self.expansion.jobs:
                runs = job.arm is not None and count < stopped.get(job.arm, last)
                if job.seed == seed and job.part != "warm-up" and runs:
                    allowed.append(job)
        return allowed

    @property
    def points_in_budget(self) -> int:
        """Return the number of further points of a search within its budget. The runs of a point are expected to cost
        as much as those that have ended; before that, the number is not limited."""
        if self.study.budget_slot_hours is None:
            return MAX_ARMS
        now, expected = datetime.now(UTC), expected_costs(self.expansion, self.known)
        left = [left_of(job, expected, self.known, now) or 0.0 for job in self.expansion.jobs]
        unused = self.study.budget_slot_hours * HOUR - slot_hours([*self.known.values()], now) * HOUR - sum(left)
        cost = self._point_seconds(expected)
        return max(0, int(unused / cost)) if cost else MAX_ARMS

    def _point_seconds(self, expected: Expected) -> float:
        return len(self.study.seeds) * sum(expected[part] or 0.0 for part in ("training", "evaluation"))

    @property
    def _points_to_come(self) -> int:
        """Number of points of the search that are not chosen yet."""
        if self.study.search is None:
            return 0
        missing = len(groups(self.study)) * self.study.search.points - len(self.expansion.arms)
        return min(missing, self.points_in_budget)

    def can_submit(self, job: StudyJob) -> bool:
        """Return if a job does not exist, and the one that it starts from does and has not failed."""
        if job.digest in self.known:
            return False
        if job.needs is None:
            return True
        before = self.known.get(job.needs)
        return before is not None and before.status not in BROKEN

    def to_submit(self) -> list[StudyJob]:
        """Return the jobs that should run and can be submitted now."""
        return [job for job in self.allowed() if self.can_submit(job)]

    def progress(self) -> StudyProgress:
        """Return the progress of the study."""
        now, allowed = datetime.now(UTC), self.allowed()
        found = [self.known[job.digest] for job in allowed if job.digest in self.known]
        succeeded = sum(job.status is JobStatus.SUCCEEDED for job in found)
        failed = sum(broken(job, self.expansion, self.known, self.study.retries) for job in allowed)
        running = sum(job.status.held for job in found)
        planned = self._planned(allowed)
        return StudyProgress(
            planned=planned,
            succeeded=succeeded,
            failed=failed,
            running=running,
            waiting=max(0, planned - succeeded - failed - running),
            slot_hours=slot_hours(found, now),
            seconds_left=self._seconds_left(now),
            stopped=self.stopped,
            notes=self._notes(),
        )

    def _seeds_in_budget(self) -> int:
        if self.study.search is not None:  # the budget limits the points; each has all seeds
            return len(self.study.seeds)
        return seeds_in_budget(self.study, self.expansion, self.known, self._active())

    def _next_look(self) -> int | None:
        looks = self.study.stop.after_seeds if self.study.stop else ()
        return next((look for look in looks if look not in self.looks), None)

    def _active(self) -> list[str]:
        stopped = self.stopped
        return [arm.name for arm in self.expansion.arms if arm.name not in stopped]

    def _evaluated(self, seeds: int) -> bool:
        """Return if all evaluations of the first seeds of the arms that still run have ended."""
        first, active = self.study.seeds[:seeds], self._active()
        jobs = [job for job in self.expansion.of("evaluation") if job.seed in first and job.arm in active]
        return all(self.ended(job) for job in jobs)

    def ended(self, job: StudyJob) -> bool:
        """Return if a job has succeeded, or failed for good."""
        found = self.known.get(job.digest)
        succeeded = found is not None and found.status is JobStatus.SUCCEEDED
        return succeeded or broken(job, self.expansion, self.known, self.study.retries)

    def _planned(self, allowed: Sequence[StudyJob]) -> int:
        """Return the number of jobs that should run now, after the next look, or for later points."""
        if points := self._points_to_come:
            return len(self.expansion.jobs) + 2 * points * len(self.study.seeds)
        if not all(self.ended(job) for job in allowed):
            return len([*self._remaining()])
        return len(allowed)

    def _remaining(self) -> Iterator[StudyJob]:
        """Yield the jobs of the study without those that were left out by a look."""
        order = {seed: count for count, seed in enumerate(self.study.seeds)}
        stopped = self.stopped
        for job in self.expansion.jobs:
            limit = stopped.get(job.arm or "", len(order))
            if job.part == "warm-up":
                if self._is_needed(job):
                    yield job
            elif job.seed is not None and order[job.seed] < limit:
                yield job

    def _is_needed(self, warm_up: StudyJob) -> bool:
        """Return if a warm-up exists, or a run that starts from it was not recorded."""
        runs = (job for job in self.expansion.of("training") if job.needs == warm_up.digest)
        return warm_up.digest in self.known or any(run.digest not in self.recorded.jobs for run in runs)

    def _seconds_left(self, now: datetime) -> float | None:
        expected = expected_costs(self.expansion, self.known)
        left = [left_of(job, expected, self.known, now) for job in self._remaining() if not self.ended(job)]
        if any(one is None for one in left):
            return None
        left.append(self._points_to_come * self._point_seconds(expected))
        held = sum(slots(job) for job in self.known.values() if job.status.held)
        return sum(one for one in left if one is not None) / max(1, held)

    def _notes(self) -> list[str]:
        notes = [
            f"arm {arm} was stopped after {seeds} seeds: worse than the baseline" for arm, seeds in self.stopped.items()
        ]
        if self.study.search is not None and not self.points_in_budget:
            notes.append(f"the budget of {self.study.budget_slot_hours:g} slot-hours allows no further points")
        seeds = self._seeds_in_budget()
        if seeds < len(self.study.seeds):
            notes.append(f"the budget of {self.study.budget_slot_hours:g} slot-hours allows {seeds} seeds so far")
        for job in self.expansion.jobs:
            found = self.known.get(job.digest)
            if found is not None and found.status in BROKEN and self.ended(job):
                notes.append(f"{found.name} {found.status}: see `calibrl show {found.id}`")
        return notes
