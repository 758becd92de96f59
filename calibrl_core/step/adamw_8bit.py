"""AdamW with moments in 8 bits (arXiv 2110.02861), by torchao: BLOCK numbers share a scale.

The moments of a tensor are in float32 if it has fewer than SMALLEST numbers, or no multiple of BLOCK. With sharded
weights this holds for the part of each process, and all parts must have the same size. So blocks never cross the
border of a part, and the moments are those of one process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy
from calibrl_core.models.weights import Weights
from calibrl_core.settings.optimizer import OptimizerSettings

BLOCK, SMALLEST = 256, 4096  # those of torchao
_CODES, _SCALES = "_codes", "_scales"  # endings of the names of an 8-bit moment's tensors in a checkpoint
_SIGNED = {"exp_avg": True, "exp_avg_sq": False}  # the moments, and if they can be negative


def make_adamw_8bit(policy: Policy, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Return the optimizer of the trained weights.

    Raises:
        ModelError: torchao is not installed.
    """
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise ModelError(
            "optimizer.kind: adamw_8bit needs torchao: pip install 'calibrl[adamw-8bit]', or use adamw"
        ) from error
    optimizer: torch.optim.Optimizer = AdamW8bit(
        list(policy.trained.values()),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        block_size=BLOCK,
    )
    if policy.weights.sharded:  # torchao would choose the form of each part alone
        for parameter in policy.trained.values():
            optimizer.state[parameter] = _first_state(parameter, policy.weights)
    return optimizer


def _first_state(parameter: Tensor, weights: Weights) -> dict[str, Tensor]:
    part = weights.local_shard(parameter)
    small = _is_small(parameter, weights)
    state = {"step": torch.tensor(0.0)}
    for kind in _SIGNED:
        moment = _empty(part.shape, kind, part.device) if small else torch.zeros_like(part)
        state[kind] = weights.with_shard(moment, parameter, parameter.shape)
    return state


def _is_small(parameter: Tensor, weights: Weights) -> bool:
    """Return if the moments of a parameter are in 8 bits. The same in all processes."""
    if parameter.ndim == 0 or parameter.shape[0] % weights.shards:
        return False
    part = parameter.numel() // weights.shards
    return part >= SMALLEST and part % BLOCK == 0


def _empty(shape: torch.Size, kind: str, device: torch.device) -> Any:
    from torchao.optim.subclass_8bit import OptimState8bit

    return OptimState8bit.zeros(shape, _SIGNED[kind], BLOCK, device, torch.float32)


def plain_tensors(state: Mapping[str, Tensor], parameter: Tensor, weights: Weights) -> dict[str, Tensor]:
    """Return an optimizer's state of one parameter with each 8-bit moment as two plain tensors: codes and scales."""
    plain: dict[str, Tensor] = {}
    for kind, value in state.items():
        local: Any = weights.local_shard(value)
        if hasattr(local, "codes") and hasattr(local, "scale"):
            plain[kind + _CODES] = weights.with_shard(local.codes, parameter, parameter.shape)
            blocks = torch.Size([parameter.numel() // BLOCK])
            plain[kind + _SCALES] = weights.with_shard(local.scale, parameter, blocks)
        else:
            plain[kind] = value
    return plain


def with_moments(plain: Mapping[str, Tensor], parameter: Tensor, weights: Weights) -> dict[str, Tensor]:
    """Return the state from which `plain_tensors` made `plain`, also if it did so with another number of processes.

    Codes are this process's part, scales are whole. Moments in float32 stay in float32.
    """
    state = {kind: value for kind, value in plain.items() if not kind.endswith((_CODES, _SCALES))}
    for kind in [name.removesuffix(_CODES) for name in plain if name.endswith(_CODES)]:
        codes, scales = weights.local_shard(plain[kind + _CODES]), plain[kind + _SCALES]
        moment = _moment(codes, scales.to(codes.device), kind, parameter, weights)
        state[kind] = weights.with_shard(moment, parameter, parameter.shape)
    return state


def _moment(codes: Tensor, scales: Tensor, kind: str, parameter: Tensor, weights: Weights) -> Tensor:
    """Return this process's part of a moment, from its codes and the scales of all parts. In float32 if the part cannot
    be in 8 bits here.
    """
    before = weights.first_row(parameter) * (parameter.numel() // parameter.shape[0])  # numbers of other parts
    if _is_small(parameter, weights):
        small = _empty(codes.shape, kind, codes.device)
        small.codes, small.scale = codes, scales[before // BLOCK : (before + codes.numel()) // BLOCK]
        return cast(Tensor, small)
    places = torch.arange(before, before + codes.numel(), device=codes.device) // BLOCK
    values: Tensor = _empty(torch.Size([BLOCK]), kind, codes.device).qmap[codes.long()]
    return values * scales[places].view(codes.shape)
