"""expert/probe_nll and expert/probe_gap: log-probability of fixed validation experts under the policy.

expert/nll and expert/gap_mean depend on the prompts of a step, and gaps compare tokens at the same position, which can
have different meanings. The probe runs at every validation, always on the same prompts, and compares whole
completions. For a prompt x
with expert e and sampled completions o of the policy,

    gap(x) = mean over o of log pi(o | x) / |o|  -  log pi(e | x) / |e|        (nats per token)

The first term estimates minus the policy's entropy per token; the second is minus its surprise at the expert. The
difference is 0 for an expert that could be a sample of the policy, and grows as the two diverge. No positions are
matched, and length has no influence. It is a mean over prompts, so that long completions count as much as short ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy
from calibrl_core.step.token_logprobs import logprobs_in_parts

MAX_EXPERTS = 64  # experts


class ExpertProbe:
    """Up to `MAX_EXPERTS` of the validation examples that have an expert, spread evenly over the data."""

    def __init__(self, examples: Sequence[Example], config: TrainConfig) -> None:
        with_expert = [index for index, example in enumerate(examples) if example.expert]
        count = min(MAX_EXPERTS, len(with_expert))
        self.rows = [
            with_expert[place * len(with_expert) // count] for place in range(count)
        ]  # indices into `examples`
        self._examples = [examples[row] for row in self.rows]
        self._config = config

    @torch.no_grad()
    def measure(self, policy: Policy, own_logprobs: NDArray[np.float64]) -> dict[str, float]:
        """Return both metrics for the current policy; empty if no example has an expert.

        Args:
            own_logprobs: `[N, K]` nats per token: the mean log-probability of each of K completions per example, as
                sampled at this validation, under the policy. N: all examples. Those of the experts are computed at the
                temperature of validation too (greedy: at 1).
        """
        if not self.rows:
            return {}
        limit = self._config.rollout.max_completion_tokens
        tokens, mask = policy.tokenize_experts(self._examples, limit)
        temperature = self._config.validation_rollout.temperature or 1.0
        owners = range(len(self.rows))
        logprobs, _ = logprobs_in_parts(policy, self._examples, owners, tokens, mask, self._config, temperature)
        sums, lengths = logprobs.double().sum(-1).cpu().numpy(), mask.sum(-1).cpu().numpy()  # [rows]
        return {
            "expert/probe_nll": float(-sums.sum() / lengths.sum()),
            "expert/probe_gap": float((own_logprobs[self.rows].mean(-1) - sums / lengths).mean()),
        }
