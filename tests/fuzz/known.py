"""Content of the fuzzed service: finished jobs with all their output, and one of everything else."""

from pathlib import Path

from api.examples import EVALUATE, TRAIN
from calibrl.client import Client, Job
from calibrl.schemas import NewWebhook
from tests.fuzz import Known
from tests.support.fake_trainer import Behaviour
from tests.support.waiting import eventually

RUN = {
    **TRAIN,
    "steps": 40,
    "prompts_per_step": 8,
    "checkpoints": {"every_steps": 10, "keep_last": 3},
    # Few completions: a replay in which every verdict times out then ends within seconds.
    "rollout": {"group_size": 2},
    "samples": {"groups": 1, "every_steps": 20},
}
ROWS = '{"question": "2 + 2?", "answer": "4"}\n{"question": "1 + 1?", "answer": "2", "expert": "It is 2."}\n'


def fill(client: Client, folder: Path) -> Known:
    """Create at least one object of each kind; return the values of path parameters by the start of the path."""
    ran = [
        client.submit({**RUN, "name": f"run {seed.name}", "seed": seed})
        for seed in (Behaviour.NORMAL, Behaviour.BAD_LINES)
    ]
    evaluated = client.submit({**EVALUATE, "models": [{"from_job": str(ran[0].id)}, {"builtin": "tiny-vlm"}]})
    jobs = [*ran, evaluated]
    eventually(lambda: all(client.job(job.id).status.final for job in jobs))
    client.drain(client.workers()[0].name)  # jobs that the cases submit stay in the queue
    waiting = [client.submit({**TRAIN, "name": f"waiting {number}"}) for number in range(3)]
    client.put_project("fuzz", {})
    client.add_user("somebody")
    client.put_member("fuzz", "somebody", "viewer")
    rows = folder / "rows.jsonl"
    rows.write_text(ROWS)
    dataset = str(client.upload(rows, name="rows").id)
    hook = str(client.add_webhook("fuzz", NewWebhook(url="http://127.0.0.1:9/hook")).id)
    rule = client.add_alert_rule({"name": "stuck", "condition": {"type": "no_progress", "minutes": 30}})
    ids = [str(job.id) for job in (*jobs, *waiting)]
    return {
        **_of_jobs(client, ran[0], ids),
        "/v1/datasets/": {"dataset_id": [dataset]},
        "/v1/files/": {"file_id": [dataset]},
        "/v1/fine_tuning/jobs/": {"fine_tuning_job_id": ids},
        "/v1/projects/": {"slug": ["fuzz"], "user": ["somebody"], "webhook_id": [hook]},
        "/v1/alert-rules/": {"rule_id": [str(rule.id)]},
        "/v1/users/": {"name": ["somebody"]},
    }


def _of_jobs(client: Client, job: Job, ids: list[str]) -> Known:
    step = client.checkpoints(job.id)[-1].step
    sample = client.sample(job.id, client.samples(job.id).data[0].id)
    names = [name.name for name in client.metric_names(job.id)]
    files = [file.name for file in client.checkpoint(job.id, step).files]
    within = {"job_id": ids}
    return {
        "/v1/jobs/": within,
        "/v1/jobs/{job_id}/checkpoints": {"job_id": [str(job.id)], "step": [str(step)], "name": files},
        "/v1/jobs/{job_id}/samples": {"job_id": [str(job.id)], "sample_id": [str(sample.id)]},
        "/v1/jobs/{job_id}/images": {"job_id": [str(job.id)], "sha256": sample.group["images"]},
        "/v1/jobs/{job_id}/histograms": {**within, "name": ["rareness", "expert/gap"]},
        "/v1/metrics": {"jobs": [*ids, ",".join(ids[:3])], "names": [",".join(names[:5])]},
        "/v1/evaluations/compare": {"jobs": [f"{ids[2]}:0,{ids[2]}:1", *ids]},
    }
