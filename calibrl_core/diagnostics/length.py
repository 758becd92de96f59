"""Family length/: length of completions, and whether they end by themselves."""

from calibrl_core.diagnostics.base import StepBatch


def length(batch: StepBatch) -> dict[str, float]:
    """Return tokens per completion, and the share of truncated completions."""
    lengths = batch.rollouts.mask.sum(-1).double()
    return {
        "length/mean": lengths.mean().item(),
        "length/max": lengths.max().item(),
        "length/truncated_share": batch.rollouts.truncated.double().mean().item(),
    }
