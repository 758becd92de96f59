"""The scheduler's reservations and backfill on queues made by hand, with exact numbers."""

from dataclasses import replace
from uuid import UUID

from jobs.scheduling.scheduler import plan
from jobs.scheduling.situation import Machine, Placement
from tests.support.scheduling import BUSY, RESERVED, by_number, machine, queued, running, starts


def at(place: str, one: Machine) -> Machine:
    return replace(one, labels={"at": place})


def test_a_job_starts_when_enough_have_ended() -> None:
    now = [running(11, "m", 1, 300), running(12, "m", 2, 100), running(13, "m", 1, 200)]
    (place,) = plan([queued(1, 3)], now, [machine("m", 4, 0)], {})
    assert place == Placement(UUID(int=1), 1, (), 200.0, BUSY)
    (place,) = plan([queued(1, 3)], [*now, running(14, "z", 4, 150)], [machine("m", 4, 0), machine("z", 4, 0)], {})
    assert place.starts_in == 150


def test_backfill_only_jobs_that_end_before_the_reservation() -> None:
    now = [running(11, "m", 2, 100)]
    machines = [machine("m", 4, 2)]
    big = queued(1, 4, 500)
    placements = by_number(plan([big, queued(2, 1, 101), queued(3, 1, 100), queued(4, 1)], now, machines, {}))
    assert placements[1] == Placement(UUID(int=1), 1, (), 100.0, BUSY)
    assert placements[2] == Placement(UUID(int=2), 2, (), 600.0, RESERVED, behind=UUID(int=1))
    assert placements[3].workers == ("m",)
    assert placements[4] == Placement(UUID(int=4), 4, (), 600.0, RESERVED, behind=UUID(int=1))


def test_a_job_of_unknown_length_can_use_unreserved_slots() -> None:
    now = [running(11, "m", 2, 100)]
    placements = by_number(plan([queued(1, 3), queued(2), queued(3)], now, [machine("m", 4, 2)], {}))
    assert placements[1].starts_in == 100
    assert placements[2].workers == ("m",)
    assert (placements[3].reason, placements[3].behind) == (RESERVED, UUID(int=1))
    assert placements[3].starts_in is None  # the ends of the first two are unknown


def test_every_blocked_job_has_a_reservation() -> None:
    """The third job would delay the second, but not the first."""
    now = [running(11, "a", 1, 100), running(12, "b", 1, 50)]
    machines = [at("a", machine("a", 2, 1)), at("b", machine("b", 2, 1))]
    jobs = [queued(1, 2, 10, labels={"at": "a"}), queued(2, 2, 10, labels={"at": "b"}), queued(3, 1, 60)]
    placements = by_number(plan(jobs, now, machines, {}))
    assert (placements[1].starts_in, placements[2].starts_in) == (100, 50)
    assert placements[3].workers == ("a",)  # 60 is too long for b


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
    assert placements[1] == Placement(UUID(int=1), 1, (), None, BUSY)  # keeps c: as much room as b, fewer run
    assert starts([*placements.values()]) == {2: "b", 4: "b", 5: "c"}
    assert placements[3] == Placement(UUID(int=3), 3, (), 1.0, RESERVED, behind=UUID(int=1))  # on b, after 2


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
    assert last.workers == ("m",)
    (*_, last) = plan([jobs[0], queued(2, 4, 10), jobs[2]], now, [machine("m", 4, 1)], {})
    assert last.behind == UUID(int=2)


def test_a_known_end_elsewhere_is_better_than_an_unknown_end() -> None:
    now = [running(11, "a", 1), running(12, "b", 4, 5000)]
    placements = by_number(plan([queued(1, 4), queued(2, 3)], now, [machine("a", 4, 3), machine("b", 4, 0)], {}))
    assert placements[1].starts_in == 5000
    assert placements[2].workers == ("a",)


def test_an_undated_reservation_holds_one_machine_only() -> None:
    now = [running(11, "a", 1), running(12, "b", 2)]
    jobs = [queued(1, 4), queued(2, 4), queued(3, 1, 1)]
    placements = by_number(plan(jobs, now, [machine("a", 4, 3), machine("b", 4, 2)], {}))
    assert (placements[3].reason, placements[3].behind) == (RESERVED, UUID(int=1))  # a; b is kept for job 2


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
    assert placements[3].workers == ("m",)


def test_a_job_past_its_time_ends_any_moment_but_has_not_ended() -> None:
    (place,) = plan([queued(1)], [running(11, "m", 1, 0)], [machine("m", 1, 0)], {})
    assert place == Placement(UUID(int=1), 1, (), 1.0, BUSY)
