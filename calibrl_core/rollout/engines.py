"""Chooses the rollout engine of a run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Literal

from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import RolloutEngine
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine


def make_engine(
    name: Literal["shared_prefill", "vllm"], policy: Policy, batch_tokens: int, closing: ExitStack
) -> RolloutEngine:
    """Return the engine of this name. `closing` frees its memory.

    Raises:
        ModelError: vLLM is not installed, or does not support the model.
    """
    if name == "shared_prefill":
        return SharedPrefillEngine(policy, batch_tokens)
    from calibrl_core.rollout.vllm import VLLMEngine

    engine = VLLMEngine(policy, batch_tokens)
    closing.callback(engine.close)
    return engine
