"""Whether guidance says something of its own: its gradient beside the policy's.

With one on-policy update and s of A's sign, guidance is per token a positive multiple of the policy gradient (1 or
`negative_slope` times it); the cosine is then near 1, and guidance little but a larger step. Below, it says more.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor


def compare_gradients(
    policy: Sequence[Tensor],
    guidance: Sequence[Tensor],
    total: Callable[[Sequence[float]], list[float]] = list,
) -> dict[str, float]:
    """Two losses' gradients, parameter by parameter in the same order: their 2-norms, the cosine between them, and the
    share of elements on which they point opposite ways, of those that both want to move.

    Where each process has a part of every gradient, `total` sums over the processes. Guidance is compared before its
    weight. What is undefined (a gradient of 0) is absent.
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
