from jobs.lifecycle import TRANSITIONS
from jobs.schemas import JobStatus


def test_the_table_knows_every_status_and_leaves_no_final_one() -> None:
    assert set(TRANSITIONS) == {None, *JobStatus}
    for status in JobStatus:
        assert status.final == (TRANSITIONS[status] == frozenset())


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
