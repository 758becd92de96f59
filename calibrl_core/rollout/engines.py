"""Chooses the rollout engine of a run."""

from __future__ import annotations

from contextlib import ExitStack

from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import RolloutEngine
from calibrl_core.rollout.served import PASS_TOKENS, ServedEngine
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.settings.sampling import EngineSettings


def make_engine(
    settings: EngineSettings, policy: Policy, closing: ExitStack, ranks: Ranks, pass_tokens: int = PASS_TOKENS
) -> RolloutEngine:
    """Return the engine that the settings name. `closing` frees its memory. Every process of a run must call this.

    Args:
        settings: name of the engine, and maximum tokens decoded together.
        policy: the engine samples from it.
        closing: closes the engine.
        ranks: the processes of the run.
        pass_tokens: maximum tokens of a pass of the trainer that computes log-probabilities.

    Raises:
        ModelError: vLLM is not installed, or does not support the model.
    """
    if settings.engine == "shared_prefill":
        return SharedPrefillEngine(policy, settings.batch_tokens)
    engine = ServedEngine(policy, settings, ranks, pass_tokens)
    closing.callback(engine.close)
    return engine
