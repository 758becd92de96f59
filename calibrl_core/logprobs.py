"""Log-probabilities and entropies straight from hidden states, in chunks: no `[tokens, vocabulary]` matrix is kept.

`N`: tokens. `D`: hidden size. `V`: vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**24  # logits in memory at once: 64 MB of float32


@dataclass(frozen=True)
class TokenScores:
    """What a policy thinks of given tokens. Both carry the gradient where one is wanted."""

    logprobs: Tensor  # float32, nats
    entropies: Tensor | None  # float32, nats, of the distribution that each token was drawn from; None: not asked for


def token_scores(
    hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, banned: Tensor, *, with_entropy: bool = False
) -> TokenScores:
    """Log-probability of `targets` and, if asked, the entropy of the distribution that each comes from, `[N]` each.

    hidden `[N, D]`, head `[V, D]`, targets `[N]` long, banned `[V]` bool. The distribution is the sampler's: softmax of
    logits / temperature over the tokens that are not banned, in float32. For the gradient each chunk's logits are
    computed a second time in the backward pass instead of being kept, and the head's is summed up in place.
    """
    logprobs, entropies = _TokenScores.apply(  # type: ignore[no-untyped-call]
        hidden, head, targets, temperature, banned, with_entropy
    )
    return TokenScores(logprobs, entropies if with_entropy else None)


class _TokenScores(torch.autograd.Function):
    """With p = softmax(scores), H = -sum p log p, and e the target's unit vector:

    d logprob / d scores = e - p,   d H / d scores = -p (log p + H).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, banned: Tensor, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(hidden.shape[0], device=hidden.device)
        normalisers, entropies = torch.empty_like(logprobs), torch.zeros_like(logprobs)
        for part in _parts(hidden, head):
            scores = sampler_logits(hidden[part] @ head.T, temperature, banned)
            normalisers[part] = scores.logsumexp(-1)
            logprobs[part] = scores.gather(-1, targets[part, None]).squeeze(-1) - normalisers[part]
            if with_entropy:
                entropies[part] = entropy(scores)
        ctx.save_for_backward(hidden, head, targets, banned, normalisers, entropies)
        ctx.temperature, ctx.with_entropy = temperature, with_entropy
        if not with_entropy:
            ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, of_logprobs: Tensor, of_entropies: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head, targets, banned, normalisers, entropies = ctx.saved_tensors
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        of_hidden = torch.empty_like(hidden) if wants_hidden else None
        of_head = torch.zeros_like(head) if wants_head else None
        for part in _parts(hidden, head):
            scores = sampler_logits(hidden[part] @ head.T, ctx.temperature, banned)
            logs = scores.sub_(normalisers[part, None])
            weights = of_logprobs[part, None]
            if ctx.with_entropy:
                surprise = logs.masked_fill(banned, 0.0).add_(entropies[part, None])
                weights = surprise.mul_(of_entropies[part, None]).add_(weights)
            of_scores = logs.exp_().mul_(weights).neg_()
            of_scores.scatter_add_(-1, targets[part, None], of_logprobs[part, None])
            of_logits = of_scores.div_(ctx.temperature)
            if of_hidden is not None:
                of_hidden[part] = of_logits @ head
            if of_head is not None:
                of_head.addmm_(of_logits.T, hidden[part])
        return of_hidden, of_head, None, None, None, None


def _parts(hidden: Tensor, head: Tensor) -> list[slice]:
    size = max(1, CHUNK_ELEMENTS // head.shape[0])
    return [slice(start, start + size) for start in range(0, hidden.shape[0], size)]


def sampler_logits(logits: Tensor, temperature: float, banned: Tensor) -> Tensor:
    """The logits that are sampled from: float32, divided by temperature, -inf where banned. `[..., V]`."""
    return (logits.float() / temperature).masked_fill(banned, -torch.inf)


def entropy(scores: Tensor) -> Tensor:
    """Entropy (nats) of softmax(scores) over the last dimension; -inf scores count as impossible."""
    logprobs = scores.log_softmax(-1)
    probabilities = logprobs.exp()
    return -(probabilities * logprobs.masked_fill(probabilities == 0, 0.0)).sum(-1)
