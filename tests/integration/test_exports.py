"""`calibrl export`: files, TensorBoard's folders and runs of MLflow, by the command line against the API."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from typer.testing import CliRunner, Result

from calibrl import cli
from jobs import lifecycle
from jobs.db import session_scope
from jobs.repository import jobs
from jobs.settings import get_settings
from tests.support.curves import at, write
from tests.support.rest import serving, submitted

pytestmark = pytest.mark.integration


@pytest.fixture
def client(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setenv("CALIBRL_SWEEP_SECONDS", "3600")
    get_settings.cache_clear()
    with serving() as client:
        monkeypatch.setenv("CALIBRL_API_URL", str(client.base_url))
        get_settings.cache_clear()
        yield client


@pytest.fixture
def job(client: httpx.Client) -> UUID:
    id = UUID(submitted(client, name="my job")["id"])
    write(id, {step: {"loss/total": float(step), "strange=name": math.nan} for step in range(1, 6)})
    return id


def export(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["export", *map(str, arguments)])


def test_a_table_is_written_whole(job: UUID, tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    done = export("csv", "latest", file)
    assert (done.exit_code, done.stdout) == (0, f"{file}\n")
    rows = list(csv.reader(file.read_text().splitlines()))
    assert (rows[0], len(rows)) == (["step", "ts", "loss/total", "strange=name"], 6)
    refused = export("parquet", job, tmp_path / "none" / "m.parquet")
    assert (refused.exit_code, "can't be written: No such file" in refused.stderr) == (1, True)
    assert [each.name for each in tmp_path.iterdir()] == ["m.csv"]


def test_a_job_has_its_folder_in_tensorboards(job: UUID, tmp_path: Path) -> None:
    assert export("tensorboard", job, tmp_path).exit_code == 0
    assert export("tensorboard", job, tmp_path).exit_code == 0
    ((name, file),) = [(each.parent.name, each.name) for each in tmp_path.rglob("*") if each.is_file()]
    assert name == f"my-job-{str(job)[:8]}"
    assert file.startswith("events.out.tfevents.")


def test_a_run_of_mlflow_is_kept_like_the_job(job: UUID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file://{tmp_path}/mlruns"
    mirror = ("mlflow", job, "--to", uri)
    first = export(*mirror)
    assert (first.exit_code, first.stdout.endswith("5 new steps\n")) == (0, True), first.output
    assert export(*mirror).stdout.endswith(": 0 new steps\n")
    write(job, {6: {"loss/total": 6.0}})
    assert export(*mirror).stdout.endswith(": 1 new steps\n")

    reader = mlflow.MlflowClient(tracking_uri=uri)
    experiment = reader.get_experiment_by_name("calibrl")

    def only_run() -> tuple[str, str, list[tuple[int, float, int]]]:
        (run,) = reader.search_runs([experiment.experiment_id])
        history = reader.get_metric_history(run.info.run_id, "loss/total")
        return run.info.run_id, run.info.status, [(each.step, each.value, each.timestamp) for each in history]

    id, status, history = only_run()
    assert (status, [step for step, _, _ in history]) == ("RUNNING", [1, 2, 3, 4, 5, 6])
    assert history[2] == (3, 3.0, int(at(3).timestamp() * 1000))
    run = reader.get_run(id)
    assert (run.info.run_name, run.data.params["algorithm.type"]) == ("my job", "calibrl")
    assert math.isnan(run.data.metrics["strange_name"])

    with session_scope() as session:  # the run restarts from a checkpoint
        jobs.rewind(session, job, 2)
    write(job, {3: {"loss/total": -3.0}})
    with session_scope() as session:
        lifecycle.cancel(session, job, actor="user")
    assert export(*mirror, "--follow").stdout.endswith(": 3 new steps\n")
    again, status, history = only_run()
    assert (again != id, status, [value for _, value, _ in history]) == (True, "KILLED", [1.0, 2.0, -3.0])
