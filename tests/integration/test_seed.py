"""The seeded database: one job per status, with all that pages show of it, written in seconds."""

from calibrl.client import Client
from calibrl.schemas import JobStatus
from tests.support.seed import STEPS, seed


def test_the_seed_has_a_job_of_each_status_with_its_data(client: Client) -> None:
    ids = seed()
    found = {name: client.job(id) for name, id in ids.items()}
    assert {name: job.status for name, job in found.items()} == {
        **dict.fromkeys(("warmup", "calibrl", "grpo", "evaluation"), JobStatus.SUCCEEDED),
        "failed": JobStatus.FAILED,
        "paused": JobStatus.PAUSED,
        "running": JobStatus.RUNNING,
        "cancelled": JobStatus.CANCELLED,
        "queued": JobStatus.QUEUED,
        "waiting": JobStatus.WAITING,
    }
    assert [row.step for row in client.all_metrics(ids["calibrl"])] == list(range(1, STEPS + 1))
    assert len(client.checkpoints(ids["calibrl"])) == 2
    assert len(client.evaluation(ids["evaluation"]).results) == 6
