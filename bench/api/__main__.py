"""The API against MLflow's tracking server, on one PostgreSQL: writes, reads, delays and number of streams.

    python -m bench.api
    python -m bench.api --quick      # a smoke test of one minute; do not use its figures

This process starts the services. Its child process `bench.api.measures` runs the measures; like a worker, it has the
addresses of the services in its environment.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
from rich.console import Console

from bench import report
from bench.api import mlflow_server
from bench.stack import run_with, services, stack

PACKAGES = ("fastapi", "uvicorn", "sqlalchemy", "psycopg")
SETTINGS = {
    "CALIBRL_REQUESTS_PER_SECOND": "100000",  # all clients share one key
    "CALIBRL_REQUESTS_AT_ONCE": "100000",
    "CALIBRL_HEARTBEAT_SECONDS": "5",
    "CALIBRL_LEASE_SECONDS": "3600",  # no worker renews the leases
    "CALIBRL_QUICK_STARTS": "false",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smoke test; writes results only with --results")
    parser.add_argument("--mlflow", type=Path, default=Path(".venv-mlflow"), help="environment with MLflow")
    parser.add_argument("--results", type=Path, help="folder of the JSON file")
    options = parser.parse_args()
    results = options.results or (None if options.quick else report.RESULTS)
    console = Console()
    console.print(f"{report.circumstances(PACKAGES)}, mlflow {mlflow_server.version(options.mlflow)}", soft_wrap=True)
    if warning := report.load_warning():
        console.print(warning, style="yellow")
    with tempfile.TemporaryDirectory() as folder, _services(Path(folder), options.mlflow) as (settings, mlflow_url):
        arguments = ["--mlflow-url", mlflow_url, *(["--quick"] if options.quick else [])]
        arguments += ["--results", str(results)] if results else []
        sys.exit(run_with(settings, "bench.api.measures", arguments))


@contextmanager
def _services(folder: Path, mlflow: Path) -> Iterator[tuple[Mapping[str, str], str]]:
    """Run all measured services until the block ends; yield their settings and MLflow's address when they are ready."""
    with services(folder) as found:
        settings = SETTINGS | found
        second = _second_database(settings["DATABASE_URL"], "mlflow")
        with (
            mlflow_server.running(mlflow, second, folder / "mlflow") as mlflow_url,
            stack(folder / "data", settings) as client,
        ):
            client.drain(client.workers()[0].name)  # the measures register their own machine
            yield settings | {"CALIBRL_API_URL": client.url}, mlflow_url


def _second_database(url: str, name: str) -> str:
    """Create a second database on the same server; return its address in MLflow's form."""
    plain = url.replace("+psycopg", "", 1)
    with psycopg.connect(plain, autocommit=True, connect_timeout=10) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"{plain.rpartition('/')[0]}/{name}".replace("://", f"+{mlflow_server.DRIVER}://", 1)


if __name__ == "__main__":
    main()
