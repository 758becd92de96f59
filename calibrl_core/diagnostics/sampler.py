"""Of families kl/ and clip/: how far the engine that sampled is from the trainer, where they are two."""

from calibrl_core.diagnostics.base import StepBatch


def sampler(batch: StepBatch) -> dict[str, float]:
    """The divergence of the trainer's distribution from the sampler's (nats a token, estimated as k3 from the tokens
    that were sampled), and the share of tokens whose importance weight was cut. Nothing where they are one."""
    if batch.sampler_logprobs is None or batch.importance is None:
        return {}
    mask = batch.rollouts.mask
    log_ratio = (batch.rollouts.logprobs - batch.sampler_logprobs)[mask].double()  # [N]
    cut = log_ratio.exp() > batch.importance[mask] * (1 + 1e-6)  # beyond what float32 rounds away
    return {
        "kl/sampler": (log_ratio.expm1() - log_ratio).mean().item(),
        "clip/sampler_share": cut.double().mean().item(),
    }
