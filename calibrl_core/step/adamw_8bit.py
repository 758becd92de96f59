"""AdamW with moments in 8 bits (arXiv 2110.02861), by torchao: 256 numbers share a scale.

torchao keeps the moments of a tensor in float32 if it has fewer than 4,096 numbers, or no multiple of 256.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from calibrl_core.models.errors import ModelError
from calibrl_core.optimizer_settings import OptimizerSettings

_CODES, _SCALES = "_codes", "_scales"  # endings of the names of an 8-bit moment's tensors in a checkpoint
_SIGNED = "exp_avg"  # the mean of the gradient; the other moment has no negative numbers


def make_adamw_8bit(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Return the optimizer.

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
        list(parameters),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    return optimizer


def plain_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an optimizer's state of one parameter with each 8-bit moment as two plain tensors: codes and scales."""
    plain: dict[str, Tensor] = {}
    for kind, value in state.items():
        if hasattr(value, "codes") and hasattr(value, "scale"):
            plain |= {kind + _CODES: value.codes, kind + _SCALES: value.scale}
        else:
            plain[kind] = value
    return plain


def with_moments(plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state from which `plain_tensors` made `plain`."""
    state = {kind: value for kind, value in plain.items() if not kind.endswith((_CODES, _SCALES))}
    for kind in [name.removesuffix(_CODES) for name in plain if name.endswith(_CODES)]:
        from torchao.optim.subclass_8bit import OptimState8bit

        codes, scales = plain[kind + _CODES], plain[kind + _SCALES]
        block = codes.numel() // scales.numel()
        moment = OptimState8bit.zeros(codes.shape, kind == _SIGNED, block, codes.device, torch.float32)
        moment.codes, moment.scale = codes, scales
        state[kind] = moment
    return state
