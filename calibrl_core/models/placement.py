"""Moves the weights of a model to their device, each in its dtype, whole or in shards."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from calibrl_core.models.weights import Sharding, Weights


def place(
    model: Any, device: torch.device, *, sharding: Sharding | None, bfloat16: bool, frozen_in_half: bool
) -> Weights:
    """Move a model's weights to `device`, in float32; return the access to them.

    Args:
        sharding: hold this process's shard of each weight. All processes must call this.
        bfloat16: passes run in bfloat16.
        frozen_in_half: keep linear layers without trained weights in bfloat16, which saves the conversion that autocast
            would otherwise do at every call.
    """
    in_half = _frozen_linear_layers(model) if frozen_in_half else set()

    def convert(module: nn.Module) -> None:
        dtype = torch.bfloat16 if module in in_half else torch.float32
        module._apply(lambda one: one.to(device, dtype if one.is_floating_point() else None), recurse=False)

    if sharding is not None:
        from calibrl_core.models.sharded_weights import shard

        return shard(model, device, convert, sharding, bfloat16=bfloat16)
    for module in model.modules():
        convert(module)
    return Weights()


def _frozen_linear_layers(model: Any) -> set[nn.Module]:
    """Return the linear layers without trained parameters. The head is not among them: it runs in float32."""
    head = model.get_output_embeddings()
    return {
        module
        for module in model.modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and not any(parameter.requires_grad for parameter in module.parameters())
    }
