"""How the trainers of a job on several machines find each other: the main machine waits until all have data and models,
then chooses an address and a port of its own, and the others learn them from the database."""

import time

from jobs import lifecycle
from jobs.db import session_scope
from jobs.lifecycle import Claim, Order
from jobs.repository import workers
from jobs.settings import Settings
from worker import addresses
from worker.claim_lease import ClaimLease

POLL_SECONDS = 0.5


def lead(claim: Claim, settings: Settings, lease: ClaimLease) -> str | None:
    """Return the endpoint, "address:port", that the main machine has published, or None after an order to end.

    A machine that is silent for the length of a lease ends the wait: the sweep takes the job.

    Raises:
        OSError: the other machines cannot reach this one.
    """
    while not lease.contact(lambda: _all_ready(claim)):
        if not _wait(lease):
            return None
    address = addresses.own_address(settings)
    endpoint = f"{address}:{addresses.free_port(address)}"
    while not lease.contact(lambda: _publish(claim, settings, endpoint)):
        if not _wait(lease):
            return None
    return endpoint


def follow(claim: Claim, lease: ClaimLease) -> str | None:
    """Return the endpoint once the main machine has chosen it, or None after an order to end.

    The wait ends at the latest when the main machine loses its lease.
    """
    while not lease.contact(lambda: _report_ready(claim)):
        if not _wait(lease):
            return None
    while not (endpoint := lease.contact(lambda: _endpoint(claim))):
        if not _wait(lease):
            return None
    return endpoint


def _wait(lease: ClaimLease) -> bool:
    """Wait a moment; return False after an order to end."""
    if lease.order is not Order.CONTINUE:
        return False
    time.sleep(POLL_SECONDS)
    return True


def _all_ready(claim: Claim) -> bool:
    with session_scope() as session:
        return lifecycle.all_ready(session, claim)


def _publish(claim: Claim, settings: Settings, endpoint: str) -> bool:
    address = endpoint.rpartition(":")[0]
    with session_scope() as session:
        if addresses.is_loopback(address) and len(workers.hosts(session, claim.job_id)) > 1:
            text = f"other machines cannot reach {settings.worker_name} at {address}: set CALIBRL_WORKER_ADDRESS on it"
            raise OSError(text)
        lifecycle.meet_at(session, claim, endpoint)
    return True


def _report_ready(claim: Claim) -> bool:
    with session_scope() as session:
        lifecycle.part_ready(session, claim)
    return True


def _endpoint(claim: Claim) -> str | None:
    with session_scope() as session:
        return lifecycle.endpoint(session, claim)
