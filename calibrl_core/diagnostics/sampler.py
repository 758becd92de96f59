"""Metrics kl/sampler and clip/sampler_share: distance between the engine that sampled and the trainer, if
they differ.
"""

from calibrl_core.diagnostics.base import StepBatch


def sampler(batch: StepBatch) -> dict[str, float]:
    """Return the divergence of the trainer's distribution from the sampler's (nats per token, k3 estimate from the
    sampled tokens), and the share of tokens whose importance weight was truncated. Empty if both are the same.
    """
    if batch.sampler_logprobs is None or batch.importance is None:
        return {}
    mask = batch.rollouts.mask
    log_ratio = (batch.rollouts.logprobs - batch.sampler_logprobs)[mask].double()  # [N]
    cut = log_ratio.exp() > batch.importance[mask] * (1 + 1e-6)  # beyond what float32 rounds away
    return {
        "kl/sampler": (log_ratio.expm1() - log_ratio).mean().item(),
        "clip/sampler_share": cut.double().mean().item(),
    }
