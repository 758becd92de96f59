"""The scheduler on queues made by hand: ranks, places and limits, with exact numbers."""

from typing import Any
from uuid import UUID

import pytest

from calibrl.schemas import WaitReason
from jobs.scheduling import scheduler
from jobs.scheduling.scheduler import plan
from jobs.scheduling.situation import Placement, Share
from tests.support.scheduling import (
    BUDGET,
    BUSY,
    NO_MACHINE,
    PROJECT_LIMIT,
    RESERVED,
    by_number,
    machine,
    order,
    queued,
    running,
    share,
    starts,
)

# Ranks


def test_classes_first_then_age() -> None:
    jobs = [queued(1, priority="low"), queued(2), queued(3, priority="high"), queued(4), queued(5, priority="high")]
    assert order(plan(jobs, [], [], {})) == [3, 5, 2, 4, 1]


def test_the_project_with_less_usage_per_weight_is_first() -> None:
    jobs = [queued(1, project="a"), queued(2, project="b"), queued(3, project="new")]
    shares = {"a": share(weight=1, recent=100), "b": share(weight=4, recent=200)}  # 100, 50; new: 0
    assert order(plan(jobs, [], [], shares)) == [3, 2, 1]


def test_between_equal_projects_the_oldest_job_decides() -> None:
    jobs = [queued(3, project="a"), queued(2, project="b"), queued(1, project="c")]
    assert order(plan(jobs, [], [], {})) == [1, 2, 3]


def test_each_place_counts_at_once_for_the_next() -> None:
    jobs = [queued(n, 2, 100, project="a") for n in (1, 2, 3)] + [queued(n, 1, 100, project="b") for n in (4, 5, 6)]
    # a takes 200 a job, b 100: a(0) b(0) b(100) then a and b at 200, a's job is older, then b(200), a(400)
    assert order(plan(jobs, [], [machine("m", 9, 9)], {})) == [1, 4, 5, 2, 6, 3]


def test_a_job_of_unknown_length_counts_for_600_seconds_a_slot() -> None:
    jobs = [queued(1, project="a"), queued(2, project="a"), *(queued(n, 1, 250, project="b") for n in (3, 4, 5, 6))]
    assert order(plan(jobs, [], [machine("m", 9, 9)], {})) == [1, 3, 4, 5, 2, 6]  # a: 600; b: 250, 500, 750


def test_running_jobs_count_with_their_remaining_usage() -> None:
    jobs = [queued(1, project="a"), queued(2, project="b"), queued(3, project="c")]
    now = [running(8, "m", 2, 100, project="a"), running(9, "m", 1, None, project="b")]  # 200, 600
    assert order(plan(jobs, now, [machine("m", 3, 0)], {})) == [3, 1, 2]
    with_leaving = [now[0], running(9, "m", 1, None, project="b", leaving=True)]  # 200, 30
    assert order(plan(jobs, with_leaving, [machine("m", 3, 0)], {})) == [3, 2, 1]


def test_free_slots_of_one_moment_do_not_all_go_to_one_project() -> None:
    jobs = [*(queued(n, project="a") for n in range(1, 5)), *(queued(n, project="b") for n in range(5, 9))]
    assert [*starts(plan(jobs, [], [machine("m", 4, 4)], {}))] == [1, 5, 2, 6]


def test_jobs_that_wait_for_a_machine_count_for_their_project() -> None:
    jobs = [*(queued(n, 1, 100, project="a") for n in (1, 2, 3)), *(queued(n, 1, 100, project="b") for n in (4, 5, 6))]
    assert order(plan(jobs, [running(11, "m", 1, 50)], [machine("m", 1, 0)], {})) == [1, 4, 2, 5, 3, 6]


def test_jobs_that_cannot_run_do_not_count_for_their_project() -> None:
    jobs = [queued(1, user="out"), queued(2, labels={"no": "such"}), queued(3), queued(4, project="b")]
    shares = {"p": share(left_by_user={"out": 0.0})}
    assert starts(plan(jobs, [], [machine("m", 1, 1)], shares)) == {3: "m"}


