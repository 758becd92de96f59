"""The runner: submits the jobs of a study, retries failed ones, and stops arms. It can be interrupted at any moment:
it reads the state of the study from the service.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

from calibrl.client import CalibrlError, Client
from calibrl.schemas.jobs import JobSummary
from calibrl.schemas.status import JobStatus, Reason
from calibrl.schemas.studies import StudySpec
from calibrl.studies.expansion import DIGEST, RETRIES, STUDY, Expansion, StudyJob, expand
from calibrl.studies.state import (
    Progress,
    broken,
    expected_costs,
    left_of,
    preferred,
    retried,
    seeds_in_budget,
    slot_hours,
    slots,
    to_retry,
)

PAGE = 1000  # jobs per request
SUBMITTED_AT_ONCE = 40  # jobs per step: the caller shows the progress in between
CONFLICT = 409  # HTTP: the project has reached its limit of waiting jobs, or a job changed a moment ago

# Returns the arms to stop after the first N seeds of a study are evaluated.
Look = Callable[["StudyRunner", int], Sequence[str]]


class StudyRunner:
    """Runner of one study."""

    def __init__(self, client: Client, study: StudySpec, look: Look | None = None) -> None:
        """Expand the study.

        Args:
            look: returns the arms to stop after the first N seeds are evaluated. None: no arm is stopped.

        Raises:
            SpecError: the study is invalid.
        """
        self.study = study
        self.expansion: Expansion = expand(study)
        self.known: dict[str, JobSummary] = {}  # jobs that exist, by digest
        self.stopped: dict[str, int] = {}  # number of seeds at the look that stopped an arm
        self.client, self._look = client, look
        self._project = str(study.base.get("project", "default"))
        self._absent: set[str] = set()  # digests of which the project had no job
        self._refusals: list[str] = []  # of this step

    def read(self) -> Progress:
        """Read the state of the study. Changes nothing."""
        self._read_jobs()
        return self._progress(self._allowed())

    def step(self) -> Progress:
        """Read the state of the study, retry and submit what should run now, and return the progress.

        Raises:
            CalibrlError: a request failed. The next call continues.
        """
        self._read_jobs()
        self._refusals = []
        for failed in to_retry(self.expansion, self.known, self.study.retries):
            self._retry(failed)
        allowed = self._allowed()
        room = SUBMITTED_AT_ONCE
        for job in allowed:
            if room and job.digest not in self.known and self._can_submit(job):
                room = room - 1 if self._submit(job) else 0
        return self._progress(allowed)

    def _read_jobs(self) -> None:
        found: dict[str, list[JobSummary]] = {}
        for job in self._labelled({STUDY: self.study.name}):
            found.setdefault(job.labels.get(DIGEST, ""), []).append(job)
        for planned in self.expansion.jobs:
            digest = planned.digest
            if digest in found:
                self.known[digest] = preferred(found[digest])
            elif digest in self.known and not self.known[digest].status.final:  # of another study
                self.known[digest] = self.client.job(self.known[digest].id)
            elif digest not in self.known and digest not in self._absent:
                self._adopt(digest)

    def _adopt(self, digest: str) -> None:
        """Use a job of another study that has the same settings, if there is one."""
        if others := [*self._labelled({DIGEST: digest})]:
            self.known[digest] = preferred(others)
        else:
            self._absent.add(digest)

    def _labelled(self, labels: dict[str, str]) -> Iterator[JobSummary]:
        after: UUID | None = None
        while True:
            page = self.client.jobs(project=self._project, labels=labels, after=after, limit=PAGE)
            yield from page.data
            if not page.has_more:
                return
            after = page.data[-1].id

    def _allowed(self) -> list[StudyJob]:
        """Return the jobs that should run: of all arms and seeds, without stopped arms, up to the next look and within
        the budget.
        """
        arms = [arm.name for arm in self.expansion.arms]
        last = len(self.study.seeds)
        allowed = list(self.expansion.of("warm-up"))
        for look in (*(self.study.stop.after_seeds if self.study.stop else ()), last):
            self._stop_arms(look, arms)
            if not self._evaluated(look, arms):
                last = look
                break
        budget = seeds_in_budget(self.study, self.expansion, self.known, self._active(arms))
        for count, seed in enumerate(self.study.seeds[: min(last, budget)]):
            for job in self.expansion.jobs:
                runs = job.arm is not None and count < self.stopped.get(job.arm, last)
                if job.seed == seed and job.part != "warm-up" and runs:
                    allowed.append(job)
        return allowed

    def _active(self, arms: Sequence[str]) -> list[str]:
        return [arm for arm in arms if arm not in self.stopped]

    def _evaluated(self, seeds: int, arms: Sequence[str]) -> bool:
        """Return if all evaluations of the first seeds of the arms that still run have ended."""
        first, active = self.study.seeds[:seeds], self._active(arms)
        jobs = [job for job in self.expansion.of("evaluation") if job.seed in first and job.arm in active]
        return all(self._ended(job) for job in jobs)

    def _ended(self, job: StudyJob) -> bool:
        found = self.known.get(job.digest)
        succeeded = found is not None and found.status is JobStatus.SUCCEEDED
        return succeeded or broken(job, self.expansion, self.known, self.study.retries)

    def _stop_arms(self, look: int, arms: Sequence[str]) -> None:
        if self._look is not None and look < len(self.study.seeds) and self._evaluated(look, arms):
            for arm in self._look(self, look):
                self.stopped.setdefault(arm, look)

    def _can_submit(self, job: StudyJob) -> bool:
        if job.needs is None:
            return True
        before = self.known.get(job.needs)
        return before is not None and before.status not in (JobStatus.FAILED, JobStatus.CANCELLED)

    def _submit(self, job: StudyJob) -> bool:
        """Submit a job; return False if the project has no room for it now."""
        before = self.known[job.needs].id if job.needs else None
        try:
            self.known[job.digest] = self.client.submit(job.spec_from(before))
        except CalibrlError as error:
            if error.status != CONFLICT:
                raise
            self._refusals.append(f"{job.spec['name']} is not submitted yet: {error}")
            return False
        return True

    def _retry(self, planned: StudyJob) -> None:
        job = self.known[planned.digest]
        try:
            if job.reason is not Reason.DEPENDENCY_FAILED:
                self.client.edit(job.id, labels={RETRIES: str(retried(job) + 1)})
            self.known[planned.digest] = self.client.retry(job.id)
        except CalibrlError as error:
            if error.status != CONFLICT:
                raise
            self._refusals.append(f"{job.name} is not retried: {error}")

    def _progress(self, allowed: Sequence[StudyJob]) -> Progress:
        now = datetime.now(UTC)
        found = [self.known[job.digest] for job in allowed if job.digest in self.known]
        succeeded = sum(job.status is JobStatus.SUCCEEDED for job in found)
        failed = sum(broken(job, self.expansion, self.known, self.study.retries) for job in allowed)
        running = sum(job.status.held for job in found)
        planned = self._planned(allowed)
        return Progress(
            planned=planned,
            succeeded=succeeded,
            failed=failed,
            running=running,
            waiting=max(0, planned - succeeded - failed - running),
            slot_hours=slot_hours(found, now),
            seconds_left=self._seconds_left(now),
            stopped=dict(self.stopped),
            notes=self._notes(),
        )

    def _planned(self, allowed: Sequence[StudyJob]) -> int:
        """Return the number of jobs that should run now or after the next look."""
        if not all(self._ended(job) for job in allowed):
            return len([*self._remaining()])
        return len(allowed)

    def _remaining(self) -> Iterator[StudyJob]:
        """Yield the jobs of the study without those that were left out by a look."""
        order = {seed: count for count, seed in enumerate(self.study.seeds)}
        for job in self.expansion.jobs:
            limit = self.stopped.get(job.arm or "", len(order))
            if job.part == "warm-up" or (job.seed is not None and order[job.seed] < limit):
                yield job

    def _seconds_left(self, now: datetime) -> float | None:
        expected = expected_costs(self.expansion, self.known)
        left = [left_of(job, expected, self.known, now) for job in self._remaining() if not self._ended(job)]
        if any(one is None for one in left):
            return None
        held = sum(slots(job) for job in self.known.values() if job.status.held)
        return sum(one for one in left if one is not None) / max(1, held)

    def _notes(self) -> list[str]:
        notes = [
            f"arm {arm} was stopped after {seeds} seeds: worse than the baseline" for arm, seeds in self.stopped.items()
        ]
        arms = self._active([arm.name for arm in self.expansion.arms])
        seeds = seeds_in_budget(self.study, self.expansion, self.known, arms)
        if seeds < len(self.study.seeds):
            notes.append(f"the budget of {self.study.budget_slot_hours:g} slot-hours allows {seeds} seeds so far")
        for job in self.expansion.jobs:
            found = self.known.get(job.digest)
            if found is not None and found.status in (JobStatus.FAILED, JobStatus.CANCELLED) and self._ended(job):
                notes.append(f"{found.name} {found.status}: see `calibrl show {found.id}`")
        return [*notes, *self._refusals]
