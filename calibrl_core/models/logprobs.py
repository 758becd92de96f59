"""Log-probabilities and entropies from hidden states, in chunks: no `[tokens, vocabulary]` matrix is stored.

`N`: tokens. `D`: hidden size. `V`: vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from calibrl_core.models.entropy import entropy

# Logits in memory at the same time, 4 bytes each: 64 MB on a CPU; on a GPU enough rows to use it fully.
CHUNK_ELEMENTS = {"cpu": 2**24, "cuda": 2**26}


@dataclass(frozen=True)
class Head:
    """Output layer: logits = scale (W h + b), then, in some models, softcap tanh(logits / softcap).

    Always in float32, for all precisions of the model, and the same for sampler and trainer: bfloat16 has 8 bits, which
    changes a logit of 20 by up to 0.06, and its log-probability with it.
    """

    weight: Tensor  # [V, D]
    bias: Tensor | None = None  # [V]
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits `[N, V]` float32 of hidden `[N, D]`."""
        with torch.autocast(hidden.device.type, enabled=False):
            exact = _exact(hidden.dtype)
            logits = hidden.to(exact) @ self.weight.to(exact).T
        if self.bias is not None:
            logits += self.bias
        if self.scale != 1.0:
            logits *= self.scale
        return logits if self.softcap is None else logits.div_(self.softcap).tanh_().mul_(self.softcap)


@dataclass(frozen=True)
class TokenLogprobs:
    """Log-probabilities and entropies of given tokens under a policy. Both carry the gradient if one is needed."""

    logprobs: Tensor  # float32, nats
    entropies: Tensor | None  # float32, nats, of the distribution of each token; None: not requested


def token_logprobs(
    hidden: Tensor, head: Head, targets: Tensor, temperature: float, banned: Tensor, *, with_entropy: bool = False
) -> TokenLogprobs:
    """Return the log-probability `[N]` of `targets` and, with `with_entropy`, the entropy `[N]` of their distributions.

    Args:
        hidden: `[N, D]`.
        targets: `[N]` long.
        temperature: of the sampler.
        banned: `[V]` bool, tokens that are never sampled.

    The distribution is the sampler's: softmax of logits / temperature over the tokens that are not banned, in float32.
    For the gradient, the backward pass computes the logits of each chunk a second time instead of storing them, unless
    there is only one chunk. The gradient of the head is summed up in place.
    """
    logprobs, entropies = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, head, targets, temperature, banned, with_entropy
    )
    return TokenLogprobs(logprobs, entropies if with_entropy else None)


class _TokenLogprobs(torch.autograd.Function):
    """Autograd function of `token_logprobs`. With p = softmax(logits), H = -sum p log p, and e the target's unit
    vector:

    d logprob / d logits = e - p,   d H / d logits = -p (log p + H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: Head,
        targets: Tensor,
        temperature: float,
        banned: Tensor,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(hidden.shape[0], dtype=_exact(hidden.dtype), device=hidden.device)
        normalisers, entropies = torch.empty_like(logprobs), torch.zeros_like(logprobs)
        parts, kept = _parts(hidden, weight), None
        for part in parts:
            logits = sampler_logits(head.logits(hidden[part]), temperature, banned)
            normalisers[part] = logits.logsumexp(-1)
            logprobs[part] = logits.gather(-1, targets[part, None]).squeeze(-1) - normalisers[part]
            if with_entropy:
                entropies[part] = entropy(logits)
            if len(parts) == 1 and head.softcap is None:
                kept = logits.sub_(normalisers[:, None])
        ctx.save_for_backward(hidden, weight, bias, targets, banned, normalisers, entropies, kept)
        ctx.scale, ctx.softcap = head.scale, head.softcap
        ctx.temperature, ctx.with_entropy = temperature, with_entropy
        if not with_entropy:
            ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, of_logprobs: Tensor, of_entropies: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, banned, normalisers, entropies, kept = ctx.saved_tensors
        head = Head(weight, bias, ctx.scale, ctx.softcap)
        needs_grad = ctx.needs_input_grad
        of_hidden = torch.empty_like(hidden) if needs_grad[0] else None
        of_weight = torch.zeros_like(weight) if needs_grad[1] else None
        of_bias = torch.zeros_like(bias) if needs_grad[2] else None
        for part in _parts(hidden, weight):
            logs = kept
            if logs is None:
                logits = head.logits(hidden[part])
                logs = sampler_logits(logits, ctx.temperature, banned).sub_(normalisers[part, None])
            share = of_logprobs[part, None]
            if ctx.with_entropy:
                surprise = logs.masked_fill(banned, 0.0).add_(entropies[part, None])
                share = surprise.mul_(of_entropies[part, None]).add_(share)
            of_logits = logs.exp().mul_(share).neg_()
            of_logits.scatter_add_(-1, targets[part, None], of_logprobs[part, None])
            of_logits.mul_(head.scale / ctx.temperature)
            if head.softcap is not None:
                of_logits.mul_(1 - (logits / head.softcap).square())
            if of_hidden is not None:
                of_hidden[part] = of_logits @ weight
            if of_weight is not None:
                of_weight.addmm_(of_logits.T, hidden[part].to(of_logits.dtype))
            if of_bias is not None:
                of_bias += of_logits.sum(0)
        return of_hidden, of_weight, of_bias, None, None, None, None, None


def _exact(dtype: torch.dtype) -> torch.dtype:
    """Return float32, or float64 for a model in float64."""
    return torch.promote_types(dtype, torch.float32)


def _parts(hidden: Tensor, weight: Tensor) -> list[slice]:
    size = max(1, CHUNK_ELEMENTS[weight.device.type] // weight.shape[0])
    return [slice(start, start + size) for start in range(0, hidden.shape[0], size)]


def sampler_logits(logits: Tensor, temperature: float, banned: Tensor) -> Tensor:
    """Return the logits that are sampled from, `[..., V]`: float32, divided by temperature, -inf for banned tokens.

    banned: `[V]` bool.
    """
    return (logits.to(_exact(logits.dtype)) / temperature).masked_fill_(banned, -torch.inf)
