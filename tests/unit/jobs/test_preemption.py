"""Choice of the jobs of a lower class to preempt, and of their machines."""

from uuid import UUID

from calibrl.schemas import Priority
from jobs.scheduling.preemption import victims
from jobs.scheduling.situation import Machine, QueuedJob, RunningJob


def queued(number: int, gpus: int, *, priority: Priority = "normal", machines: int = 1, **labels: str) -> QueuedJob:
    return QueuedJob(UUID(int=number), "p", "u", priority, gpus, labels, 0.0, None, machines)


def running(number: int, workers: str, gpus: int, *, priority: Priority, leaving: bool = False) -> RunningJob:
    return RunningJob(UUID(int=number), "q", priority, tuple(workers), gpus, None, leaving)


def machine(name: str, gpus: int, free: int, *, cpus: int = 0, **labels: str) -> Machine:
    return Machine(name, labels, cpus, gpus, 0, free)


def test_lowest_class_first_then_the_youngest() -> None:
    now = [
        running(1, "m", 1, priority="low"),
        running(2, "m", 1, priority="normal"),
        running(3, "m", 1, priority="low"),
        running(4, "m", 1, priority="high"),
    ]
    machines = [machine("m", 4, 0)]
    for needs, expected in ((1, [3]), (2, [3, 1]), (3, [3, 1, 2])):
        assert victims(queued(9, needs, priority="high"), now, machines) == (["m"], [UUID(int=n) for n in expected])
    assert victims(queued(9, 4, priority="high"), now, machines) is None
    assert victims(queued(9, 2, priority="normal"), now, machines) == (["m"], [UUID(int=3), UUID(int=1)])
    assert victims(queued(9, 3, priority="normal"), now, machines) is None
    assert victims(queued(9, 1, priority="low"), now, machines) is None


def test_only_as_many_as_needed_beside_free_slots() -> None:
    now = [running(1, "m", 2, priority="low"), running(2, "m", 1, priority="low")]
    assert victims(queued(9, 2), now, [machine("m", 4, 1)]) == (["m"], [UUID(int=2)])
    assert victims(queued(9, 3), now, [machine("m", 4, 1)]) == (["m"], [UUID(int=1)])  # 2 would go for nothing
    assert victims(queued(9, 4), now, [machine("m", 4, 1)]) == (["m"], [UUID(int=2), UUID(int=1)])


def test_no_job_is_preempted_if_enough_slots_become_free_soon() -> None:
    leaving = [running(1, "m", 2, priority="low", leaving=True), running(2, "m", 2, priority="low")]
    assert victims(queued(9, 2), leaving, [machine("m", 4, 0)]) == (["m"], [])
    assert victims(queued(9, 4), leaving, [machine("m", 4, 0)]) == (["m"], [UUID(int=2)])
    dirty = [running(2, "m", 2, priority="low")]
    assert victims(queued(9, 2), dirty, [machine("m", 4, 0)]) == (["m"], [])


def test_the_machine_with_fewest_and_lowest_jobs_to_preempt_is_used() -> None:
    now = [
        running(1, "a", 1, priority="low"),
        running(2, "a", 1, priority="low"),
        running(3, "b", 2, priority="normal"),
        running(4, "c", 2, priority="low"),
        running(5, "d", 2, priority="low"),
    ]
    names = {"a": 2, "b": 2, "c": 2, "d": 2}
    high = queued(9, 2, priority="high")
    assert victims(high, now, [machine(name, 2, 0) for name in names]) == (["c"], [UUID(int=4)])
    assert victims(high, now, [machine(name, 2, 0) for name in "ba"]) == (["b"], [UUID(int=3)])
    labelled = queued(9, 2, priority="high", x="y")
    assert victims(labelled, now, [machine("c", 2, 0), machine("a", 2, 0, x="y")]) == (
        ["a"],
        [UUID(int=2), UUID(int=1)],
    )
    assert victims(queued(9, 3, priority="high"), now, [machine(name, 2, 0) for name in names]) is None


def test_a_cpu_slot_is_freed_by_a_job_without_gpus_only() -> None:
    now = [running(1, "m", 0, priority="low"), running(2, "m", 1, priority="low")]
    both = [machine("m", 1, 0, cpus=1)]
    assert victims(queued(9, 0), now, both) == (["m"], [UUID(int=1)])
    assert victims(queued(9, 1), now, both) == (["m"], [UUID(int=2)])


def test_machines_for_one_job_are_freed_together() -> None:
    now = [
        running(1, "a", 2, priority="low"),
        running(2, "bc", 2, priority="low"),  # on two machines: it frees both
        running(3, "d", 2, priority="high"),
    ]
    four = [machine(name, 2, 0) for name in "abcd"]
    high = queued(9, 2, priority="high", machines=2)
    assert victims(high, now, four) == (["a", "b"], [UUID(int=1), UUID(int=2)])
    assert victims(high, now, four[1:]) == (["b", "c"], [UUID(int=2)])
    assert victims(queued(9, 2, priority="high", machines=3), now, four) == (
        ["a", "b", "c"],
        [UUID(int=1), UUID(int=2)],
    )
    assert victims(queued(9, 2, priority="high", machines=4), now, four) is None  # d runs a job of the same class


def test_a_job_that_frees_two_machines_makes_another_unnecessary() -> None:
    """On a, job 2 alone is youngest; on b, only job 1 of three GPUs suffices, and it also holds what a lacks."""
    now = [running(1, "ab", 3, priority="low"), running(2, "a", 1, priority="low")]
    both = [machine("a", 4, 0), machine("b", 3, 0)]
    assert victims(queued(9, 1, priority="high", machines=2), now, both) == (["a", "b"], [UUID(int=1)])
