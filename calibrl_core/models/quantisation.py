"""Linear layers of 4 bits for adapters to train on (QLoRA, arXiv 2305.14314), by bitsandbytes.

A weight has one code of 4 bits per number: the nearest of the 16 NF4 values, times the largest absolute number of the
block of 64 that the number is in. This scale is stored in 8 bits, with a float32 scale per 256 blocks (double
quantisation): 4.127 bits per number in all. A pass computes in its own precision: it dequantises the weight of one
layer at a time, and again in the backward pass, or a kernel of a GPU reads the codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from calibrl_core.models.errors import ModelError

BLOCK = 64  # numbers that share a scale


class QuantisedLinear(nn.Linear):
    """A linear layer with a weight of 4 bits, which cannot be trained. No state dict contains it."""

    def __init__(self, layer: nn.Linear, device: torch.device) -> None:
        """Quantise the weight of `layer` on `device`."""
        from bitsandbytes.functional import quantize_4bit

        nn.Module.__init__(self)  # that of the base class would allocate a weight
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_parameter("bias", layer.bias)
        weight = layer.weight.detach().to(device, torch.float32)
        # Not as buffers: a conversion of the model to another dtype would convert the scales.
        self._codes, self._scales = quantize_4bit(weight, blocksize=BLOCK, compress_statistics=True, quant_type="nf4")

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # the base class has a variable
        """Return the dequantised weight, `[out, in]` float32."""
        from bitsandbytes.functional import dequantize_4bit

        return cast(Tensor, dequantize_4bit(self._codes, self._scales))

    @property
    def nbytes(self) -> int:
        """Return the bytes of the codes and their scales."""
        return sum(one.nbytes for one in (self._codes, self._scales.absmax, self._scales.state2.absmax))

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` `[..., in]` times the weight, `[..., out]`, in the dtype of autocast or else of the input."""
        from bitsandbytes import matmul_4bit

        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return cast(Tensor, matmul_4bit(input.to(dtype), self._codes, quant_state=self._scales, bias=bias))


def quantise_layers(model: Any, names: Sequence[str], device: torch.device) -> None:
    """Replace linear layers of a model by quantised ones on `device`, one by one, so that only one layer needs memory
    beside the result if the weights are views of files. On a CPU the other weights are copied: none stays a view of a
    file, which can change.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "model.quantization: nf4 needs bitsandbytes: pip install 'calibrl[quantization]', or remove quantization"
        ) from error
    for name in names:
        model.set_submodule(name, QuantisedLinear(model.get_submodule(name), device))
    if device.type == "cpu":
        model._apply(torch.clone)


def quantised_layers(model: nn.Module) -> dict[str, QuantisedLinear]:
    """Return the quantised layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantisedLinear)}


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters of a model, quantised weights included."""
    quantised = sum(layer.in_features * layer.out_features for layer in quantised_layers(model).values())
    return quantised + sum(parameter.numel() for parameter in model.parameters())
