"""The runner of a study: what it submits, adopts, retries, holds back and stops, and the progress that it reports."""

from typing import Any

import pytest

from calibrl.client import CalibrlError
from calibrl.schemas import JobStatus, Reason, StudySpec
from calibrl.studies.looks import final_level, look_of
from calibrl.studies.measurements import Measurements
from calibrl.studies.runner import StudyRunner
from calibrl.views.studies import progress_line
from tests.support.study_jobs import STUDY, StudyJobs

WARM_UP = {"changes": {"algorithm": {"type": "sft"}}}
JOBS = [f"slopes {arm} seed {seed} {part}" for seed in (0, 1) for arm in "ab" for part in ("training", "evaluation")]


def study(**changes: Any) -> StudySpec:
    return StudySpec.model_validate(STUDY | changes)


def runner(jobs: StudyJobs, **changes: Any) -> StudyRunner:
    spec = study(**changes)
    return StudyRunner(jobs.client, spec, look_of(spec, Measurements(jobs.client)))


def test_all_jobs_are_submitted_once_each_after_the_one_that_it_needs() -> None:
    jobs = StudyJobs()
    progress = runner(jobs, warm_up=WARM_UP).step()
    assert jobs.names() == ["slopes warm-up", *JOBS]
    warm_up, training, evaluation = list(jobs.jobs_by_id.values())[:3]
    assert training.spec["model"]["from_job"] == str(warm_up.id)
    assert [model["from_job"] for model in evaluation.spec["models"]] == [str(training.id)]
    assert (progress.planned, progress.succeeded, progress.waiting, progress.done) == (9, 0, 9, False)
    runner(jobs, warm_up=WARM_UP).step()
    assert len(jobs.jobs_by_id) == 9


def test_a_new_runner_continues_and_ends() -> None:
    jobs = StudyJobs(room=3)
    progress = runner(jobs).step()
    assert len(jobs.jobs_by_id) == 3
    assert "slopes b seed 0 evaluation is not submitted yet: Quota exceeded" in progress.notes[0]
    jobs.end_open()
    jobs.room = None
    assert not runner(jobs).step().done
    assert sorted(jobs.names()) == sorted(JOBS)
    jobs.end_open()
    progress = runner(jobs).read()
    assert (progress.done, progress.succeeded, progress.failed, progress.seconds_left) == (True, 8, 0, 0)
    assert progress_line("slopes", progress).startswith("slopes: 8/8 jobs ended, 0 running, 0 waiting, 0 failed, 8.00")


def test_status_submits_nothing() -> None:
    jobs = StudyJobs()
    progress = runner(jobs).read()
    assert (jobs.names(), progress.planned, progress.waiting) == ([], 8, 8)


def test_jobs_of_another_study_with_the_same_settings_are_adopted() -> None:
    jobs = StudyJobs()
    runner(jobs, name="earlier", seeds=[0]).step()
    jobs.end_open()
    progress = runner(jobs).step()
    assert [name for name in jobs.names() if name.startswith("slopes")] == JOBS[4:]
    assert (progress.succeeded, progress.planned) == (4, 8)
    other = StudyJobs()
    runner(other, base=STUDY["base"] | {"project": "vision"}, seeds=[0]).step()
    runner(other, seeds=[0]).step()
    assert len(other.jobs_by_id) == 8  # of another project, so not adopted


def test_a_crashed_job_is_retried_as_often_as_the_study_says() -> None:
    jobs = StudyJobs()
    runner(jobs, retries=2).step()
    for count in ("1", "2"):
        jobs.end("a seed 0 training", reason=Reason.CRASHED)
        runner(jobs, retries=2).step()
        again = jobs.named("a seed 0 training")
        assert (again.status, again.labels["study-retries"]) == (JobStatus.QUEUED, count)
    failed = jobs.end("a seed 0 training", reason=Reason.CRASHED)
    jobs.end("a seed 0 evaluation", reason=Reason.DEPENDENCY_FAILED)
    progress = runner(jobs, retries=2).step()
    assert jobs.named("a seed 0 training").status is JobStatus.FAILED
    assert (progress.failed, progress.planned) == (2, 8)
    assert f"see `calibrl show {failed.id}`" in progress.notes[0]


def test_a_dependent_is_retried_after_the_job_that_it_needs() -> None:
    jobs = StudyJobs()
    runner(jobs).step()
    jobs.end("a seed 0 training", reason=Reason.CRASHED)
    jobs.end("a seed 0 evaluation", reason=Reason.DEPENDENCY_FAILED)
    runner(jobs).step()
    assert [jobs.named(f"a seed 0 {part}").status for part in ("training", "evaluation")] == [JobStatus.QUEUED] * 2
    assert "study-retries" not in jobs.named("a seed 0 evaluation").labels


def test_a_failure_that_would_repeat_is_not_retried() -> None:
    jobs = StudyJobs()
    runner(jobs).step()
    jobs.end("a seed 0 training", reason=Reason.OUT_OF_MEMORY)
    jobs.change(jobs.named("b seed 0 training").id, status=JobStatus.CANCELLED, reason=Reason.USER)
    progress = runner(jobs).step()
    assert progress.failed == 4  # with their evaluations
    jobs.change(jobs.named("b seed 0 training").id, status=JobStatus.SUCCEEDED)
    assert runner(jobs).step().failed == 2


