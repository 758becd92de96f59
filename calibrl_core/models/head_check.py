"""Check of a loaded model: its logits are those that the trainer computes from hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from calibrl_core.models.errors import ModelError

if TYPE_CHECKING:
    from calibrl_core.models.policy import Policy


@torch.no_grad()
def check_head(policy: Policy) -> None:
    """Check that our head computes the model's logits: otherwise every log-probability would be wrong without notice.

    Raises:
        ModelError: the model computes its logits in another way.
    """
    tokens = torch.tensor([[policy.tokenizer.eos_token_id] * 2], device=policy.device)

    def ours() -> torch.Tensor:
        with policy.forward_context():
            hidden = policy.decoder(input_ids=tokens).last_hidden_state[0]
            return policy.weights.run_head(lambda hidden: policy.head.logits(hidden), hidden)  # whole only within

    def of_model() -> torch.Tensor:
        with policy.forward_context():
            logits: torch.Tensor = policy.weights.run_head(lambda: policy.model(input_ids=tokens).logits[0].float())
        return logits

    actual, expected = policy.weights.run(ours), policy.weights.run(of_model)
    if (actual - expected).norm() > 0.02 * expected.norm():  # bfloat16 errs by 0.004
        kind = policy.model.config.model_type
        raise ModelError(f"model: the trainer does not know how {kind} computes its logits; choose another model")
