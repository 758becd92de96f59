"""Whether guidance says something of its own: its gradient beside the policy's.

With one on-policy update and s of A's sign, guidance is per token a positive multiple of the policy gradient (1 or
`negative_slope` times it); the cosine is then near 1, and guidance little but a larger step. Below, it says more.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def compare_gradients(policy: Sequence[Tensor], guidance: Sequence[Tensor]) -> dict[str, float]:
    """Two losses' gradients, parameter by parameter in the same order: their 2-norms, the cosine between them, and the
    share of elements on which they point opposite ways, of those that both want to move.

    Guidance is compared before its weight. What is undefined (a gradient of 0) is absent.
    """
    pairs = list(zip(policy, guidance, strict=True))
    policy_norm, guidance_norm = (_sum(one.square() for one in side) ** 0.5 for side in (policy, guidance))
    values = {"loss/policy_grad_norm": policy_norm, "loss/guidance_grad_norm": guidance_norm}
    if policy_norm > 0 and guidance_norm > 0:
        values["loss/guidance_cosine"] = _sum(one * other for one, other in pairs) / (policy_norm * guidance_norm)
    moved = sum(int(((one != 0) & (other != 0)).sum()) for one, other in pairs)
    if moved:
        opposing = sum(int((one.sign() * other.sign() < 0).sum()) for one, other in pairs)
        values["loss/guidance_opposing_share"] = opposing / moved
    return values


def _sum(tensors: Iterable[Tensor]) -> float:
    return sum(tensor.sum(dtype=torch.float64).item() for tensor in tensors)
