"""A what-if on the whole stack with the real trainer: its own update is that of the training."""

import pytest

from calibrl.client import Client
from calibrl.commands import demo
from tests.e2e.conftest import ended

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_what_if_runs_through_the_queue_and_finds_the_update_again(training_client: Client) -> None:
    warmup = training_client.submit(demo.warmup_spec(seed=0, stack="test") | {"steps": 60, "checkpoints": {}})
    spec = demo.reinforcement_spec(warmup, "calibrl") | {
        "algorithm": {"type": "calibrl", "mini_batches": 1},
        "steps": 4,
        "checkpoints": {"every_steps": 1, "keep_last": 4},
        "prompts_per_step": 4,
        "validation": None,
    }
    training = ended(training_client, training_client.submit(spec))
    submitted = training_client.what_if(training.id, checkpoint=2, variants={"grpo": {"type": "grpo"}})
    job = ended(training_client, submitted)
    assert (job.kind, job.step, job.steps_total) == ("what_if", 2, 2)
    found = training_client.what_if_result(job.id)
    norms = training_client.metrics(training.id, names=["loss/grad_norm"], after_step=2).data
    assert found.step == 3
    assert [update.name for update in found.updates] == ["own", "grpo"]
    assert found.updates[0].gradient_norm == pytest.approx(float(norms[0].values["loss/grad_norm"]), rel=1e-5, abs=1e-9)
