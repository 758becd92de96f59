"""Fixtures that several folders share: real PostgreSQL and Valkey, started once, and a fresh database per test."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import redis
import structlog
from alembic import command
from alembic.config import Config

from calibrl.stack.services import Postgres, Valkey

pytest.register_assert_rewrite("tests.support")  # so that its assertions show their values, too

gc.disable()  # until all tests are collected: each collection would look through ten thousands of imported objects

from tests.support import API_KEY, ROOT  # noqa: E402
from tests.support.databases import Databases, database_of, sql  # noqa: E402
from tests.support.waiting import eventually  # noqa: E402


def pytest_collection_finish() -> None:
    """Exclude all that was imported from later garbage collections. Streamlit's test runner collects after each run of
    a page, which took a third of the CPU time of the page tests."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """Reset a test's log configuration at its end, because it writes to the captured stderr of that test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def own_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore `__main__` after a test: Streamlit's AppTest leaves its script there, and a process that multiprocessing
    starts later would run that script."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that creates a file system with a number of KiB; it is removed after the test.

    The file system is mounted in the namespace of a helper process and reached through `/proc/PID/root`, which needs
    only the right to create a user namespace.
    """
    folder = tmp_path / "small"
    folder.mkdir()
    with ExitStack() as holders:

        def make(kibibytes: int) -> Path:
            mount = f"mount -t tmpfs -o size={kibibytes}k tmpfs '{folder}' && echo mounted && exec cat"
            command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
            pipe = subprocess.PIPE
            holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
            holders.enter_context(holder)  # at its exit closes the input and waits
            assert holder.stdout is not None and holder.stderr is not None
            if holder.stdout.readline() != "mounted\n":
                pytest.skip(f"no small file system can be mounted here: {holder.stderr.read().strip()}")
            return Path(f"/proc/{holder.pid}/root{folder}")

        yield make


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL server for the whole session; its database `calibrl` stays empty. `TEST_POSTGRES_PROGRAMS` names
    the folder of another version's programs."""
    folder = tmp_path_factory.mktemp("postgres")
    programs = os.environ.get("TEST_POSTGRES_PROGRAMS")
    with Postgres(folder, folder / "log.txt", durable=False, programs=Path(programs) if programs else None) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> str:
    """The server's address, its password in it."""
    return postgres.url


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey server for the whole session."""
    folder = tmp_path_factory.mktemp("valkey")
    with Valkey(folder, folder / "log.txt") as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(valkey: Valkey) -> str:
    """The server's address, its password in it."""
    return valkey.url


@pytest.fixture(scope="session")
def template(postgres_url: str) -> str:
    """The name of a database with all migrations applied and no rows, made to be copied."""
    from jobs.settings import get_settings

    sql(postgres_url, "CREATE DATABASE template_migrated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", database_of(postgres_url, "template_migrated"))
        get_settings.cache_clear()
        command.upgrade(Config(ROOT / "alembic.ini"), "head")
    get_settings.cache_clear()
    eventually(lambda: _up_for(postgres_url, 5))  # leases that ended before it was up are not taken away at once
    return "template_migrated"


def _up_for(url: str, seconds: float) -> bool:
    with psycopg.connect(url.replace("+psycopg", ""), connect_timeout=10) as connection:
        statement = "SELECT now() - pg_postmaster_start_time() > %s * interval '1 s'"
        (up,) = connection.execute(statement, [seconds]).fetchone() or (False,)
        return bool(up)


@pytest.fixture(scope="session")
def databases(postgres_url: str, template: str) -> Databases:
    """The session's copies of the migrated database."""
    return Databases(postgres_url, template)


@pytest.fixture
def database(databases: Databases, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a migrated, empty database that the settings of this process and of its children name.

    The broker is empty, the API key is `API_KEY` and the data folder is the test's own.
    """
    from jobs import db
    from jobs.settings import get_settings

    with databases.lend() as url:
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setenv("REDIS_URL", redis_url)
        monkeypatch.setenv("CALIBRL_API_KEY", API_KEY)
        monkeypatch.setenv("CALIBRL_DATA_DIR", str(tmp_path))
        monkeypatch.setenv("CALIBRL_ALLOWED_ROOTS", "/")
        get_settings.cache_clear()
        yield url
        db.dispose()
        get_settings.cache_clear()
