"""Limits of cards: dense bfloat16 FLOP/s and bytes per second of memory.

From NVIDIA's data sheets (H200, H100, A100, L40S; without sparsity). The limits of other cards are measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.utilisation import copy_rate, matmul_rate


@dataclass(frozen=True)
class GpuLimits:
    """Limits of a card. source: where they come from."""

    flops: float  # FLOP/s, bfloat16, dense
    bandwidth: float  # bytes/s
    source: str = "data sheet"


CARDS = {
    "NVIDIA H200": GpuLimits(989e12, 4.8e12),
    "NVIDIA H100 80GB HBM3": GpuLimits(989e12, 3.35e12),
    "NVIDIA H100 NVL": GpuLimits(835e12, 3.9e12),
    "NVIDIA H100 PCIe": GpuLimits(756e12, 2.0e12),
    "NVIDIA A100-SXM4-80GB": GpuLimits(312e12, 2.039e12),
    "NVIDIA A100-SXM4-40GB": GpuLimits(312e12, 1.555e12),
    "NVIDIA A100 80GB PCIe": GpuLimits(312e12, 1.935e12),
    "NVIDIA L40S": GpuLimits(362e12, 864e9),
}


def name(device: str) -> str:
    """Return the name of the card; cpu without one."""
    return torch.cuda.get_device_name() if device == "cuda" else device


def limits(device: str) -> GpuLimits:
    """Return the limits of the card from the table; of an unknown card as a large product and a large copy reach."""
    known = CARDS.get(name(device))
    if known is not None:
        return known
    where = torch.device(device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return GpuLimits(matmul_rate(where, dtype), copy_rate(where), "measured")


def memory_bytes(device: str) -> int | None:
    """Return the memory of the card; None on a CPU."""
    return torch.cuda.get_device_properties(0).total_memory if device == "cuda" else None
