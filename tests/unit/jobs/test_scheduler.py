"""The scheduler on queues made by hand: ranks, places and reservations, with exact numbers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from calibrl.schemas import Priority, WaitReason
from jobs.scheduling import scheduler
from jobs.scheduling.scheduler import Machine, Placement, QueuedJob, RunningJob, Share, plan

NO_MACHINE, BUSY, RESERVED = WaitReason.NO_MACHINE, WaitReason.BUSY, WaitReason.RESERVED
PROJECT_LIMIT, BUDGET = WaitReason.PROJECT_LIMIT, WaitReason.BUDGET


def queued(
    number: int,
    gpus: int = 1,
    seconds: float | None = None,
    *,
    project: str = "p",
    user: str = "u",
    priority: Priority = "normal",
    labels: Mapping[str, str] | None = None,
    age: float | None = None,
) -> QueuedJob:
    """A job; the lower its number, the older it is."""
    age = 1000.0 - number if age is None else age
    return QueuedJob(UUID(int=number), project, user, priority, gpus, labels or {}, age, seconds)


def running(
    number: int, worker: str, gpus: int = 1, left: float | None = None, *, project: str = "q", leaving: bool = False
) -> RunningJob:
    return RunningJob(UUID(int=number), project, "normal", worker, gpus, left, leaving)


def machine(name: str, gpus: int, free: int, *, cpus: int = 0, free_cpus: int = 0, **labels: str) -> Machine:
    return Machine(name, labels, cpus, gpus, free_cpus, free)


def at(place: str, one: Machine) -> Machine:
    return replace(one, labels={"at": place})


def share(
    weight: float = 1.0,
    recent: float = 0.0,
    max_gpus: int | None = None,
    budget_left: float | None = None,
    left_by_user: Mapping[str, float] | None = None,
) -> Share:
    return Share(weight, recent, max_gpus, budget_left, left_by_user or {})


def by_number(placements: list[Placement]) -> dict[int, Placement]:
    assert [place.position for place in placements] == [*range(1, len(placements) + 1)]
    return {place.job_id.int: place for place in placements}


def order(placements: list[Placement]) -> list[int]:
    return [place.job_id.int for place in placements]


def starts(placements: list[Placement]) -> dict[int, str | None]:
    return {place.job_id.int: place.worker for place in placements if place.starts_in == 0}


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


def test_best_fit_then_name() -> None:
    machines = [machine("c", 4, 2), machine("b", 4, 2), machine("a", 4, 4)]
    assert starts(plan([queued(1)], [], machines, {})) == {1: "b"}
    assert starts(plan([queued(1, 3)], [], machines, {})) == {1: "a"}


def test_labels_must_be_there() -> None:
    machines = [machine("a", 2, 2, gpu="h100"), machine("b", 2, 2, gpu="a100")]
    assert starts(plan([queued(1, labels={"gpu": "a100"})], [], machines, {})) == {1: "b"}
    for labels in ({"gpu": "t4"}, {"gpu": "a100", "room": "2"}):
        (place,) = plan([queued(1, labels=labels)], [], machines, {})
        assert place == Placement(UUID(int=1), 1, None, None, NO_MACHINE)


def test_no_machine_is_large_enough_or_has_a_cpu_slot() -> None:
    placements = by_number(plan([queued(1, 3), queued(2, 0), queued(3, 2)], [], [machine("a", 2, 2)], {}))
    assert {number: place.reason for number, place in placements.items()} == {1: NO_MACHINE, 2: NO_MACHINE, 3: None}


def test_gpus_and_cpu_slots_are_two_things() -> None:
    one = machine("m", 1, 1, cpus=1, free_cpus=1)
    assert starts(plan([queued(1, 0), queued(2, 0), queued(3, 1), queued(4, 1)], [], [one], {})) == {1: "m", 3: "m"}


def test_jobs_of_one_plan_do_not_share_a_slot() -> None:
    placements = by_number(plan([queued(1, 1, 50), queued(2, 1, 50)], [], [machine("m", 1, 1)], {}))
    assert placements[1] == Placement(UUID(int=1), 1, "m", 0.0, None)
    assert placements[2] == Placement(UUID(int=2), 2, None, 50.0, BUSY)
    assert starts(plan([queued(1, 1, 0), queued(2, 1, 0)], [], [machine("m", 1, 1)], {})) == {1: "m"}


# Reservations


def test_a_job_starts_when_enough_have_ended() -> None:
    now = [running(11, "m", 1, 300), running(12, "m", 2, 100), running(13, "m", 1, 200)]
    (place,) = plan([queued(1, 3)], now, [machine("m", 4, 0)], {})
    assert place == Placement(UUID(int=1), 1, None, 200.0, BUSY)
    (place,) = plan([queued(1, 3)], [*now, running(14, "z", 4, 150)], [machine("m", 4, 0), machine("z", 4, 0)], {})
    assert place.starts_in == 150


def test_backfill_only_jobs_that_end_before_the_reservation() -> None:
    now = [running(11, "m", 2, 100)]
    machines = [machine("m", 4, 2)]
    big = queued(1, 4, 500)
    placements = by_number(plan([big, queued(2, 1, 101), queued(3, 1, 100), queued(4, 1)], now, machines, {}))
    assert placements[1] == Placement(UUID(int=1), 1, None, 100.0, BUSY)
    assert placements[2] == Placement(UUID(int=2), 2, None, 600.0, RESERVED, behind=UUID(int=1))
    assert placements[3].worker == "m"
    assert placements[4] == Placement(UUID(int=4), 4, None, 600.0, RESERVED, behind=UUID(int=1))


def test_a_job_of_unknown_length_can_use_unreserved_slots() -> None:
    now = [running(11, "m", 2, 100)]
    placements = by_number(plan([queued(1, 3), queued(2), queued(3)], now, [machine("m", 4, 2)], {}))
    assert placements[1].starts_in == 100
    assert placements[2].worker == "m"
    assert (placements[3].reason, placements[3].behind) == (RESERVED, UUID(int=1))
    assert placements[3].starts_in is None  # the ends of the first two are unknown


def test_every_blocked_job_has_a_reservation() -> None:
    """The third job would delay the second, but not the first."""
    now = [running(11, "a", 1, 100), running(12, "b", 1, 50)]
    machines = [at("a", machine("a", 2, 1)), at("b", machine("b", 2, 1))]
    jobs = [queued(1, 2, 10, labels={"at": "a"}), queued(2, 2, 10, labels={"at": "b"}), queued(3, 1, 60)]
    placements = by_number(plan(jobs, now, machines, {}))
    assert (placements[1].starts_in, placements[2].starts_in) == (100, 50)
    assert placements[3].worker == "a"  # 60 is too long for b


def test_reservations_follow_one_another() -> None:
    now = [running(11, "m", 2, 100)]
    placements = by_number(plan([queued(n, 2, 10 * n) for n in (1, 2, 3)], now, [machine("m", 2, 0)], {}))
    assert [placements[n].starts_in for n in (1, 2, 3)] == [100, 110, 130]


def test_a_small_job_finds_a_gap_between_reservations() -> None:
    now = [running(11, "m", 1, 100), running(12, "m", 1, 200)]
    placements = by_number(plan([queued(1, 2, 50), queued(2, 1, 100), queued(3, 1, 1)], now, [machine("m", 2, 0)], {}))
    assert [placements[n].starts_in for n in (1, 2, 3)] == [200, 100, 250]


def test_without_known_ends_the_machine_with_most_room_is_kept() -> None:
    now = [running(11, "a", 3), running(12, "c", 2), running(13, "b", 1), running(14, "b", 1)]
    machines = [machine("a", 4, 1), machine("b", 4, 2, cpus=1, free_cpus=1), machine("c", 4, 2, cpus=1, free_cpus=1)]
    jobs = [queued(1, 4), queued(2, 2, 1), queued(3, 2), queued(4, 0), queued(5, 0)]
    placements = by_number(plan(jobs, now, machines, {}))
    assert placements[1] == Placement(UUID(int=1), 1, None, None, BUSY)  # keeps c: as much room as b, fewer run
    assert starts([*placements.values()]) == {2: "b", 4: "b", 5: "c"}
    assert placements[3] == Placement(UUID(int=3), 3, None, 1.0, RESERVED, behind=UUID(int=1))  # on b, after 2


def test_jobs_started_in_this_plan_count_as_running() -> None:
    now = [running(11, "a", 1), running(12, "b", 2)]
    machines = [at("a", machine("a", 4, 3)), machine("b", 4, 2)]
    # 1 takes one of a; then a and b have 2 left each, but two run on a, so 2 keeps b.
    placements = plan([queued(1, labels={"at": "a"}), queued(2, 4), queued(3, 2)], now, machines, {})
    assert starts(placements) == {1: "a", 3: "a"}


def test_no_backfill_behind_a_job_with_unknown_end() -> None:
    now = [running(11, "m", 1, 10), running(12, "m", 1, 100)]
    jobs = [queued(1, 1, 20, labels={"at": "m"}), queued(2, 3), queued(3, 3), queued(4, 1, 95), queued(5, 1, 105)]
    # 1 has the free GPU until 20; 2 all from 100 on; 3 is behind it. Nothing of that minds 4.
    placements = by_number(plan(jobs, now, [at("m", machine("m", 3, 1))], {}))
    assert [placements[n].starts_in for n in (1, 2, 3, 4, 5)] == [0, 100, None, None, None]
    dated = [queued(0, 3, 5), queued(2, 4), queued(3, 4), queued(7, 1, 20)]  # 0 ends at 15: it is none of those
    placements = by_number(plan(dated, [replace(now[0], gpus=2), now[1]], [machine("m", 4, 1)], {}))
    assert [placements[n].starts_in for n in (0, 2, 3, 7)] == [10, 100, None, 15]


def test_between_equal_starts_the_better_fit_is_reserved() -> None:
    now = [running(11, "a", 3, 100), running(12, "b", 2, 100)]
    machines = [machine("a", 3, 0), machine("b", 2, 0)]
    placements = by_number(plan([queued(1, 2, 10), queued(2, 3, 10)], now, machines, {}))
    assert [placements[n].starts_in for n in (1, 2)] == [100, 100]


def test_behind_names_the_reservation_that_is_in_the_way() -> None:
    now = [running(11, "m", 1, 100)]
    jobs = [queued(1, 3, 10), queued(2, 3, 10), queued(3, 1, 100), queued(4, 1, 105)]
    placements = by_number(plan(jobs, now, [machine("m", 3, 2)], {}))
    assert [placements[n].starts_in for n in (1, 2, 3, 4)] == [100, 110, 0, 120]
    assert placements[4].behind == UUID(int=1)
    # Free until 110: the first reservation, of one GPU until 105, leaves room; the second doesn't.
    jobs = [queued(1, 2, 5), queued(2, 3, 10), queued(3, 1, 111)]
    now = [running(11, "m", 2, 100), running(12, "m", 1, 105)]
    (*_, last) = plan(jobs, now, [machine("m", 4, 1)], {})
    assert last.worker == "m"
    (*_, last) = plan([jobs[0], queued(2, 4, 10), jobs[2]], now, [machine("m", 4, 1)], {})
    assert last.behind == UUID(int=2)


def test_a_known_end_elsewhere_is_better_than_an_unknown_end() -> None:
    now = [running(11, "a", 1), running(12, "b", 4, 5000)]
    placements = by_number(plan([queued(1, 4), queued(2, 3)], now, [machine("a", 4, 3), machine("b", 4, 0)], {}))
    assert placements[1].starts_in == 5000
    assert placements[2].worker == "a"


def test_an_undated_reservation_holds_one_machine_only() -> None:
    now = [running(11, "a", 1), running(12, "b", 2)]
    jobs = [queued(1, 4), queued(2, 4), queued(3, 1, 1)]
    placements = by_number(plan(jobs, now, [machine("a", 4, 3), machine("b", 4, 2)], {}))
    assert (placements[3].reason, placements[3].behind) == (RESERVED, UUID(int=2))  # b, the better fit, is kept too


def test_a_short_job_can_start_before_two_jobs_with_unknown_ends() -> None:
    now = [running(11, "m", 1, 100)]
    placements = by_number(
        plan([queued(1, 2), queued(2, 2), queued(3, 1, 101), queued(4, 1, 100)], now, [machine("m", 2, 1)], {})
    )
    assert [placements[n].starts_in for n in (1, 2, 3, 4)] == [100, None, None, 0]
    assert placements[3].behind == UUID(int=1)


def test_slots_of_leaving_jobs_and_in_cleaning_are_free_soon() -> None:
    machines = [machine("a", 2, 0), machine("b", 2, 0)]
    now = [running(11, "b", 2, 40), running(12, "a", 1, 9000, leaving=True)]  # the other GPU of a is dirty
    placements = by_number(plan([queued(1, 2), queued(2, 2)], now, machines, {}))
    assert (placements[1].starts_in, placements[2].starts_in) == (30, 40)
    sooner = [now[0], running(12, "a", 2, 7, leaving=True)]
    assert by_number(plan([queued(1, 2)], sooner, machines, {}))[1].starts_in == 7


def test_slots_freed_for_a_high_job_are_not_taken_by_a_lower_one() -> None:
    now = [running(11, "m", 1, None, leaving=True)]
    jobs = [queued(1, 2, priority="high"), queued(2, 1, 31), queued(3, 1, 29)]
    placements = by_number(plan(jobs, now, [machine("m", 2, 1)], {}))
    assert placements[2].reason is RESERVED
    assert placements[3].worker == "m"


def test_a_job_past_its_time_ends_any_moment_but_has_not_ended() -> None:
    (place,) = plan([queued(1)], [running(11, "m", 1, 0)], [machine("m", 1, 0)], {})
    assert place == Placement(UUID(int=1), 1, None, 1.0, BUSY)


def test_jobs_on_drained_machines_count_only_for_their_project() -> None:
    now = [running(11, "gone", 1, 10, project="p")]
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
    assert placements[3].worker == "b"


def test_a_limit_of_gpus_is_none_of_cpu_slots() -> None:
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
    assert placements[2].worker == "m"


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
