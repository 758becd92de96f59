"""Actions of the workers of a job on several machines: take a part, prepare it, meet, report its end.

The main machine, with rank 0, holds the lease and reports the run. The other machines only say how far they are. If one
of them is silent for the length of a lease, the sweep takes the job from all. The parts end with the lease.
"""

from dataclasses import replace

from sqlalchemy.orm import Session

from calibrl.schemas import Reason
from jobs.lifecycle.leases import Claim, LeaseLost, Order, described, fence
from jobs.models import JobMachine, PartState
from jobs.repository import job_machines, jobs, workers
from jobs.settings import get_settings
from jobs.specs.trainer_config import SpecNoLongerValid


def take_part(session: Session, *, worker: str) -> Claim | None:
    """Take the part of a job that waits for this worker, or return None.

    A part that cannot be prepared, since something that the spec names is not on this machine, ends at once.
    """
    while part := job_machines.lock_called(session, worker):
        job = jobs.get(session, part.job_id)
        try:
            claim = described(session, job, part.lease_token)
        except SpecNoLongerValid as error:
            job_machines.set_state(part, PartState.ENDED, error.reason, str(error))
            session.flush()
            continue
        job_machines.set_state(part, PartState.PREPARING)
        job_machines.renew(part, get_settings().lease_seconds)
        return replace(claim, gpus=workers.gpus_of(session, worker, job.id), rank=part.rank)
    return None


def part_heartbeat(session: Session, claim: Claim) -> Order:
    """Renew a part and return the order to its worker. Orders of users reach its trainer through the main machine."""
    part = job_machines.lock(session, claim.job_id, claim.rank, claim.token)
    if part is None:
        return Order.ABANDON
    job_machines.renew(part, get_settings().lease_seconds)
    return Order.END if _main(session, claim).state is PartState.ENDED else Order.CONTINUE


def part_ready(session: Session, claim: Claim) -> None:
    """Record that data and models of a part are on its machine.

    Raises:
        LeaseLost: the job has been taken from its machines.
    """
    job_machines.set_state(_held(session, claim), PartState.READY)


def end_part(session: Session, claim: Claim, failure: tuple[Reason, str] | None) -> None:
    """Record that the trainer on a machine has ended. `failure`: reason and message, if it failed by itself.

    Raises:
        LeaseLost: the job has been taken from its machines.
    """
    job_machines.set_state(_held(session, claim), PartState.ENDED, *(failure or (None, None)))


def endpoint(session: Session, claim: Claim) -> str | None:
    """Return the address at which the machines of a job meet, or None if the main machine does not know it yet.

    Raises:
        LeaseLost: the job has been taken from its machines.
    """
    _held(session, claim)
    return _main(session, claim).endpoint


def all_ready(session: Session, claim: Claim) -> bool:
    """Return True once all other machines are ready.

    Raises:
        LeaseLost: the claim no longer holds the job.
    """
    fence(session, claim)
    return all(part.state is PartState.READY for part in _others(session, claim))


def meet_at(session: Session, claim: Claim, address: str) -> None:
    """Let the other machines of a job meet the main machine at `address`, "address:port".

    Raises:
        LeaseLost: the claim no longer holds the job.
    """
    fence(session, claim)
    main = _held(session, claim)
    job_machines.set_state(main, PartState.READY)
    main.endpoint = address


def end_all(session: Session, claim: Claim) -> bool:
    """Let the trainers of the other machines end, since that of the main machine has. Return True once all have.

    Raises:
        LeaseLost: the claim no longer holds the job.
    """
    fence(session, claim)
    if (main := _held(session, claim)).state is not PartState.ENDED:
        job_machines.set_state(main, PartState.ENDED)
    return all(part.state is PartState.ENDED for part in _others(session, claim))


def first_failure(session: Session, claim: Claim) -> tuple[str, Reason, str] | None:
    """Return worker, reason and message of the other machine that failed first, or None."""
    failed = sorted((part for part in _others(session, claim) if part.reason), key=lambda part: part.state_at)
    return next(((part.worker, part.reason, part.message or "") for part in failed if part.reason), None)


def _held(session: Session, claim: Claim) -> JobMachine:
    part = job_machines.lock(session, claim.job_id, claim.rank, claim.token)
    if part is None:
        raise LeaseLost(f"attempt {claim.attempt} no longer holds job {claim.job_id}")
    return part


def _main(session: Session, claim: Claim) -> JobMachine:
    # It exists: the caller has locked another part of the same lease.
    return job_machines.of_job(session, claim.job_id)[0]


def _others(session: Session, claim: Claim) -> list[JobMachine]:
    return job_machines.of_job(session, claim.job_id)[1:]
