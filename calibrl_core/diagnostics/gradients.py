"""Comparison of the gradients of guidance and policy loss: whether guidance adds information.

With one on-policy update and s of the sign of A, guidance is per token a positive multiple of the policy gradient (1 or
`negative_slope` times it). Then the cosine is near 1, and guidance is little more than a larger step. A smaller cosine
means that guidance adds another direction.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor


def compare_gradients(
    policy: Sequence[Tensor],
    guidance: Sequence[Tensor],
    total: Callable[[Sequence[float]], list[float]] = list,
) -> dict[str, float]:
    """Return the 2-norms of two losses' gradients, their cosine, and the share of elements with opposite signs among
    those that are not 0 in both.

    Args:
        policy: gradients of the policy loss, per parameter, any shapes.
        guidance: gradients of the guidance loss before its weight, same parameters, shapes and order.
        total: sums over the processes, if each process holds a shard of every gradient.
    """
    pairs = list(zip(policy, guidance, strict=True))
    policy_square, guidance_square, product, moved, opposing = total(
        [
            _sum(one.square() for one in policy),
            _sum(other.square() for other in guidance),
            _sum(one * other for one, other in pairs),
            _sum((one != 0) & (other != 0) for one, other in pairs),
            _sum(one.sign() * other.sign() < 0 for one, other in pairs),
        ]
    )
    policy_norm, guidance_norm = policy_square**0.5, guidance_square**0.5
    values = {"loss/policy_grad_norm": policy_norm, "loss/guidance_grad_norm": guidance_norm}
    if policy_norm > 0 and guidance_norm > 0:
        values["loss/guidance_cosine"] = product / (policy_norm * guidance_norm)
    if moved:
        values["loss/guidance_opposing_share"] = opposing / moved
    return values


def _sum(tensors: Iterable[Tensor]) -> float:
    return float(sum(tensor.sum(dtype=torch.float64).item() for tensor in tensors))
