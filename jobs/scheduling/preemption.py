"""The choice of running jobs to preempt for a job of a higher class."""

from collections.abc import Collection, Sequence
from uuid import UUID

from jobs.scheduling.situation import Machine, QueuedJob, RunningJob, fits, rank_of, slots_of


def victims(
    job: QueuedJob, running: Sequence[RunningJob], machines: Sequence[Machine]
) -> tuple[list[str], list[UUID]] | None:
    """Return machines and the jobs of a lower class to preempt there so that this job can start. No jobs: enough slots
    are free or about to be free. Return None if too few machines can be freed.

    The machines are chosen one after the other: each time the one that needs the fewest further jobs to go, of as low
    a class as possible. On a machine the lowest class is preempted first, then the last of `running`, which must be in
    the order of start.
    """
    staying = [one for one in running if not one.leaving and (one.gpus > 0) == (job.gpus > 0)]
    left = [machine for machine in machines if fits(job.gpus, job.labels, machine)]
    places: list[Machine] = []
    chosen: list[RunningJob] = []
    while len(places) < job.machines:
        options = [(machine, _more(job, machine, staying, chosen)) for machine in left]
        possible = [(machine, more) for machine, more in options if more is not None]
        if not possible:
            return None
        place, more = min(possible, key=lambda one: (len(one[1]), _classes(one[1]), one[0].name))
        places.append(place)
        left.remove(place)
        chosen += more
    needed = _without_needless(job, places, staying, chosen, ())
    return [place.name for place in places], [one.id for one in needed]


def _more(
    job: QueuedJob, machine: Machine, staying: Sequence[RunningJob], chosen: Sequence[RunningJob]
) -> list[RunningJob] | None:
    """Return the jobs to preempt on one machine in addition to `chosen`, or None if all together do not suffice."""
    more: list[RunningJob] = []
    lower = [
        one for one in staying if machine.name in one.workers and one not in chosen and rank_of(one) > rank_of(job)
    ]
    for one in sorted(lower, key=rank_of)[::-1]:
        if _lack(job, machine, staying, [*chosen, *more]) <= 0:
            break
        more.append(one)
    if _lack(job, machine, staying, [*chosen, *more]) > 0:
        return None
    return _without_needless(job, [machine], staying, more, chosen)


def _without_needless(
    job: QueuedJob,
    places: Sequence[Machine],
    staying: Sequence[RunningJob],
    chosen: Sequence[RunningJob],
    gone: Sequence[RunningJob],
) -> list[RunningJob]:
    """Return those of `chosen` that must go beside `gone`: a large job can make smaller ones unnecessary."""
    needed = [*chosen]
    for one in chosen[::-1]:
        others = [other for other in needed if other is not one]
        if all(_lack(job, place, staying, [*gone, *others]) <= 0 for place in places):
            needed = others
    return needed


def _lack(job: QueuedJob, machine: Machine, staying: Sequence[RunningJob], gone: Collection[RunningJob]) -> int:
    """Return the slots that the job lacks on a machine once the jobs `gone` have left it."""
    size = machine.gpus if job.gpus else machine.cpu_slots
    held = sum(slots_of(one) for one in staying if machine.name in one.workers and one not in gone)
    return slots_of(job) + held - size


def _classes(jobs: Sequence[RunningJob]) -> list[int]:
    return sorted(-rank_of(one) for one in jobs)[::-1]
