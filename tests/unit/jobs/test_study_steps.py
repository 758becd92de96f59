"""The steps of a study: what they submit, adopt, retry, hold back and stop, and the progress."""

from collections.abc import Sequence
from typing import Any

import pytest

from calibrl.schemas import JobStatus, JobSummary, Reason, StudyProgress, StudySpec
from jobs.errors import Conflict
from jobs.studies.expansion import StudyJob
from jobs.studies.looks import final_level
from tests.support.study_jobs import STUDY, StudyJobs

WARM_UP = {"changes": {"algorithm": {"type": "sft"}}}
JOBS = [f"slopes {arm} seed {seed} {part}" for seed in (0, 1) for arm in "ab" for part in ("training", "evaluation")]


def study(**changes: Any) -> StudySpec:
    return StudySpec.model_validate(STUDY | changes)


def step(jobs: StudyJobs, **changes: Any) -> StudyProgress:
    return jobs.step(study(**changes))


def progress(jobs: StudyJobs, **changes: Any) -> StudyProgress:
    """The progress, without a step."""
    return jobs.situation(study(**changes)).progress()


def test_all_jobs_are_submitted_once_each_after_the_one_that_it_needs() -> None:
    jobs = StudyJobs()
    found = step(jobs, warm_up=WARM_UP)
    assert jobs.names() == ["slopes warm-up", *JOBS]
    warm_up, training, evaluation = list(jobs.jobs_by_id.values())[:3]
    assert training.spec["model"]["from_job"] == str(warm_up.id)
    assert [model["from_job"] for model in evaluation.spec["models"]] == [str(training.id)]
    assert (found.planned, found.succeeded, found.waiting, found.done) == (9, 0, 9, False)
    step(jobs, warm_up=WARM_UP)
    assert len(jobs.jobs_by_id) == 9


def test_a_new_step_continues_and_the_last_one_ends() -> None:
    jobs = StudyJobs(room=3)
    found = step(jobs)
    assert len(jobs.jobs_by_id) == 3
    assert "slopes b seed 0 evaluation is not submitted yet: the project has reached its limit" in found.notes[0]
    jobs.end_open()
    jobs.room = None
    assert not step(jobs).done
    assert sorted(jobs.names()) == sorted(JOBS)
    jobs.end_open()
    found = progress(jobs)
    assert (found.done, found.succeeded, found.failed, found.seconds_left) == (True, 8, 0, 0)
    assert (found.running, found.waiting, found.slot_hours) == (0, 0, 8.0)