def test_nothing_follows_a_warm_up_that_failed() -> None:
    jobs = StudyJobs(room=1)
    runner(jobs, warm_up=WARM_UP).step()
    jobs.room = None
    jobs.end("warm-up", reason=Reason.NON_FINITE)
    progress = runner(jobs, warm_up=WARM_UP).step()
    assert (len(jobs.jobs_by_id), progress.failed, progress.done) == (1, 9, True)


def test_a_seed_is_submitted_if_the_budget_allows_it() -> None:
    """A seed costs 2 arms x (training 1 h + evaluation 1 h) = 4 slot-hours: 8 allow two seeds, not three."""
    jobs = StudyJobs()
    limits = {"seeds": [0, 1, 2], "budget_slot_hours": 8.0}
    runner(jobs, **limits).step()
    assert len(jobs.jobs_by_id) == 4  # nothing has ended from which the cost can be estimated
    jobs.end_open()
    progress = runner(jobs, **limits).step()
    assert len(jobs.jobs_by_id) == 8
    assert progress.notes == ["the budget of 8 slot-hours allows 2 seeds so far"]
    jobs.end_open()
    progress = runner(jobs, **limits).step()
    assert (len(jobs.jobs_by_id), progress.done, progress.planned, progress.slot_hours) == (8, True, 8, 8.0)
    runner(jobs, **limits | {"budget_slot_hours": 11.9}).step()
    assert len(jobs.jobs_by_id) == 8
    runner(jobs, **limits | {"budget_slot_hours": 12.0}).step()
    assert len(jobs.jobs_by_id) == 12


def test_the_time_left_is_that_of_the_jobs_that_are_left() -> None:
    """One seed of four has ended with 4 jobs of an hour; 4 jobs are left, of which two run at the same time."""
    jobs = StudyJobs()
    runner(jobs).step()
    assert runner(jobs).read().seconds_left is None
    for job in JOBS[:4]:
        jobs.end(job)
    assert runner(jobs).read().seconds_left == pytest.approx(4 * 3600)
    for job in (JOBS[4], JOBS[6]):
        ended = jobs.end(job, hours=2)  # after half of the steps
        changes = {"status": JobStatus.RUNNING, "step": 3, "steps_total": 6, "finished_at": ended.finished_at}
        jobs.change(ended.id, **changes)
    assert runner(jobs).read().seconds_left == pytest.approx((2 * 7200 + 2 * 3600) / 2)


# ---- Looks

LOOKS = {"seeds": [0, 1, 2, 3], "baseline": "a", "stop": {"after_seeds": [2, 3]}}


def test_seeds_after_a_look_wait_for_it() -> None:
    jobs = StudyJobs()
    runner(jobs, **LOOKS).step()
    assert len(jobs.jobs_by_id) == 8
    jobs.end_open()
    assert not runner(jobs, **LOOKS).step().done
    assert len(jobs.jobs_by_id) == 12


def test_an_arm_that_is_worse_beyond_the_bound_is_stopped() -> None:
    """Without any spread, b is worse by 1 at the first look: its other seeds are not submitted."""
    jobs = StudyJobs()
    runner(jobs, **LOOKS).step()
    jobs.end_open({"a": [1.0, 1.0, 1.0], "b": [0.0, 0.0, 0.0]})
    for _ in range(2):
        progress = runner(jobs, **LOOKS).step()
        jobs.end_open({"a": [1.0, 1.0, 1.0]})
    assert progress.stopped == {"b": 2}
    assert "arm b was stopped after 2 seeds" in progress.notes[0]
    assert len(jobs.jobs_by_id) == 12
    assert runner(jobs, **LOOKS).step().done


def test_a_better_arm_and_an_unclear_one_go_on() -> None:
    for values in ([1.0, 1.0, 1.0], [0.5, 0.0, 0.0]):
        jobs = StudyJobs()
        runner(jobs, **LOOKS).step()
        jobs.end_open({"a": [0.5, 0.5, 0.0], "b": values})
        assert runner(jobs, **LOOKS).step().stopped == {}


def test_the_last_comparison_uses_the_level_that_is_left() -> None:
    """Looks at 2, 3 and 4 of 4 seeds: below 0.05, and above what Bonferroni's correction over three would leave."""
    assert final_level(study(), 0.05) == 0.05
    assert 0.05 / 3 < final_level(study(**LOOKS), 0.05) < 0.05


def test_evaluations_of_other_prompts_are_not_compared() -> None:
    jobs = StudyJobs()
    runner(jobs, **LOOKS).step()
    jobs.end_open()
    jobs.prompts[jobs.named("b seed 1 evaluation").id] = ["0" * 16, "f" * 16]
    with pytest.raises(CalibrlError, match="of arm b had other prompts on 'test' than arm a"):
        runner(jobs, **LOOKS).step()
