"""The faults. Each can act at any moment, lets the trainers continue, and repairs its damage."""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import redis

from calibrl.schemas import JobStatus
from calibrl.stack.services import Postgres, Valkey
from jobs import lifecycle, models, queue
from jobs.db import session_scope
from tests.chaos import disk, orders, pids
from tests.chaos.cells import State
from tests.chaos.follower import Follower
from tests.chaos.held_jobs import STEPS
from tests.chaos.scene import Scene
from tests.support.databases import sql
from tests.support.waiting import LIMIT_SECONDS

OUTAGE_SECONDS = 1.0
FLURRY_SECONDS = 2.0
FINISH_SECONDS = 0.8  # about the time from a run's last step to its job's end
DUPLICATES = 20


@dataclass(frozen=True)
class Fault:
    """A fault.

    `reach`: the jobs that one occurrence hits. `loses`: the worker is gone, so its jobs must be claimed again. `holds`:
    the fault can interrupt a transaction, whose locks then last until the server ends it.
    """

    name: str
    reach: Literal["job", "machine", "all"]
    strike: Callable[[Scene], None]
    loses: bool = False
    holds: bool = False


def trainer_killed(scene: Scene) -> None:
    """Kill the trainer and all its child processes."""

    def kill() -> None:
        for subject in scene.victims:
            pids.send(pids.trainers(subject.id), signal.SIGKILL)

    scene.strike(kill)


def supervisor_killed(scene: Scene) -> None:
    """Kill the worker's process that runs the job."""
    scene.strike(lambda: pids.send(_supervisors(scene), signal.SIGKILL))


def supervisor_frozen(scene: Scene) -> None:
    """Stop that process (SIGSTOP) until another one has the job; then it continues, with an invalid fencing token."""
    frozen = _supervisors(scene)
    scene.strike(lambda: pids.send(frozen, signal.SIGSTOP))
    scene.until_taken()
    pids.send(frozen, signal.SIGCONT)
    scene.until_stale_gone()


def worker_killed(scene: Scene) -> None:
    """Kill a worker's main process; a service manager starts it again."""
    machine = scene.machine
    scene.strike(machine.kill)
    machine.start()


def worker_frozen(scene: Scene) -> None:
    """Stop all processes of a worker (SIGSTOP) until others have its jobs; then they continue."""
    machine = scene.machine
    frozen = [machine.pid, *machine.slots]
    scene.strike(lambda: pids.send(frozen, signal.SIGSTOP))
    scene.until_taken()
    pids.send(frozen, signal.SIGCONT)
    scene.until_stale_gone()


def worker_cut_off(scene: Scene) -> None:
    """Disconnect a worker's network until others have its jobs."""
    cable = scene.machine.cable
    assert cable is not None
    scene.strike(cable.cut)
    scene.until_taken()
    cable.join()
    scene.until_stale_gone()


def clock_jumps(scene: Scene) -> None:
    """Set a worker's clock an hour ahead, then an hour behind, then right."""
    machine = scene.machine
    scene.strike(lambda: machine.set_clock("+1h"))
    time.sleep(OUTAGE_SECONDS)
    machine.set_clock("-1h")
    time.sleep(OUTAGE_SECONDS)
    machine.set_clock("+0")


def valkey_killed(scene: Scene) -> None:
    """Kill Valkey and start it again after a second."""
    scene.strike(lambda: _restart(scene.stack.valkey, signal.SIGKILL))


def valkey_restarted(scene: Scene) -> None:
    """Restart Valkey cleanly."""
    scene.strike(lambda: _restart(scene.stack.valkey, signal.SIGTERM))


def valkey_wiped(scene: Scene) -> None:
    """Delete all messages in the broker (FLUSHALL)."""
    scene.strike(lambda: _broker(scene, lambda client: client.flushall()))


def postgres_killed(scene: Scene) -> None:
    """Kill PostgreSQL and start it again after more than a lease period: runs must continue during the outage."""
    away = scene.stack.lease_seconds + OUTAGE_SECONDS
    scene.strike(lambda: _restart(scene.stack.postgres, signal.SIGKILL, away))


def postgres_restarted(scene: Scene) -> None:
    """Restart PostgreSQL with an immediate shutdown."""
    scene.strike(lambda: _restart(scene.stack.postgres, signal.SIGQUIT))


def valkey_cut(scene: Scene) -> None:
    """Close every connection to Valkey (CLIENT KILL)."""

    def cut(client: redis.Redis) -> None:
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)

    scene.strike(lambda: _broker(scene, cut))


def postgres_cut(scene: Scene) -> None:
    """Close every connection to PostgreSQL (pg_terminate_backend)."""
    statement = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
    )
    scene.strike(lambda: sql(scene.stack.postgres.url, statement))


def api_restarted(scene: Scene) -> None:
    """Kill the API while a client follows a job's curve; the client must get every step once."""
    follower = Follower(scene.stack.client(), scene.held.subjects[State.AFTER].id)
    follower.start()
    scene.strike(lambda: scene.stack.stop_api(signal.SIGKILL))
    scene.stack.start_api()
    scene.notes += follower.result(STEPS)


def wakes_doubled(scene: Scene) -> None:
    """Send every machine twenty additional wake-ups."""

    def send() -> None:
        queue.wake({machine.name: DUPLICATES for machine in scene.stack.machines})

    scene.strike(send)


