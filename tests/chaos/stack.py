"""The stack under test: PostgreSQL, Valkey, the API, and two worker machines, each in a separate network."""

import os
import secrets
import signal
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import httpx
import redis
from alembic import command
from alembic.config import Config

from calibrl.client import Client
from calibrl.processes import children
from calibrl.processes.children import Process
from calibrl.schemas import WorkerStatus
from calibrl.stack.services import Postgres, RunningProcesses, Valkey, free_port
from jobs import db
from jobs.lifecycle import machines
from jobs.settings import get_settings
from tests.chaos import network, orders
from tests.chaos.machine import Machine
from tests.support import ROOT
from tests.support.fake_nvml import Card, environment, write
from tests.support.waiting import eventually

LEASE_SECONDS = 5.0
MACHINES = ("left", "right")
SLOTS = (2, 1)  # of each machine: CPU slots and GPUs
TIMES = {
    "CALIBRL_HEARTBEAT_SECONDS": "0.3",
    "CALIBRL_SWEEP_SECONDS": "0.4",
    "CALIBRL_STOP_GRACE_SECONDS": "20",
    "CALIBRL_MAX_ATTEMPTS": "30",
}


class OpenPostgres(Postgres):
    """A PostgreSQL server that is reachable from the other namespaces."""

    hosts: Sequence[str] = ()

    def _run(self, program: str, *arguments: str | Path) -> Process:
        if program != "postgres":
            return super()._run(program, *arguments)
        access = self.folder / "data" / "pg_hba.conf"
        lines = [f"host all all {host}/24 scram-sha-256\n" for host in self.hosts]
        with access.open("a") as file:
            file.writelines(lines)  # added at each start; the first line has precedence
        settings = (
            "listen_addresses=*",
            "log_lock_waits=on",
            "deadlock_timeout=300ms",
            "log_min_duration_statement=500",
        )
        return super()._run(program, *arguments, *(part for setting in settings for part in ("-c", setting)))


class OpenValkey(Valkey):
    """A Valkey server that is reachable from the other namespaces; its addresses are set once it runs."""

    hosts: Sequence[str] = ()

    def wait_ready(self) -> None:
        super().wait_ready()
        with redis.Redis.from_url(self.url) as client:
            client.config_set("bind", " ".join(["127.0.0.1", *self.hosts]))


class ChaosStack(RunningProcesses):
    """A context manager. This process's settings name the same services. `slots`: each machine's CPU slots and GPUs.

    `without`: the faults that this machine does not permit, and why.
    """

    def __init__(
        self,
        folder: Path,
        *,
        trainer: str = "tests.support.fake_trainer",
        slots: tuple[int, int] = SLOTS,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        super().__init__()
        self.folder = folder.absolute()
        self.data_dir = self.folder / "data"
        self._logs = self.folder / "logs"
        self._trainer, self._slots, self.lease_seconds = trainer, slots, lease_seconds
        self.without: dict[str, str] = {}
        self._cables: list[network.Namespace] = []
        self.postgres = OpenPostgres(self.folder / "postgres", self._logs / "postgres.log", durable=False)
        self.valkey = OpenValkey(self.folder / "valkey", self._logs / "valkey.log")
        self.machines: list[Machine] = []
        self.api: Process | None = None
        self._api_port = free_port()
        self._key = secrets.token_urlsafe(32)

    def _start(self) -> None:
        self._logs.mkdir(parents=True)
        if trouble := network.possible():
            self.without["worker cut off"] = trouble
        else:
            self._cables = [self._exit.enter_context(network.Namespace(index)) for index in range(len(MACHINES))]
            self.postgres.hosts = self.valkey.hosts = [cable.host for cable in self._cables]
        self._exit.enter_context(self.valkey)
        self._exit.enter_context(self.postgres)
        self._set_environment()
        self._exit.callback(db.dispose)
        command.upgrade(Config(ROOT / "alembic.ini"), "head")
        self._exit.callback(self.stop_api)
        self.start_api()
        self._start_machines()

    def _set_environment(self) -> None:
        before = dict(os.environ)

        def restore() -> None:
            os.environ.clear()
            os.environ.update(before)
            get_settings.cache_clear()

        self._exit.callback(restore)
        os.environ.update(
            TIMES,
            CALIBRL_LEASE_SECONDS=str(self.lease_seconds),
            DATABASE_URL=self.postgres.url,
            REDIS_URL=self.valkey.url,
            CALIBRL_API_KEY=self._key,
            CALIBRL_DATA_DIR=str(self.data_dir),
            CALIBRL_TRAINER=self._trainer,
            PYTHONPATH=str(ROOT),
            OMP_NUM_THREADS="1",
        )
        get_settings.cache_clear()

    def _start_machines(self) -> None:
        for name, cable in zip_longest(MACHINES, self._cables):
            self._add(name, cable).start()
        self.await_slots()

    def await_slots(self) -> None:
        """Wait until every machine has all its slot processes and accepts jobs."""
        for machine in self.machines:
            machine.await_slots(sum(self._slots))
        eventually(self._all_online)

    def _all_online(self) -> bool:
        found = orders.asked(lambda session: machines.page(session, after="", limit=100))
        return [one.status for one in found] == [WorkerStatus.ONLINE] * len(self.machines)

    def _add(self, name: str, cable: network.Namespace | None) -> Machine:
        cards = self.folder / f"{name}.cards.json"
        write(cards, [Card() for _ in range(self._slots[1])])
        variables = environment(cards, dict(os.environ)) | {"CALIBRL_WORKER_CPU_SLOTS": str(self._slots[0])}
        if cable:
            for variable in ("DATABASE_URL", "REDIS_URL"):
                there = variables[variable].replace("@127.0.0.1:", f"@{cable.host}:")
                variables[variable] = there.replace("hostaddr=127.0.0.1", f"hostaddr={cable.host}")
        machine = Machine(name, self._logs / f"{name}.log", variables, cable)
        self._exit.callback(machine.stop)
        self.machines.append(machine)
        return machine

    def machine(self, name: str) -> Machine:
        """Return the machine with this name."""
        return next(machine for machine in self.machines if machine.name == name)

    def client(self) -> Client:
        """Return a client of this stack's API."""
        return Client(f"http://127.0.0.1:{self._api_port}", self._key)

    def start_api(self) -> None:
        """Start the API and wait until it answers."""
        address = ["--host", "127.0.0.1", "--port", str(self._api_port)]
        api = [sys.executable, "-m", "uvicorn", "api.main:app", *address, "--timeout-graceful-shutdown", "1"]
        self.api = children.start(api, log=self._logs / "api.log", env=dict(os.environ), cwd=ROOT)
        eventually(self._api_answers)

    def stop_api(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop the API."""
        if self.api:
            children.stop(self.api, 10, number)
            self.api = None

    def _api_answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self._api_port}/readyz", timeout=2, trust_env=False).is_success
        except httpx.HTTPError:
            return False
