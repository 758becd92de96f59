"""The service on this machine as child processes: database, queue, API, worker and dashboard."""

import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx

from calibrl.client import STACK_FILE
from calibrl.processes import children
from calibrl.processes.children import Process
from calibrl.settings import StackSettings
from calibrl.stack.identity import Identity, write_private
from calibrl.stack.kept_process import KeptProcess
from calibrl.stack.service_folder import service_folder
from calibrl.stack.services import (
    Postgres,
    RunningProcesses,
    StackError,
    Valkey,
    free_port,
    last_line,
    lock_folder,
    wait_until,
)

__all__ = ["LocalStack", "StackError"]

API_PORT, DASHBOARD_PORT = 8571, 8572  # of the first stack on a machine; others get free ports
MIGRATION_SECONDS = 120.0
STOP_SECONDS = 10.0
OF_ANOTHER_SERVICE = "CALIBRL_PROFILE"  # names another service; the processes get the URL of this stack
# Variables that the libraries of these processes read: the stack sets all of their settings itself.
FOREIGN = ("CELERY_", "KOMBU_", "FLOWER_", "STREAMLIT_", "UVICORN_", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS")
CELERY_FLAGS = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO")
# The database is local: short times let a cancelled job stop soon, and the job of a killed stack continue soon.
LOCAL_SETTINGS = {"heartbeat_seconds": "1", "lease_seconds": "15", "max_stop_grace_seconds": "120"}


def own_folders(data_dir: Path) -> str:
    """Return the folders that jobs of a local stack can read from: the user's home, the data folder, and the folder in
    which the stack is started. Only this user gets the key of the stack, by file or by the printed address."""
    folders = [data_dir, Path.cwd()]
    with suppress(RuntimeError):  # the user has no home
        folders.insert(0, Path.home())
    usable = [str(folder) for folder in folders if folder != folder.parent and os.pathsep not in str(folder)]
    return os.pathsep.join(dict.fromkeys(usable))


def _refusal(port: int) -> str | None:
    """Return why no server can listen at a port of this machine, or None if one can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror
    return None


class LocalStack(RunningProcesses):
    """Context manager: all processes run inside it, and none after it. Enter it from the main thread.

    Data and logs are in `data_dir`, which one stack at a time can use. DATABASE_URL and REDIS_URL, if set, replace the
    embedded servers. If this process is killed, the kernel kills its children. Raises StackError, one line, if a
    process does not start, or if a port that is given can't be used. Other ports are those of the last start of the
    data folder, else API_PORT and DASHBOARD_PORT, else free ones.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        api_port: int | None = None,
        dashboard_port: int | None = None,
        dashboard: bool = True,
    ) -> None:
        super().__init__()
        self.data_dir = data_dir.expanduser().absolute()
        self._logs = self.data_dir / "logs"
        self._api_port, self._dashboard_port = api_port, dashboard_port
        self._with_dashboard = dashboard
        self._settings = StackSettings.read()
        self._code = service_folder()
        self._running: list[KeptProcess] = []
        self.api_url = self.api_key = ""
        self.dashboard_url: str | None = None  # with a token that signs its reader in

    def check(self) -> None:
        """Check that all processes run.

        Raises:
            StackError: a process has ended.
        """
        for kept in self._running:
            if end := kept.end:
                raise StackError(end)

    def restart_ended(self) -> list[str]:
        """Start each process again that has ended, with the same address. Return a sentence about each.

        Raises:
            StackError: a process has ended too often.
        """
        ends = [(kept, end) for kept in self._running if (end := kept.end)]
        for kept, _ in ends:
            kept.restart()
        return [f"{end}; it was started again" for _, end in ends]

    def _start(self) -> None:
        """Start all processes. They stop in reverse order."""
        self._exit.callback(lock_folder(self.data_dir).release)
        (self.data_dir / STACK_FILE).unlink(missing_ok=True)  # of a killed stack
        self._logs.mkdir(exist_ok=True)
        identity = self._identity()
        self.api_url = f"http://127.0.0.1:{identity.api_port}"
        public = {"CALIBRL_API_URL": self.api_url, "CALIBRL_API_KEY": self.api_key}
        private = public | {"CALIBRL_DATA_DIR": str(self.data_dir)}
        dashboard_ready = self._start_dashboard(public, identity) if self._with_dashboard else None
        services = self._start_services()
        private |= services | self._local_settings()
        if self.dashboard_url:
            private["CALIBRL_DASHBOARD_URL"] = (
                self._settings.dashboard_url or self.dashboard_url.partition("/signin")[0]
            )
        api_ready = self._start_api(private)  # its imports take longer than the migrations
        self._migrate(private)
        self._start_worker(private)
        self._wait(api_ready, "api")
        if dashboard_ready:
            self._wait(dashboard_ready, "dashboard")
        self._write_stack_file(services)

    def _identity(self) -> Identity:
        """Choose the key and the ports, and store them for the next start."""
        identity = Identity.read(self.data_dir)
        key = self._settings.api_key
        self.api_key = key.get_secret_value() if key else identity.api_key
        identity.api_port = self._port(self._api_port, identity.api_port, API_PORT)
        if self._with_dashboard:
            identity.dashboard_port = self._port(self._dashboard_port, identity.dashboard_port, DASHBOARD_PORT)
        identity.write(self.data_dir)
        return identity

    def _port(self, given: int | None, last: int, usual: int) -> int:
        """Return the port to use.

        Raises:
            StackError: the given port can't be used.
        """
        if given is not None:
            if refusal := _refusal(given):
                raise StackError(f"port {given} can't be used ({refusal}); choose another or leave it out")
            return given
        return next((port for port in (last, usual) if port and self._reserve(port)), None) or free_port()

    def _reserve(self, port: int) -> bool:
        """Reserve a port until this stack stops. Return False if it is in use: a server listens, or will soon."""
        if _refusal(port):
            return False
        # A name that the kernel frees with this process. Like ports, such names belong to a network namespace.
        name = self._exit.enter_context(socket.socket(socket.AF_UNIX))
        try:
            name.bind(f"\0calibrl-port-{port}")
        except OSError:
            return False
        return True

    def _start_services(self) -> dict[str, str]:
        """Start the servers that the environment does not name. Return the URLs of both."""
        valkey = None if self._settings.redis_url else Valkey(self.data_dir / "valkey", self._log("valkey"))
        postgres = None if self._settings.database_url else Postgres(self.data_dir / "postgres", self._log("postgres"))
        services = [service for service in (valkey, postgres) if service]
        for service in services:
            self._exit.callback(service.stop)  # also if it does not start
            self._keep(service.log.stem, service.start, partial(_stop, service))
        for service in services:
            service.wait_ready()
        database_url = postgres.url if postgres else self._settings.need("database_url")
        redis_url = valkey.url if valkey else self._settings.need("redis_url")
        return {"DATABASE_URL": database_url, "REDIS_URL": redis_url}

    def _local_settings(self) -> dict[str, str]:
        fields = self._settings.model_fields_set
        values = {name: value for name, value in LOCAL_SETTINGS.items() if name not in fields}
        # Absolute by now: a relative path counts from the current folder of this process, not of its children.
        values["allowed_roots"] = own_folders(self.data_dir)
        values |= {name: getattr(self._settings, name) for name in ("allowed_roots", "storage") if name in fields}
        return {f"CALIBRL_{name.upper()}": value for name, value in values.items()}

    def _migrate(self, env: dict[str, str]) -> None:
        command = ["alembic", "-c", str(self._code / "alembic.ini"), "upgrade", "head"]
        process = self._run("migrations", command, env)
        children.ended(process, MIGRATION_SECONDS)
        if children.stop(process, 0) != 0:
            log = self._log("migrations")
            raise StackError(f"the database could not be migrated: {last_line(log)} (see {log})")

    def _start_api(self, env: dict[str, str]) -> Callable[[], bool]:
        address = _listen(self.api_url, "--host", "--port")
        command = ["uvicorn", "api.main:app", *address, "--timeout-graceful-shutdown", "3"]
        self._keep_program("api", command, env)
        return lambda: _answers(f"{self.api_url}/readyz")

    def _start_dashboard(self, env: dict[str, str], identity: Identity) -> Callable[[], bool]:
        url, token = f"http://127.0.0.1:{identity.dashboard_port}", identity.dashboard_token
        self.dashboard_url = f"{url}/signin?token={token}"
        script = str(self._code / "dashboard" / "streamlit_app.py")
        options = _listen(url, "--server.address", "--server.port")
        for host in ("127.0.0.1", "localhost"):  # no other name, which a hostile page may have led here
            options += ["--server.allowedHosts", host]
        secret = {"CALIBRL_DASHBOARD_TOKEN": token}
        self._keep_program("dashboard", ["streamlit", "run", script, *options], env | secret)
        return lambda: _answers(f"{url}/_stcore/health")

    def _start_worker(self, env: dict[str, str]) -> None:
        """Start a worker with a slot per GPU of this machine, and slots for jobs without a GPU."""
        grace = self._settings.max_stop_grace_seconds + self._settings.heartbeat_seconds + STOP_SECONDS
        name = self._settings.worker_name
        command = ["celery", "-A", "worker.tasks", "worker", "-n", f"{name}@%h", *CELERY_FLAGS]
        self._keep_program("worker", command, env | {"CALIBRL_WORKER_NAME": name}, grace)

    def _keep_program(
        self, name: str, command: Sequence[str], env: dict[str, str], grace: float = STOP_SECONDS
    ) -> None:
        self._keep(name, partial(self._run, name, command, env), partial(children.stop, grace=grace))

    def _keep(self, name: str, start: Callable[[], Process], stop: Callable[[Process], object]) -> None:
        """Start a process that runs until the stack stops."""
        kept = KeptProcess(name, self._log(name), start, stop)
        self._running.append(kept)
        self._exit.callback(kept.stop)

    def _run(self, name: str, command: Sequence[str], env: dict[str, str]) -> Process:
        passed_on = {name: value for name, value in os.environ.items() if not self._is_foreign(name.upper())}
        paths = [str(Path(entry).absolute()) for entry in passed_on.get("PYTHONPATH", "").split(os.pathsep) if entry]
        # The processes that these start inherit it.
        path = os.pathsep.join([str(self._code), *paths])
        everything = passed_on | env | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
        # Celery and uvicorn put the current folder first on the import path: a `worker.py` there would be imported.
        return children.start([sys.executable, "-m", *command], log=self._log(name), env=everything, cwd=self._code)

    def _is_foreign(self, variable: str) -> bool:
        """Return True for a variable that would lead a library of the stack to other settings or servers."""
        of_libpq = variable.startswith("PG") and not self._settings.database_url
        return of_libpq or variable == OF_ANOTHER_SERVICE or variable.startswith(FOREIGN)

    def _wait(self, ready: Callable[[], bool], name: str) -> None:
        def ready_or_broken() -> bool:
            self.check()
            return ready()

        process = next(kept.process for kept in self._running if kept.name == name)
        wait_until(ready_or_broken, process, f"the {name}", self._log(name))

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _write_stack_file(self, services: dict[str, str]) -> None:
        path = self.data_dir / STACK_FILE
        self._exit.callback(path.unlink, missing_ok=True)
        addresses = {"api_url": self.api_url, "dashboard_url": self.dashboard_url, "api_key": self.api_key}
        for_workers = {name.lower(): url for name, url in services.items()}
        write_private(path, {**addresses, "pid": os.getpid(), **for_workers})


def _stop(service: Postgres | Valkey, _: Process) -> None:
    service.stop()


def _listen(url: str, host_option: str, port_option: str) -> list[str]:
    host, _, port = url.removeprefix("http://").partition(":")
    return [host_option, host, port_option, port]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10, trust_env=False).is_success
    except httpx.HTTPError:
        return False
