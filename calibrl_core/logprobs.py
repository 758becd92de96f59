"""Log-probabilities straight from hidden states, in chunks: no `[tokens, vocabulary]` matrix is ever kept.

`N`: tokens. `D`: hidden size. `V`: vocabulary.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 2**24  # logits in memory at once: 64 MB of float32


def token_logprobs(hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, banned: Tensor) -> Tensor:
    """Log-probability (nats) of `targets`, `[N]` float32.

    hidden `[N, D]`, head `[V, D]`, targets `[N]` long, banned `[V]` bool. The distribution is the sampler's: softmax of
    logits / temperature over the tokens that are not banned. With a gradient, each chunk's logits are computed a second
    time in the backward pass instead of being kept.
    """
    size = max(1, CHUNK_ELEMENTS // head.shape[0])
    if hidden.shape[0] <= size:
        return _chunk(hidden, head, targets, temperature, banned)
    chunks = []
    for part, aims in zip(hidden.split(size), targets.split(size), strict=True):
        if torch.is_grad_enabled():
            chunks.append(checkpoint(_chunk, part, head, aims, temperature, banned, use_reentrant=False))
        else:
            chunks.append(_chunk(part, head, aims, temperature, banned))
    return torch.cat(chunks)


def _chunk(hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, banned: Tensor) -> Tensor:
    scores = sampler_logits(hidden @ head.T, temperature, banned)
    return scores.gather(-1, targets[:, None]).squeeze(-1) - scores.logsumexp(-1)


def sampler_logits(logits: Tensor, temperature: float, banned: Tensor) -> Tensor:
    """The logits that are sampled from: float32, divided by temperature, -inf where banned. `[..., V]`."""
    return (logits.float() / temperature).masked_fill(banned, -torch.inf)


def entropy(scores: Tensor) -> Tensor:
    """Entropy (nats) of softmax(scores) over the last dimension; -inf scores count as impossible."""
    logprobs = scores.log_softmax(-1)
    probabilities = logprobs.exp()
    return -(probabilities * logprobs.masked_fill(probabilities == 0, 0.0)).sum(-1)
