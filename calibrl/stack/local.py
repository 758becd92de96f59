"""The service on this machine as child processes: database, queue, API, worker and dashboard."""

import json
import os
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from calibrl.client import STACK_FILE
from calibrl.processes import children
from calibrl.processes.children import Process
from calibrl.settings import StackSettings
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

MIGRATION_SECONDS = 120.0
STOP_SECONDS = 10.0
OF_ANOTHER_SERVICE = "CALIBRL_PROFILE"  # names another service; the processes get the URL of this stack
CELERY_FLAGS = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO")
# The database is local: short times let a cancelled job stop soon, and the job of a killed stack continue soon.
# Jobs can read what the user who starts the stack can read. Only that user gets the key of the stack, by file or by the
# printed address.
LOCAL_SETTINGS = {"heartbeat_seconds": "1", "lease_seconds": "15", "allowed_roots": "/"}


def chosen_port(port: int | None) -> int:
    """Return the port, or a free one if it is None.

    Raises:
        StackError: the port cannot be used.
    """
    if port is None:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StackError(f"port {port} can't be used ({error.strerror}); choose another or leave it out") from None
    return port


class LocalStack(RunningProcesses):
    """Context manager: all processes run inside it, and none after it. Enter it from the main thread.

    Data and logs are in `data_dir`, which one stack at a time can use. DATABASE_URL and REDIS_URL, if set, replace the
    embedded servers. If this process is killed, the kernel kills its children. Raises StackError, one line, if a
    process does not start.
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
        self._running: dict[str, Process] = {}
        self.api_url = ""
        self.dashboard_url: str | None = None  # with a token that signs its reader in
        key = self._settings.api_key
        self.api_key = key.get_secret_value() if key else "calibrl_" + secrets.token_urlsafe(32)

    def check(self) -> None:
        """Check that all processes run.

        Raises:
            StackError: a process has ended.
        """
        for name, process in self._running.items():
            if children.ended(process):
                raise StackError(f"{name} has ended: {last_line(self._log(name))} (see {self._log(name)})")

    def _start(self) -> None:
        """Start all processes. They stop in reverse order."""
        self._exit.callback(lock_folder(self.data_dir).release)
        self._logs.mkdir(exist_ok=True)
        self.api_url = f"http://127.0.0.1:{chosen_port(self._api_port)}"
        public = {"CALIBRL_API_URL": self.api_url, "CALIBRL_API_KEY": self.api_key}
        private = public | {"CALIBRL_DATA_DIR": str(self.data_dir)}
        dashboard_ready = self._start_dashboard(public) if self._with_dashboard else None
        private |= self._start_services() | self._local_settings()
        api_ready = self._start_api(private)  # its imports take longer than the migrations
        self._migrate(private)
        self._start_worker(private)
        self._wait(api_ready, "api")
        if dashboard_ready:
            self._wait(dashboard_ready, "dashboard")
        self._write_stack_file()

    def _start_services(self) -> dict[str, str]:
        """Start the servers that the environment does not name. Return the URLs of both."""
        valkey = None if self._settings.redis_url else Valkey(self.data_dir / "valkey", self._log("valkey"))
        postgres = None if self._settings.database_url else Postgres(self.data_dir / "postgres", self._log("postgres"))
        services = [service for service in (valkey, postgres) if service]
        for service in services:
            self._exit.callback(service.stop)
            self._running[service.log.stem] = service.start()
        for service in services:
            service.wait_ready()
        database_url = postgres.url if postgres else self._settings.need("database_url")
        redis_url = valkey.url if valkey else self._settings.need("redis_url")
        return {"DATABASE_URL": database_url, "REDIS_URL": redis_url}

    def _local_settings(self) -> dict[str, str]:
        fields = self._settings.model_fields_set
        values = {name: value for name, value in LOCAL_SETTINGS.items() if name not in fields}
        # Absolute by now: a relative path counts from the current folder of this process, not of its children.
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
        self._keep("api", command, env)
        return lambda: _answers(f"{self.api_url}/readyz")

    def _start_dashboard(self, env: dict[str, str]) -> Callable[[], bool]:
        url, token = f"http://127.0.0.1:{chosen_port(self._dashboard_port)}", secrets.token_urlsafe(24)
        self.dashboard_url = f"{url}/signin?token={token}"
        script = str(self._code / "dashboard" / "streamlit_app.py")
        options = _listen(url, "--server.address", "--server.port")
        for host in ("127.0.0.1", "localhost"):  # no other name, which a hostile page may have led here
            options += ["--server.allowedHosts", host]
        self._keep("dashboard", ["streamlit", "run", script, *options], env | {"CALIBRL_DASHBOARD_TOKEN": token})
        return lambda: _answers(f"{url}/_stcore/health")

    def _start_worker(self, env: dict[str, str]) -> None:
        """Start a worker with a slot per GPU of this machine, and slots for jobs without a GPU."""
        grace = self._settings.stop_grace_seconds + self._settings.heartbeat_seconds + STOP_SECONDS
        name = self._settings.worker_name
        command = ["celery", "-A", "worker.tasks", "worker", "-n", f"{name}@%h", *CELERY_FLAGS]
        self._keep("worker", command, env | {"CALIBRL_WORKER_NAME": name}, grace)

    def _keep(self, name: str, command: Sequence[str], env: dict[str, str], grace: float = STOP_SECONDS) -> Process:
        """Start a process that runs until the stack stops."""
        process = self._running[name] = self._run(name, command, env)
        self._exit.callback(children.stop, process, grace)
        return process

    def _run(self, name: str, command: Sequence[str], env: dict[str, str]) -> Process:
        passed_on = {name: value for name, value in os.environ.items() if name.upper() != OF_ANOTHER_SERVICE}
        paths = [str(Path(entry).absolute()) for entry in passed_on.get("PYTHONPATH", "").split(os.pathsep) if entry]
        # The processes that these start inherit it.
        path = os.pathsep.join([str(self._code), *paths])
        everything = passed_on | env | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
        # Celery and uvicorn put the current folder first on the import path: a `worker.py` there would be imported.
        return children.start([sys.executable, "-m", *command], log=self._log(name), env=everything, cwd=self._code)

    def _wait(self, ready: Callable[[], bool], name: str) -> None:
        def ready_or_broken() -> bool:
            self.check()
            return ready()

        wait_until(ready_or_broken, self._running[name], f"the {name}", self._log(name))

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _write_stack_file(self) -> None:
        path = self.data_dir / STACK_FILE
        self._exit.callback(path.unlink, missing_ok=True)
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        partial.touch(mode=0o600)
        stack = {"api_url": self.api_url, "dashboard_url": self.dashboard_url, "api_key": self.api_key}
        partial.write_text(json.dumps(stack))
        partial.replace(path)


def _listen(url: str, host_option: str, port_option: str) -> list[str]:
    host, _, port = url.removeprefix("http://").partition(":")
    return [host_option, host, port_option, port]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10, trust_env=False).is_success
    except httpx.HTTPError:
        return False
