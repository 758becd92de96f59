"""vLLM servers apart from the trainer: what they sample does not depend on their number or form.

`make test-vllm` runs these in their own environment; elsewhere they are skipped. Two processes of the trainer with one
server are in test_rollout_vllm_ranks.py.
"""

from importlib.util import find_spec
from typing import Any

import pytest
import torch

from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.served import ServedEngine
from calibrl_core.settings.sampling import EngineSettings

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed here: make test-vllm")
REQUEST = SamplingRequest(group_size=4, temperature=1.0, max_tokens=16, seed=[5])


def sampled(policy: Policy, examples: list[Example], **settings: Any) -> Any:
    engine = ServedEngine(policy, EngineSettings(engine="vllm_server", batch_tokens=10_000, **settings))
    try:
        with engine.sampling(1):
            return engine.generate(examples, REQUEST)
    finally:
        engine.close()


@pytest.fixture(scope="module")
def beside(policy: Policy, examples: list[Example]) -> Any:
    """Return the completions of a server beside the trainer."""
    return sampled(policy, examples)


@pytest.mark.parametrize("settings", [{"server_gpus": 2}, {"server_gpus": 2, "tensor_parallel": 2}])
def test_completions_do_not_depend_on_the_servers(
    policy: Policy, examples: list[Example], beside: Any, settings: dict[str, int]
) -> None:
    apart = sampled(policy, examples, **settings)
    assert torch.equal(apart.tokens, beside.tokens)
    assert len(set(apart.texts)) > 12
    torch.testing.assert_close(apart.sampler_logprobs, apart.logprobs, rtol=0, atol=2e-5)