# Places


def test_the_smallest_machine_with_room_is_used_then_the_first_by_name() -> None:
    machines = [machine("a", 8, 8), machine("c", 4, 2), machine("b", 4, 4)]
    assert starts(plan([queued(1)], [], machines, {})) == {1: "b"}
    assert starts(plan([queued(1, 4), queued(2, 2), queued(3, 2)], [], machines, {})) == {1: "b", 2: "c", 3: "a"}


def test_a_job_without_a_machine_with_its_labels_does_not_start() -> None:
    machines = [machine("a", 2, 2, gpu="h100"), machine("b", 2, 2, gpu="a100")]
    assert starts(plan([queued(1, labels={"gpu": "a100"})], [], machines, {})) == {1: "b"}
    for labels in ({"gpu": "t4"}, {"gpu": "a100", "room": "2"}):
        (place,) = plan([queued(1, labels=labels)], [], machines, {})
        assert place == Placement(UUID(int=1), 1, (), None, NO_MACHINE)


def test_no_machine_is_large_enough_or_has_a_cpu_slot() -> None:
    placements = by_number(plan([queued(1, 3), queued(2, 0), queued(3, 2)], [], [machine("a", 2, 2)], {}))
    assert {number: place.reason for number, place in placements.items()} == {1: NO_MACHINE, 2: NO_MACHINE, 3: None}


def test_gpus_and_cpu_slots_are_two_things() -> None:
    one = machine("m", 1, 1, cpus=1, free_cpus=1)
    assert starts(plan([queued(1, 0), queued(2, 0), queued(3, 1), queued(4, 1)], [], [one], {})) == {1: "m", 3: "m"}


def test_jobs_of_one_plan_do_not_share_a_slot() -> None:
    placements = by_number(plan([queued(1, 1, 50), queued(2, 1, 50)], [], [machine("m", 1, 1)], {}))
    assert placements[1] == Placement(UUID(int=1), 1, ("m",), 0.0, None)
    assert placements[2] == Placement(UUID(int=2), 2, (), 50.0, BUSY)
    assert starts(plan([queued(1, 1, 0), queued(2, 1, 0)], [], [machine("m", 1, 1)], {})) == {1: "m"}


def test_jobs_on_drained_machines_count_only_for_their_project() -> None:
    now = [running(11, "x", 1, 10, project="p")]
    (place,) = plan([queued(1)], now, [machine("m", 1, 1)], {"p": share(max_gpus=1)})
    assert place.reason is PROJECT_LIMIT


# Limits of projects


def test_a_project_at_its_limit_reserves_nothing_and_holds_up_only_its_own() -> None:
    """Its second job would fit, but jobs like it could delay the first one without limit."""
    now = [running(11, "m", 1, 100, project="p")]
    jobs = [queued(1, 2, 10), queued(2, 1, 10), queued(3, 1, 10), queued(4, 2, 1000, project="b"), queued(5, 0)]
    shares = {"p": share(max_gpus=2), "b": share(recent=1e6)}
    placements = by_number(plan(jobs, now, [machine("m", 4, 3, cpus=1, free_cpus=1)], shares))
    assert {n: place.reason for n, place in placements.items()} == {
        1: PROJECT_LIMIT, 2: PROJECT_LIMIT, 3: PROJECT_LIMIT, 4: None, 5: None,
    }  # fmt: skip
    assert all(placements[n].starts_in is None for n in (1, 2, 3))


@pytest.mark.parametrize("changes", [{"gpus": 3}, {"gpus": 2, "labels": {"no": "where"}}])
def test_a_job_that_can_never_start_holds_up_none_of_its_project(changes: dict[str, Any]) -> None:
    jobs = [queued(1, **changes), queued(2, 1)]
    now = [running(11, "m", 1, 100, project="p")]
    assert starts(plan(jobs, now, [machine("m", 4, 3)], {"p": share(max_gpus=2)})) == {2: "m"}