def wakes_lost(scene: Scene) -> None:
    """Remove every wake-up from the broker for two seconds."""
    scene.strike()

    def take(client: redis.Redis) -> None:
        until = time.monotonic() + FLURRY_SECONDS
        queues = [queue.queue_name(machine.name) for machine in scene.stack.machines]
        while time.monotonic() < until:
            client.delete(*queues)
            time.sleep(0.002)

    _broker(scene, take)


def sweeps_doubled(scene: Scene) -> None:
    """Run two more sweeps at the same time, repeatedly, in addition to those of the API and the workers."""
    until = time.monotonic() + FLURRY_SECONDS

    def sweep() -> None:
        while time.monotonic() < until:
            with session_scope() as session:
                lifecycle.sweep(session)

    threads = [threading.Thread(target=sweep) for _ in range(2)]

    def start() -> None:
        for thread in threads:
            thread.start()

    scene.strike(start)
    for thread in threads:
        thread.join()


def cancelled(scene: Scene) -> None:
    """Cancel the jobs, as a user does."""
    _order_all(scene, lifecycle.cancel, {State.CANCELLING})


def paused(scene: Scene) -> None:
    """Pause the jobs, as a user does."""
    _order_all(scene, lifecycle.pause, {State.PAUSING, State.PAUSED, State.CANCELLING})


def _await_stop_orders(scene: Scene) -> None:
    """Wait until the trainers held between two steps have the stop order; released earlier, they could finish."""
    unstopped = {subject.id for subject in scene.victims if subject.state in (State.BEFORE, State.AFTER)}
    deadline = time.monotonic() + LIMIT_SECONDS
    while unstopped and time.monotonic() < deadline:
        unstopped -= {job_id for job_id in unstopped if _rests(orders.job(job_id))}
        time.sleep(0.05)


def disk_full(scene: Scene) -> None:
    """Leave no free byte on the job's disk until it has ended."""

    def fill() -> None:
        for subject in scene.victims:
            disk.fill(subject.folder)

    scene.strike(fill)
    deadline = time.monotonic() + LIMIT_SECONDS
    waiting = {subject.id for subject in scene.victims}
    while waiting and time.monotonic() < deadline:
        waiting -= {job_id for job_id in waiting if _rests(orders.job(job_id))}
        time.sleep(0.05)
    for subject in scene.victims:
        disk.free(subject.folder)


def _rests(job: models.Job) -> bool:
    return job.status.final or job.status is JobStatus.PAUSED


def _supervisors(scene: Scene) -> list[int]:
    found = [pids.supervisor(subject.id) for subject in scene.victims]
    assert None not in found, "a running job has no supervisor"
    return [pid for pid in found if pid is not None]


def _restart(service: Postgres | Valkey, number: signal.Signals, seconds: float = OUTAGE_SECONDS) -> None:
    assert service.process is not None
    service.process.send_signal(number)
    service.stop()
    time.sleep(seconds)
    service.start()
    service.wait_ready()


def _broker(scene: Scene, action: Callable[[redis.Redis], object]) -> None:
    with redis.Redis.from_url(scene.stack.valkey.url, socket_timeout=10) as client:
        action(client)


def _order_all(scene: Scene, order: Callable[..., models.Job], refused: set[State]) -> None:
    """Give every victim this order, at random moments around the end of a run; the second order is refused (409)."""

    def give() -> None:
        for subject in scene.victims:
            if subject.state is State.FINISHING:
                subject.release()
                time.sleep(scene.rng.uniform(0, FINISH_SECONDS))
            if orders.ordered(order, subject.id):
                scene.accepted.add(subject.state)
        _await_stop_orders(scene)

    scene.strike(give)
    hit = {subject.state for subject in scene.victims}
    scene.notes += [f"{state}: the second order was not refused" for state in hit & refused & scene.accepted]
    scene.notes += [f"{state}: refused" for state in hit - refused - scene.accepted - {State.FINISHING}]


FAULTS = (
    Fault("trainer killed", "job", trainer_killed),
    Fault("supervisor killed", "job", supervisor_killed, loses=True),
    Fault("supervisor frozen", "job", supervisor_frozen, loses=True, holds=True),
    Fault("worker killed", "machine", worker_killed, loses=True),
    Fault("worker frozen", "machine", worker_frozen, loses=True, holds=True),
    Fault("worker cut off", "machine", worker_cut_off, loses=True, holds=True),
    Fault("clock jumps", "machine", clock_jumps),
    Fault("Valkey killed", "all", valkey_killed),
    Fault("Valkey restarted", "all", valkey_restarted),
    Fault("Valkey wiped", "all", valkey_wiped),
    Fault("Valkey cut", "all", valkey_cut),
    Fault("Postgres killed", "all", postgres_killed),
    Fault("Postgres restarted", "all", postgres_restarted),
    Fault("Postgres cut", "all", postgres_cut),
    Fault("API restarted", "all", api_restarted),
    Fault("wake-ups doubled", "all", wakes_doubled),
    Fault("wake-ups lost", "all", wakes_lost),
    Fault("sweeps doubled", "all", sweeps_doubled),
    Fault("cancelled", "job", cancelled),
    Fault("paused", "job", paused),
    Fault("disk full", "job", disk_full),
)
