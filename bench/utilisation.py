"""Utilisation of the machine by one step on a text model: update by arithmetic, decoding by memory bandwidth.

Both limits are measured in the same run, by a large matrix product and a large copy. No table of GPUs is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from bench.cases import ModelCase

SIZE = 4096  # side of the square matrices; half of it on a CPU
COPIED = 2**28  # bytes


def utilisation(case: ModelCase, rollout_seconds: float, update_seconds: float) -> str:
    """Return the update's model FLOPs utilisation (arXiv 2204.02311, appendix B, without attention) and decoding's
    share of its bandwidth limit, in words. At the limit, each token of the batch takes the time to read all weights."""
    policy = case.load()
    torch.set_num_threads(case.threads)
    kind = torch.bfloat16 if policy.bfloat16 else torch.float32
    rate = matmul_rate(policy.device, kind)
    bandwidth = copy_rate(policy.device)
    embeddings = policy.model.get_input_embeddings().weight
    tied = embeddings is policy.head.weight
    used = policy.parameter_count - (
        0 if tied else embeddings.numel()
    )  # only some rows of an untied embedding are read
    prompt_tokens = policy.prompt_lengths(case.examples(1))[0]
    tokens = case.prompts * (prompt_tokens + case.group_size * case.tokens)  # a prompt runs once per group
    mfu = 6 * used * tokens / update_seconds / rate
    decoded = used * kind.itemsize * case.tokens / rollout_seconds / bandwidth
    return (
        f"update: {mfu:.0%} model FLOPs utilisation of the {rate / 1e9:,.0f} GFLOP/s that a large matrix product "
        f"reaches ({str(kind).removeprefix('torch.')}); decoding: {decoded:.0%} of the limit set by a bandwidth of "
        f"{bandwidth / 1e9:.1f} GB/s"
    )


def matmul_rate(device: torch.device, kind: torch.dtype) -> float:
    """Measure the FLOP/s of a product of two large matrices."""
    size = SIZE if device.type == "cuda" else SIZE // 2
    left, right = (torch.randn((size, size), device=device, dtype=kind) for _ in range(2))
    return 2 * size**3 / _seconds(lambda: left @ right, device)


def copy_rate(device: torch.device) -> float:
    """Measure the bytes per second that a large copy reads and writes."""
    source = torch.ones(COPIED // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / _seconds(lambda: target.copy_(source), device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the shortest of several run times."""
    times = []
    for _ in range(6):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)
