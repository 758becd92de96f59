"""Connections of live streams: the listener, many streams at once, slow clients, and a process that stops."""

import contextlib
import signal
import socket
import subprocess
import sys

import httpx
import psycopg
import pytest

from api import live as api_live
from api.main import create_app
from calibrl.stack.services import free_port
from tests.support import API_KEY, job_steps
from tests.support.rest import serving
from tests.support.streams import Run, read_to, stream_of, streaming
from tests.support.waiting import LIMIT_SECONDS, eventually

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def long_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that a test process without a CPU does not lose."""
    monkeypatch.setenv("CALIBRL_LEASE_SECONDS", "600")


def request_of(run: Run) -> bytes:
    return f"GET {stream_of(run.id)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n\r\n".encode()


def listeners(database: str) -> list[int]:
    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        query = (
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'calibrl live' AND datname = current_database()"
        )
        return [pid for (pid,) in connection.execute(query)]


def test_a_listener_that_is_killed_is_replaced(http: httpx.Client, database: str) -> None:
    run = Run()
    with streaming(http, stream_of(run.id), max_seconds=60) as stream:
        next(stream)
        (before,) = eventually(lambda: listeners(database))
        job_steps.run("SELECT pg_terminate_backend(:pid)", pid=before)
        run.ship()
        assert read_to(stream, "status")[-1][2]["step"] == 1
        assert eventually(lambda: [pid for pid in listeners(database) if pid != before])
        run.ship()
        assert read_to(stream, "status")[-1][2]["step"] == 2


def test_many_streams_hold_no_database_connection(http: httpx.Client, database: str) -> None:
    """200 streams over raw sockets share one listener and the pool; one read serves a change to all of them."""
    run = Run()
    with contextlib.ExitStack() as open_:
        sockets = [
            open_.enter_context(socket.create_connection((http.base_url.host, http.base_url.port or 0)))
            for _ in range(200)
        ]
        for one in sockets:
            one.settimeout(30)
            one.sendall(request_of(run))
        assert all(_until(one, b"event: status") for one in sockets)
        with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as connection:  # each look is new
            query = """
                SELECT count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()
            """
            assert eventually(lambda: connection.execute(query).fetchone() == (0,))
        assert len(listeners(database)) == 1
        run.ship()
        assert all(_until(one, b"event: metrics") for one in sockets)


def _until(one: socket.socket, text: bytes) -> bool:
    got = b""
    while text not in got:
        piece = one.recv(65_536)
        assert piece, got
        got += piece
    return True


def test_a_client_that_does_not_read_is_cut_off(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_live, "SEND_SECONDS", 0.3)
    run = Run()
    app = create_app()
    with serving(app) as service, socket.socket() as lazy:
        service.get("/healthz")
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect((service.base_url.host, service.base_url.port or 0))
        lazy.sendall(request_of(run))
        eventually(lambda: app.state.hub.streams == 1)
        written = 0
        while app.state.hub.streams:
            run.ship(1, b"x" * 200_000)
            written += 1
            assert written < 200


def test_a_stopping_process_ends_its_streams(database: str) -> None:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "api.main:app", "--port", str(port), "--log-level", "warning"]
    run = Run()
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        transport = httpx.HTTPTransport(retries=8)
        headers = {"Authorization": f"Bearer {API_KEY}"}
        with (
            httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=LIMIT_SECONDS, transport=transport
            ) as client,
            streaming(client, stream_of(run.id)) as stream,
        ):
            next(stream)
            process.send_signal(signal.SIGTERM)
            assert list(stream) == []
        process.wait(LIMIT_SECONDS)
