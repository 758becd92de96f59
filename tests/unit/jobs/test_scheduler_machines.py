"""The scheduler with jobs on several machines at once, on queues made by hand, with exact numbers."""

from uuid import UUID

from jobs.scheduling.scheduler import plan
from jobs.scheduling.situation import Placement
from tests.support.scheduling import (
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


def test_a_job_starts_on_all_its_machines_the_smallest_first() -> None:
    machines = [machine("a", 4, 4), machine("b", 4, 2), machine("c", 8, 8), machine("d", 2, 2)]
    assert starts(plan([queued(1, 4, machines=2)], [], machines, {})) == {1: "ac"}
    assert starts(plan([queued(1, 2, machines=3), queued(2, 4, machines=2)], [], machines, {})) == {1: "dab"}
    assert starts(plan([queued(1, 4, machines=2), queued(2, 2, machines=3)], [], machines, {})) == {1: "ac", 2: "dbc"}


def test_without_a_gpu_it_takes_a_cpu_slot_of_each_machine() -> None:
    machines = [machine(name, 0, 0, cpus=1, free_cpus=1) for name in "ab"]
    assert starts(plan([queued(1, 0, machines=2), queued(2, 0)], [], machines, {})) == {1: "ab"}


def test_it_takes_none_if_one_is_missing() -> None:
    now = [running(11, "b", 1, 100)]
    machines = [machine("a", 2, 2), machine("b", 2, 1)]
    jobs = [queued(1, 2, machines=2), queued(2, 1, 101), queued(3, 1, 100)]
    placements = by_number(plan(jobs, now, machines, {}))
    assert placements[1] == Placement(UUID(int=1), 1, (), 100.0, BUSY)
    assert (placements[2].reason, placements[2].behind) == (RESERVED, UUID(int=1))  # it would delay job 1
    assert placements[3].workers == ("a",)


def test_too_few_machines_are_large_enough_or_have_the_labels() -> None:
    machines = [machine("a", 2, 2, room="1"), machine("b", 2, 2), machine("c", 1, 1, room="1")]
    jobs = [queued(1, 2, machines=3), queued(2, 1, machines=3, labels={"room": "1"}), queued(3, 1, machines=3)]
    placements = by_number(plan(jobs, [], machines, {}))
    assert [placements[n].reason for n in (1, 2, 3)] == [NO_MACHINE, NO_MACHINE, None]


def test_the_start_is_when_enough_machines_are_free_together() -> None:
    now = [running(11, "a", 1, 50), running(12, "b", 1, 100), running(13, "c", 1, 80)]
    machines = [machine(name, 1, 0) for name in "abc"]
    jobs = [queued(1, 1, 10, machines=2), queued(2, 1, 30), queued(3, 1, 31), queued(4, 1, 5, machines=3)]
    placements = by_number(plan(jobs, now, machines, {}))
    # 1: a and c at 80. 2: a at 50, until 80. 3: a at 90. 4: a is free at 121, b at 100, c at 90.
    assert [placements[n].starts_in for n in (1, 2, 3, 4)] == [80, 50, 90, 121]


def test_a_gap_on_one_machine_must_be_a_gap_on_the_others() -> None:
    now = [running(11, "a", 1, 5), running(12, "b", 1, 20)]
    machines = [machine("a", 2, 1, at="a"), machine("b", 1, 0)]
    jobs = [queued(1, 2, 45, labels={"at": "a"}), queued(2, 1, 3, machines=2), queued(3, 1, 31), queued(4, 1, 30)]
    placements = by_number(plan(jobs, now, machines, {}))
    # a has a free GPU until 5, and again from 50 on; b from 20 on. 3 and 4 would have b from 20 until 50.
    assert [placements[n].starts_in for n in (1, 2, 3, 4)] == [5, 50, 50, 20]


def test_a_job_on_several_machines_frees_all_at_its_end() -> None:
    now = [running(11, "ab", 1, 70), running(12, "b", 1, 10)]
    machines = [machine("a", 1, 0), machine("b", 2, 0)]
    placements = by_number(plan([queued(1, 1, 5, machines=2), queued(2, 2, 5)], now, machines, {}))
    assert [placements[n].starts_in for n in (1, 2)] == [70, 75]


def test_without_known_ends_the_machines_with_most_room_are_kept() -> None:
    now = [running(11, "a", 1), running(12, "b", 1), running(13, "c", 2)]
    machines = [machine("a", 2, 1), machine("b", 2, 1), machine("c", 3, 1)]
    jobs = [queued(1, 2, machines=2), queued(2, 1, 1), queued(3, 1, 1)]
    placements = by_number(plan(jobs, now, machines, {}))
    assert placements[1] == Placement(UUID(int=1), 1, (), None, BUSY)
    assert placements[2].workers == ("c",)
    assert placements[3] == Placement(UUID(int=3), 3, (), 1.0, RESERVED, behind=UUID(int=1))


def test_all_gpus_count_for_the_limit_of_the_project() -> None:
    machines = [machine("a", 4, 4), machine("b", 4, 4)]
    jobs = [queued(1, 2, machines=2), queued(2, 2)]
    placements = by_number(plan(jobs, [], machines, {"p": share(max_gpus=3)}))
    assert [placements[n].reason for n in (1, 2)] == [PROJECT_LIMIT, None]
    now = [running(11, "ab", 1, project="p")]
    placements = by_number(plan([queued(1, 2), queued(2, 1)], now, machines, {"p": share(max_gpus=3)}))
    assert [placements[n].reason for n in (1, 2)] == [PROJECT_LIMIT, PROJECT_LIMIT]  # 2 + 2 > 3; 2 waits behind 1
    assert starts(plan([queued(2, 1)], now, machines, {"p": share(max_gpus=3)})) == {2: "a"}


def test_all_slots_count_for_the_use_of_the_project() -> None:
    jobs = [queued(1, 1, 100, project="a", machines=2), queued(2, 1, 100, project="a")]
    jobs += [queued(3, 1, 150, project="b"), queued(4, 1, 10, project="b")]
    # a: 200 after job 1; b: 150 after job 3, so job 4 is before job 2.
    assert order(plan(jobs, [], [machine("m", 9, 9), machine("n", 9, 9)], {})) == [1, 3, 4, 2]
    now = [running(11, "mn", 1, 100, project="a"), running(12, "m", 1, 150, project="b")]
    assert order(plan([queued(1, project="a"), queued(2, project="b")], now, [machine("m", 9, 9)], {})) == [2, 1]
