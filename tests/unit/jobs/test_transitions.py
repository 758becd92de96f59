from calibrl.schemas import JobStatus
from jobs.lifecycle import TRANSITIONS


def test_the_table_has_every_status_and_final_ones_only_leave_by_retry() -> None:
    assert set(TRANSITIONS) == {None, *JobStatus}
    in_line = {JobStatus.QUEUED, JobStatus.WAITING}
    assert {status for status in JobStatus if TRANSITIONS[status] <= in_line} == {
        status for status in JobStatus if status.final
    }
    assert TRANSITIONS[JobStatus.SUCCEEDED] == frozenset()


def test_every_status_can_be_reached_and_every_job_can_end() -> None:
    assert frozenset().union(*TRANSITIONS.values()) == frozenset(JobStatus)
    for status in JobStatus:
        seen, ahead = {status}, {status}
        while ahead:
            ahead = set().union(*(TRANSITIONS[each] for each in ahead)) - seen
            seen |= ahead
        assert any(each.final for each in seen)


def test_a_cancel_is_never_undone() -> None:
    assert TRANSITIONS[JobStatus.CANCELLING] == {JobStatus.CANCELLED}
