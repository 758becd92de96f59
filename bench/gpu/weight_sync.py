"""Seconds to pass the weights of a step to vLLM, if vLLM is installed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec

import torch

from bench.gpu import shapes
from bench.gpu.findings import Item, Measure, Setup

BATCH_TOKENS = 16_384


def sync(setup: Setup, shape: shapes.Shape) -> Iterator[Item]:
    """Start vLLM beside a policy, and measure the passing of all weights, twice.

    The policy is the language model alone: vLLM would run the image processor of the other at its start.
    """
    if find_spec("vllm") is None:
        yield "left out: vLLM is not installed"
        return
    from calibrl_core.rollout.vllm import VLLMEngine

    policy = shapes.make_text_policy(shapes.SMALL if setup.small else shape, setup.device)
    began = time.perf_counter()
    engine = VLLMEngine(policy, BATCH_TOKENS)
    yield Measure("start of vLLM", time.perf_counter() - began, "s")
    try:
        for version, name in enumerate(("first", "second")):
            began = time.perf_counter()
            with engine.sampling(version):
                if setup.device == "cuda":
                    torch.cuda.synchronize()
                yield Measure(f"{name} passing of {policy.parameter_count:,} weights", time.perf_counter() - began, "s")
    finally:
        engine.close()
