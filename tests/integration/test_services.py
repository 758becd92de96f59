"""Embedded PostgreSQL and Valkey: what their users rely on."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis

from calibrl.processes import children
from calibrl.stack.services import Postgres, StackError, Valkey, lock_folder
from tests.support import ROOT
from tests.support.databases import sql
from tests.support.processes import processes_with
from tests.support.waiting import LIMIT_SECONDS, eventually

pytestmark = pytest.mark.integration

OWNER = """
import os, sys
from pathlib import Path
from calibrl.stack.services import Postgres, Valkey
root = Path(sys.argv[1])
with Postgres(root / "postgres", root / "postgres.log", durable=False), Valkey(root / "valkey", root / "valkey.log"):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder whose name must be quoted everywhere."""
    return tmp_path / "a \"folder\" with 'spaces'"


def postgres_in(folder: Path) -> Postgres:
    return Postgres(folder / "postgres", folder / "postgres.log", durable=False)


def valkey_in(folder: Path) -> Valkey:
    return Valkey(folder / "valkey", folder / "valkey.log")


def test_data_outlives_a_killed_server(folder: Path) -> None:
    with postgres_in(folder) as postgres, valkey_in(folder) as valkey:
        sql(postgres.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        with redis.Redis.from_url(valkey.url) as client:
            client.set("answer", 42)
        assert postgres.process and valkey.process
        os.kill(postgres.process.pid, signal.SIGKILL)
        os.kill(valkey.process.pid, signal.SIGKILL)
    assert (folder / "postgres" / "data" / "postmaster.pid").exists()
    # As after a restart of the machine: the pid in the file belongs to another living process.
    pid_file = folder / "postgres" / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
    with postgres_in(folder) as postgres, valkey_in(folder) as valkey:
        with psycopg.connect(postgres.url.replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchall() == [(42,)]
        with redis.Redis.from_url(valkey.url) as client:
            assert client.get("answer") == b"42"


def test_no_connection_is_accepted_without_the_password(postgres: Postgres, valkey: Valkey) -> None:
    for user in ("calibrl", "postgres", "root"):
        with pytest.raises(psycopg.OperationalError, match=r"no password supplied|authentication failed"):
            psycopg.connect(host="127.0.0.1", port=postgres.port, user=user, dbname="calibrl", connect_timeout=60)
    with redis.Redis(host="127.0.0.1", port=valkey.port) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    secrets = [url.split(":")[2].split("@")[0].encode() for url in (postgres.url, valkey.url)]
    assert postgres.process and valkey.process
    for process in (postgres.process, valkey.process):
        words = [Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
        assert not [secret for secret in secrets if secret in b"".join(words)]
    for path in (postgres.folder / "password", valkey.folder / "valkey.conf"):
        assert path.stat().st_mode & 0o077 == 0


def test_variables_of_libpq_do_not_lead_connections_elsewhere(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = {
        "PGHOSTADDR": "192.0.2.1",
        "PGSSLMODE": "require",
        "PGGSSENCMODE": "require",
        "PGCHANNELBINDING": "require",
        "PGTARGETSESSIONATTRS": "standby",
        "PGPASSFILE": "/nowhere",
        "PGUSER": "other",
        "PGDATABASE": "other",
    }
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    postgres.wait_ready()
    with psycopg.connect(postgres.url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("calibrl",)


def test_an_error_that_would_last_is_reported_at_once(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSERVICE", "of-the-shell")
    with pytest.raises(StackError, match=r"PostgreSQL cannot be reached: .*of-the-shell"):
        postgres.wait_ready()


def test_servers_listen_on_this_machine_only(postgres: Postgres, valkey: Valkey) -> None:
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    listening = [row[1].split(":") for row in rows if row[3] == "0A"]
    for server in (postgres, valkey):
        assert [address for address, port in listening if port == f"{server.port:04X}"] == ["0100007F"]


@pytest.mark.parametrize("make", [postgres_in, valkey_in])
def test_a_folder_serves_one_server_at_a_time(folder: Path, make: Callable[[Path], Valkey]) -> None:
    with make(folder), pytest.raises(StackError, match="in use by another running stack") as caught, make(folder):
        pass
    assert "\n" not in str(caught.value)
    with make(folder):  # and is free again
        pass


def test_a_folder_that_can_not_be_used_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "taken" / "lock").mkdir(parents=True)
    for folder in (file, file / "inside", tmp_path / "taken", Path("/proc/nothing")):
        with pytest.raises(StackError, match=f"^{folder} can't be used: [A-Z]") as caught:
            lock_folder(folder)
        assert "\n" not in str(caught.value)


def test_a_killed_owner_leaves_no_server_and_the_next_one_starts_at_once(folder: Path) -> None:
    folder.mkdir()
    for _ in range(2):
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert owner.stdout and owner.stdin
        assert owner.stdout.readline() == b"ready\n"
        assert len(processes_with(folder)) > 2
        owner.kill()
        owner.communicate(timeout=LIMIT_SECONDS)
    eventually(lambda: processes_with(folder) == [])


@pytest.mark.parametrize("make", [postgres_in, valkey_in])
def test_a_start_waits_for_processes_of_a_killed_server(folder: Path, make: Callable[[Path], Valkey]) -> None:
    with make(folder) as server:
        data = server.folder / "data"
    left = subprocess.Popen(["sleep", "600"], cwd=data)
    ending = threading.Timer(0.5, left.kill)
    ending.start()
    with make(folder):
        assert left.wait(0) == -signal.SIGKILL
    ending.join()


def test_a_server_that_can_not_start_says_so_in_one_line(folder: Path) -> None:
    with postgres_in(folder):
        pass
    (folder / "postgres" / "data" / "global" / "pg_control").write_bytes(b"")
    with pytest.raises(StackError) as caught, postgres_in(folder):
        pass
    assert str(caught.value).startswith("PostgreSQL did not start: ")
    assert str(folder / "postgres.log") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert processes_with(folder) == []


def test_a_half_made_data_folder_is_made_again(folder: Path) -> None:
    (folder / "postgres" / "partial").mkdir(parents=True)
    (folder / "postgres" / "partial" / "PG_VERSION").write_text("1")
    with postgres_in(folder) as postgres:
        sql(postgres.url, "SELECT 1")


def test_stop_kills_a_process_that_ignores_term_and_its_group(tmp_path: Path) -> None:
    ignore = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=1); "
    )
    child = f"{ignore} subprocess.Popen([sys.executable, '-c', sys.argv[2], '', sys.argv[1]]); time.sleep(600)"
    marker = str(tmp_path / "marker")
    process = children.start(
        [sys.executable, "-c", child, marker, f"{ignore} time.sleep(600)"], log=tmp_path / "log.txt"
    )
    eventually(lambda: (tmp_path / "log.txt").read_text().count("on") == 2)
    assert not children.ended(process)
    assert children.stop(process, 0.2) == -signal.SIGKILL
    assert children.ended(process)
    eventually(lambda: processes_with(marker) == [])
