"""The generated Python client on a service: who calls, submit, read, list, cancel, and an error with its document."""

import os

import calibrl_rest
from calibrl_rest.exceptions import NotFoundException

SPEC = {
    "kind": "train",
    "name": "generated-python",
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits", "split": "train"},
    "algorithm": {"type": "grpo"},
    "rewards": [{"type": "math"}],
    "steps": 2,
    "priority": "low",
}
configuration = calibrl_rest.Configuration(
    host=os.environ["CALIBRL_API_URL"], access_token=os.environ["CALIBRL_API_KEY"]
)
with calibrl_rest.ApiClient(configuration) as client:
    jobs = calibrl_rest.JobsApi(client)
    assert calibrl_rest.AccessApi(client).read_me().admin
    job = jobs.submit_job(calibrl_rest.Spec.from_dict(SPEC))
    assert jobs.read_job(job.id).name == SPEC["name"]
    assert job.id in [one.id for one in jobs.list_jobs(limit=10).data]
    assert jobs.cancel_job(job.id).status in ("cancelled", "cancelling")
    try:
        jobs.read_job("00000000-0000-0000-0000-000000000000")
    except NotFoundException as error:
        assert "There is no job" in error.body
    else:
        raise AssertionError("an unknown job was found")
print("6 calls, as expected")