def test_a_job_larger_than_its_project_s_limit() -> None:
    for asks, reason in ((2, None), (3, PROJECT_LIMIT)):
        (place,) = plan([queued(1, asks)], [], [machine("m", 4, 4)], {"p": share(max_gpus=2)})
        assert place.reason is reason


def test_a_project_reserves_no_more_than_it_may_run() -> None:
    """Its second job cannot start with the first: without the limit it would reserve b without use."""
    now = [running(11, "a", 1), running(12, "b", 2)]
    machines = [machine("a", 4, 3), machine("b", 4, 2)]
    jobs = [queued(1, 4), queued(2, 4), queued(3, 2, project="b")]
    shares = {"p": share(max_gpus=4), "b": share(recent=1e6)}
    placements = by_number(plan(jobs, now, machines, shares))
    assert (placements[1].reason, placements[2].reason) == (BUSY, PROJECT_LIMIT)
    assert placements[3].workers == ("b",)


def test_a_limit_of_gpus_does_not_limit_cpu_slots() -> None:
    now = [running(11, "m", 3, 100, project="p")]  # more than it may since the limit was lowered
    one = machine("m", 4, 1, cpus=1, free_cpus=1)
    assert starts(plan([queued(1), queued(2, 0)], now, [one], {"p": share(max_gpus=2)})) == {2: "m"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (share(budget_left=0.0), BUDGET),
        (share(budget_left=-1.0), BUDGET),
        (share(budget_left=0.1), None),
        (share(budget_left=None), None),
        (share(budget_left=9.0, left_by_user={"u": 0.0}), BUDGET),
        (share(budget_left=9.0, left_by_user={"u": 0.1, "v": 0.0}), None),
    ],
)
def test_budgets(settings: Share, reason: WaitReason | None) -> None:
    placements = by_number(plan([queued(1), queued(2, project="b")], [], [machine("m", 2, 2)], {"p": settings}))
    assert (placements[1].reason, placements[1].starts_in) == (reason, None if reason else 0)
    assert placements[2].workers == ("m",)


# Long queues


def test_beyond_the_first_500_blocked_jobs_none_reserves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "MAX_RESERVATIONS", 2)
    now = [running(11, "m", 2, 100)]
    jobs = [queued(n, 3, 10) for n in (1, 2, 3)] + [queued(4, 1, 105), queued(5, 1, 90)]
    placements = by_number(plan(jobs, now, [machine("m", 3, 1)], {}))
    assert [placements[n].starts_in for n in (1, 2, 3, 4, 5)] == [100, 110, None, None, 0]
    assert (placements[3].reason, placements[4].reason) == (BUSY, RESERVED)


def test_until_full_ends_where_nothing_more_can_start() -> None:
    full = [machine("m", 2, 0, cpus=1, free_cpus=1)]
    now = [running(11, "m", 2, 100)]
    gpus = [queued(n, 1, 10) for n in range(1, 9)]
    assert plan(gpus, now, full, {}, until_full=True) == []
    for jobs, expected in (([queued(20, 0), *gpus], [*range(1, 9), 20]), ([queued(0, 0), *gpus], [0])):
        assert order(plan(jobs, now, full, {}, until_full=True)) == expected
    # One GPU is free, but 2 keeps it until 100, when 1 is done: of those behind only a shorter job could have it.
    kept = [queued(1, 1, 100), queued(2, 3, 10), *(queued(n, 1, 101) for n in range(3, 9))]
    assert order(plan(kept, [running(11, "m", 1, 100)], [machine("m", 3, 2)], {}, until_full=True)) == [1, 2]
    shorter = [*kept, queued(9, 1, 100)]
    assert starts(plan(shorter, [running(11, "m", 1, 100)], [machine("m", 3, 2)], {}, until_full=True)) == {
        1: "m", 9: "m",
    }  # fmt: skip


def test_until_full_does_not_wait_for_jobs_that_their_project_holds_back() -> None:
    jobs = [queued(1, project="b"), *(queued(n) for n in range(2, 9))]
    shares = {"p": share(max_gpus=0, recent=1)}
    assert order(plan(jobs, [], [machine("m", 4, 4)], shares, until_full=True)) == [1]
