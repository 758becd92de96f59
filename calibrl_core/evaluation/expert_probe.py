"""expert/probe_nll and expert/probe_gap: how the policy sees the same held-out experts, validation after validation.

expert/nll and expert/gap_mean speak of whichever prompts a step drew, and gaps compare tokens that stand at the same
position without meaning the same. The probe's prompts are the same at every validation, and it compares whole
completions: for a prompt x with expert e and own sampled completions o,

    gap(x) = mean over o of log pi(o | x) / |o|  -  log pi(e | x) / |e|        (nats a token)

The first term estimates minus the policy's entropy a token, the second is minus its surprise at the expert: their
difference is 0 for an expert who could be one of its own samples, and grows as the two part. No position is matched
with another, and length has no say. It is a mean over prompts, so that long completions count no more than short ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from calibrl_core.config import TrainSettings
from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy
from calibrl_core.step.token_logprobs import logprobs_in_parts

MOST = 64  # experts


class Probe:
    """Up to `MOST` of the validation examples that have an expert, spread evenly over the data."""

    def __init__(self, examples: Sequence[Example], config: TrainSettings) -> None:
        having = [index for index, example in enumerate(examples) if example.expert]
        count = min(MOST, len(having))
        self.rows = [having[place * len(having) // count] for place in range(count)]  # indices into `examples`
        self._examples = [examples[row] for row in self.rows]
        self._config = config

    @torch.no_grad()
    def measure(self, policy: Policy, own_logprobs: NDArray[np.float64]) -> dict[str, float]:
        """Both metrics for the policy as it is now; nothing where no example has an expert.

        own_logprobs: `[N, K]` nats a token, of K completions of each of the N examples that the probe was made of, as
        sampled at this validation: their mean log-probability, at the run's temperature like the experts'.
        """
        if not self.rows:
            return {}
        policy.model.eval()
        limit = self._config.rollout.max_completion_tokens
        tokens, mask = policy.tokenize_experts(self._examples, limit)
        logprobs, _ = logprobs_in_parts(policy, self._examples, range(len(self.rows)), tokens, mask, self._config)
        sums, lengths = logprobs.double().sum(-1).cpu().numpy(), mask.sum(-1).cpu().numpy()  # [rows]
        return {
            "expert/probe_nll": float(-sums.sum() / lengths.sum()),
            "expert/probe_gap": float((own_logprobs[self.rows].mean(-1) - sums / lengths).mean()),
        }