def test_only_jobs_that_can_run_now_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Existing jobs are adopted in the order in which they start from each other; those after a look are not."""
    jobs, asked, adopt = StudyJobs(), list[str](), StudyJobs.adopt

    def recorded(self: StudyJobs, planned: Sequence[StudyJob]) -> dict[str, JobSummary]:
        asked.extend(f"{job.arm} {job.seed} {job.part}" for job in planned)
        return adopt(self, planned)

    monkeypatch.setattr(StudyJobs, "adopt", recorded)
    step(jobs, seeds=[0])
    asked.clear()
    looks = {"baseline": "a", "stop": {"after_seeds": [2]}}
    step(jobs, name="other", seeds=[0, 1, 2], **looks)
    assert asked[:4] == [f"{arm} {seed} training" for seed in (0, 1) for arm in "ab"]
    assert {*asked[4:]} == {*asked[2:4], "a 0 evaluation", "b 0 evaluation"}
    assert len(jobs.jobs_by_id) == 8


def test_reading_the_progress_submits_nothing() -> None:
    jobs = StudyJobs()
    found = progress(jobs)
    assert (jobs.names(), found.planned, found.waiting) == ([], 8, 8)


def test_jobs_of_another_study_with_the_same_settings_are_adopted() -> None:
    jobs = StudyJobs()
    step(jobs, name="earlier", seeds=[0])
    jobs.end_open()
    found = step(jobs)
    assert [name for name in jobs.names() if name.startswith("slopes")] == JOBS[4:]
    assert (found.succeeded, found.planned) == (4, 8)
    other = StudyJobs()
    step(other, base=STUDY["base"] | {"project": "vision"}, seeds=[0])
    step(other, seeds=[0])
    assert len(other.jobs_by_id) == 8  # of another project, so not adopted


def test_a_crashed_job_is_retried_as_often_as_the_study_says() -> None:
    jobs = StudyJobs()
    step(jobs, retries=2)
    for count in ("1", "2"):
        jobs.end("a seed 0 training", reason=Reason.CRASHED)
        step(jobs, retries=2)
        again = jobs.named("a seed 0 training")
        assert (again.status, again.labels["study-retries"]) == (JobStatus.QUEUED, count)
    failed = jobs.end("a seed 0 training", reason=Reason.CRASHED)
    jobs.end("a seed 0 evaluation", reason=Reason.DEPENDENCY_FAILED)
    found = step(jobs, retries=2)
    assert jobs.named("a seed 0 training").status is JobStatus.FAILED
    assert (found.failed, found.planned) == (2, 8)
    assert f"see `calibrl show {failed.id}`" in found.notes[0]


def test_a_dependent_is_retried_after_the_job_that_it_needs() -> None:
    jobs = StudyJobs()
    step(jobs)
    jobs.end("a seed 0 training", reason=Reason.CRASHED)
    jobs.end("a seed 0 evaluation", reason=Reason.DEPENDENCY_FAILED)
    step(jobs)
    assert [jobs.named(f"a seed 0 {part}").status for part in ("training", "evaluation")] == [JobStatus.QUEUED] * 2
    assert "study-retries" not in jobs.named("a seed 0 evaluation").labels


def test_a_failure_that_would_repeat_is_not_retried() -> None:
    jobs = StudyJobs()
    step(jobs)
    jobs.end("a seed 0 training", reason=Reason.OUT_OF_MEMORY)
    jobs.change(jobs.named("b seed 0 training").id, status=JobStatus.CANCELLED, reason=Reason.USER)
    found = step(jobs)
    assert found.failed == 4  # with their evaluations
    jobs.change(jobs.named("b seed 0 training").id, status=JobStatus.SUCCEEDED)
    assert step(jobs).failed == 2


def test_nothing_follows_a_warm_up_that_failed() -> None:
    jobs = StudyJobs(room=1)
    step(jobs, warm_up=WARM_UP)
    jobs.room = None
    jobs.end("warm-up", reason=Reason.NON_FINITE)
    found = step(jobs, warm_up=WARM_UP)
    assert (len(jobs.jobs_by_id), found.failed, found.done) == (1, 9, True)


def test_a_seed_is_submitted_if_the_budget_allows_it() -> None:
    """A seed costs 2 arms x (training 1 h + evaluation 1 h) = 4 slot-hours: 8 allow two seeds, not three."""
    jobs = StudyJobs()
    limits = {"seeds": [0, 1, 2], "budget_slot_hours": 8.0}
    step(jobs, **limits)
    assert len(jobs.jobs_by_id) == 4  # nothing has ended from which the cost can be estimated
    jobs.end_open()
    found = step(jobs, **limits)
    assert len(jobs.jobs_by_id) == 8
    assert found.notes == ["the budget of 8 slot-hours allows 2 seeds so far"]
    jobs.end_open()
    found = step(jobs, **limits)
    assert (len(jobs.jobs_by_id), found.done, found.planned, found.slot_hours) == (8, True, 8, 8.0)
    step(jobs, **limits | {"budget_slot_hours": 11.9})
    assert len(jobs.jobs_by_id) == 8
    step(jobs, **limits | {"budget_slot_hours": 12.0})
    assert len(jobs.jobs_by_id) == 12


def test_the_time_left_is_that_of_the_jobs_that_are_left() -> None:
    """One seed of four has ended with 4 jobs of an hour; 4 jobs are left, of which two run at the same time."""
    jobs = StudyJobs()
    step(jobs)
    assert progress(jobs).seconds_left is None
    for job in JOBS[:4]:
        jobs.end(job)
    assert progress(jobs).seconds_left == pytest.approx(4 * 3600)
    for job in (JOBS[4], JOBS[6]):
        ended = jobs.end(job, hours=2)  # after half of the steps
        changes = {"status": JobStatus.RUNNING, "step": 3, "steps_total": 6, "finished_at": ended.finished_at}
        jobs.change(ended.id, **changes)
    assert progress(jobs).seconds_left == pytest.approx((2 * 7200 + 2 * 3600) / 2)


# ---- Looks

LOOKS = {"seeds": [0, 1, 2, 3], "baseline": "a", "stop": {"after_seeds": [2, 3]}}


def test_seeds_after_a_look_wait_for_it() -> None:
    jobs = StudyJobs()
    step(jobs, **LOOKS)
    assert len(jobs.jobs_by_id) == 8
    jobs.end_open()
    assert not step(jobs, **LOOKS).done
    assert len(jobs.jobs_by_id) == 12


def test_an_arm_that_is_worse_beyond_the_bound_is_stopped() -> None:
    """Without any spread, b is worse by 1 at the first look: its other seeds are not submitted."""
    jobs = StudyJobs()
    step(jobs, **LOOKS)
    jobs.end_open({"a": [1.0, 1.0, 1.0], "b": [0.0, 0.0, 0.0]})
    for _ in range(2):
        found = step(jobs, **LOOKS)
        jobs.end_open({"a": [1.0, 1.0, 1.0]})
    assert found.stopped == {"b": 2}
    assert "arm b was stopped after 2 seeds" in found.notes[0]
    assert len(jobs.jobs_by_id) == 12
    assert step(jobs, **LOOKS).done


def test_a_better_arm_and_an_unclear_one_go_on() -> None:
    for values in ([1.0, 1.0, 1.0], [0.5, 0.0, 0.0]):
        jobs = StudyJobs()
        step(jobs, **LOOKS)
        jobs.end_open({"a": [0.5, 0.5, 0.0], "b": values})
        assert step(jobs, **LOOKS).stopped == {}


def test_the_last_comparison_uses_the_level_that_is_left() -> None:
    """Looks at 2, 3 and 4 of 4 seeds: below 0.05, and above what Bonferroni's correction over three would leave."""
    assert final_level(study(), 0.05) == 0.05
    assert 0.05 / 3 < final_level(study(**LOOKS), 0.05) < 0.05


def test_evaluations_of_other_prompts_are_not_compared() -> None:
    jobs = StudyJobs()
    step(jobs, **LOOKS)
    jobs.end_open()
    jobs.prompts[jobs.named("b seed 1 evaluation").id] = ["0" * 16, "f" * 16]
    with pytest.raises(Conflict, match="of arm b had other prompts on 'test' than arm a"):
        step(jobs, **LOOKS)
