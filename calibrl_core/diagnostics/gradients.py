"""Comparison of the gradients of guidance and policy loss: whether guidance adds information.

With one on-policy update and s of the sign of A, guidance is per token a positive multiple of the policy gradient (1 or
`negative_slope` times it). Then the cosine is near 1, and guidance is little more than a larger step. A smaller cosine
means that guidance adds another direction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 2**22  # elements compared at a time: temporary tensors stay small beside the gradients


@dataclass(frozen=True)
class TensorComparison:
    """Two lists of tensors, compared as two vectors."""

    norms: tuple[float, float]  # L2
    cosine: float | None  # None: one vector is 0
    opposing: float | None  # share of elements with opposite signs among those not 0 in both; None: there are none


def compare_tensors(
    first: Sequence[Tensor | None],
    second: Sequence[Tensor | None],
    total: Callable[[Sequence[float]], list[float]] = list,
) -> TensorComparison:
    """Compare two lists of tensors of the same shapes; None is a tensor of 0.

    The sums are computed where the tensors are; only five numbers are copied to the host. `total`: sums over the
    processes, if each process holds a shard of every tensor.
    """
    sums = [
        _sums(*chunk)
        for pair in zip(first, second, strict=True)
        if any(tensor is not None for tensor in pair)
        for chunk in _chunks(*pair)
    ]
    own = torch.stack(sums).sum(0).tolist() if sums else [0.0] * 5
    first_square, second_square, product, moved, opposing = total(own)
    norms = (first_square**0.5, second_square**0.5)
    cosine = product / (norms[0] * norms[1]) if min(norms) > 0 else None
    return TensorComparison(norms, cosine, opposing / moved if moved else None)


def compare_gradients(
    policy: Sequence[Tensor | None],
    guidance: Sequence[Tensor | None],
    total: Callable[[Sequence[float]], list[float]] = list,
) -> dict[str, float]:
    """Return the 2-norms of two losses' gradients, their cosine, and the share of elements with opposite signs among
    those that are not 0 in both.

    Args:
        policy: gradients of the policy loss, per parameter, any shapes; None is a gradient of 0.
        guidance: gradients of the guidance loss before its weight, same parameters, shapes and order.
        total: as in `compare_tensors`.
    """
    found = compare_tensors(policy, guidance, total)
    values = {"loss/policy_grad_norm": found.norms[0], "loss/guidance_grad_norm": found.norms[1]}
    if found.cosine is not None:
        values["loss/guidance_cosine"] = found.cosine
    if found.opposing is not None:
        values["loss/guidance_opposing_share"] = found.opposing
    return values


def _chunks(policy: Tensor | None, guidance: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    """Return both gradients of a parameter, one of them not None, as pairs of chunks `[<= CHUNK]`."""
    flat = [None if gradient is None else gradient.flatten() for gradient in (policy, guidance)]
    known = next(gradient for gradient in flat if gradient is not None)
    zeros = known.new_zeros(1).expand(known.numel())  # takes no memory
    policy_chunks, guidance_chunks = ((zeros if gradient is None else gradient).split(CHUNK) for gradient in flat)
    return list(zip(policy_chunks, guidance_chunks, strict=True))


def _sums(policy: Tensor, guidance: Tensor) -> Tensor:
    """Return `[5]` float64: both squared norms, the product, and the numbers of common and of opposed elements."""
    terms = (
        policy.square(),
        guidance.square(),
        policy * guidance,
        (policy != 0) & (guidance != 0),
        policy.sign() * guidance.sign() < 0,
    )
    return torch.stack([term.sum(dtype=torch.float64) for term in terms])
