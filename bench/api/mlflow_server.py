"""MLflow's tracking server from a separate environment, and the REST requests that the benchmark sends to it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx

from bench.serving import serving
from calibrl.stack.services import free_port

Point = tuple[int, str, float]  # step, name, value
DRIVER = "psycopg2"  # driver of the environment; SQLAlchemy's default depends on its version
BATCH = 1000  # maximum number of metrics per log-batch request
CREATORS = 4  # clients that create runs at the same time
SECONDS = 120.0  # seconds per answer
EXPERIMENT = "0"  # exists on every server
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def version(environment: Path) -> str:
    """Return the version of MLflow in an environment.

    Raises:
        SystemExit: MLflow is not installed there.
    """
    python = environment / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"no MLflow in {environment}: make bench-api installs it")
    code = "from importlib.metadata import version; print(version('mlflow'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def running(environment: Path, database_url: str, folder: Path) -> AbstractContextManager[str]:
    """Run the server with its defaults on a database until the block ends; yield its address when it is ready."""
    port = free_port()
    settings = {"MLFLOW_BACKEND_STORE_URI": database_url, "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts")}
    command = [str(environment.absolute() / "bin" / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port)]
    return serving(command, f"http://127.0.0.1:{port}", "/health", "MLflow", folder, QUIET | settings)


class MLflow:
    """A minimal client, so that the benchmark measures the server."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=f"{url}/api/2.0/mlflow/", timeout=SECONDS, trust_env=False)

    def create_run(self) -> str:
        """Create a run; return its id."""
        answer = self._post("runs/create", json.dumps({"experiment_id": EXPERIMENT, "start_time": 0}).encode())
        return str(answer["run"]["info"]["run_id"])

    def create_runs(self, count: int) -> None:
        """Create `count` runs."""
        with ThreadPoolExecutor(CREATORS) as pool:
            list(pool.map(lambda _: self.create_run(), range(count)))

    def log(self, body: bytes) -> None:
        """Send one of `bodies`."""
        self._post("runs/log-batch", body)

    def history(self, run_id: str, name: str) -> bytes:
        """Return all values of a metric."""
        return self._get("metrics/get-history", {"run_id": run_id, "metric_key": name})

    def interval(self, run_id: str, name: str, points: int) -> bytes:
        """Return a sample of a metric's values, as MLflow's UI draws them."""
        given = {"run_ids": run_id, "metric_key": name, "max_results": points}
        return self._get("metrics/get-history-bulk-interval", given)

    def page(self, limit: int, token: str | None) -> tuple[int, str | None]:
        """Return the number of runs on a page of the run list, newest first, and the token of the next page."""
        given = {"experiment_ids": [EXPERIMENT], "max_results": limit} | ({"page_token": token} if token else {})
        answer = self._post("runs/search", json.dumps(given).encode())
        return len(answer.get("runs", [])), answer.get("next_page_token")

    def _post(self, path: str, body: bytes) -> Any:
        answer = self._http.post(path, content=body, headers={"Content-Type": "application/json"})
        answer.raise_for_status()
        return answer.json()

    def _get(self, path: str, params: dict[str, Any]) -> bytes:
        answer = self._http.get(path, params=params)
        answer.raise_for_status()
        return answer.content


def bodies(run_id: str, points: Iterable[Point]) -> list[bytes]:
    """Return points as bodies of log-batch requests with the maximum number of points each."""
    metrics = [{"key": name, "value": value, "timestamp": step, "step": step} for step, name, value in points]
    batches = (metrics[first : first + BATCH] for first in range(0, len(metrics), BATCH))
    return [json.dumps({"run_id": run_id, "metrics": batch}).encode() for batch in batches]
