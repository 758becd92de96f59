"""The entropy of the policy at each token."""

from torch import Tensor


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy (nats) of softmax(logits), `[...]` from logits `[..., V]`; -inf logits have probability 0."""
    logprobs = logits.log_softmax(-1)
    probabilities = logprobs.exp()
    return -(probabilities * logprobs.masked_fill(probabilities == 0, 0.0)).sum(-1)
