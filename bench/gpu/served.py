"""Rollouts by a vLLM server, if vLLM is installed: its log-probabilities, its speed, and the passing of weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from bench.gpu import cards, shapes, speed
from bench.gpu.findings import Item, Measure, Setup, at_least, at_most
from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts, SamplingRequest
from calibrl_core.rollout.self_check import LARGEST_DIFFERENCE, LARGEST_MEAN_DIFFERENCE
from calibrl_core.rollout.served import ServedEngine
from calibrl_core.rollout.server_layout import served_dtype
from calibrl_core.settings.sampling import EngineSettings

BATCH_TOKENS = 65_536
DECODE_GOAL = 0.5  # of the bandwidth limit


@dataclass(frozen=True)
class SampleSize:
    """Size of a measured sampling: no token ends a completion."""

    prompts: int
    group: int
    tokens: int


FULL, SMALL = SampleSize(prompts=16, group=8, tokens=256), SampleSize(prompts=2, group=2, tokens=8)


def serve(setup: Setup, shape: shapes.Shape) -> Iterator[Item]:
    """Start a server beside a policy; load all weights twice, the second time after a change; sample with both.

    The policy is the language model alone: vLLM would run the image processor of the other at its start.
    """
    if find_spec("vllm") is None:
        yield "left out: vLLM is not installed"
        return
    shape, size = (shapes.SMALL, SMALL) if setup.small else (shape, FULL)
    policy = shapes.make_text_policy(shape, setup.device)
    policy.stop_ids = frozenset()  # vLLM refuses a stop token beyond the vocabulary
    policy.banned = torch.zeros_like(policy.banned)  # a request lists banned tokens; here nearly all have no text
    card = cards.limits(setup.device)
    yield f"limits of the card ({card.source}): {card.bandwidth / 1e12:,.3g} TB/s"
    width = served_dtype(policy).itemsize
    limit = speed.decode_limit(size.prompts * size.group, _parameters(policy), width, card.bandwidth)
    began = time.perf_counter()
    engine = ServedEngine(policy, EngineSettings(engine="vllm_server", batch_tokens=BATCH_TOKENS))
    yield Measure("start of a server", time.perf_counter() - began, "s")
    try:
        yield from _measured(policy, engine, size, limit)
    finally:
        engine.close()


def _parameters(policy: Policy) -> speed.Parameters:
    head, embeddings = policy.model.get_output_embeddings().weight, policy.model.get_input_embeddings().weight
    outside = {id(one): one.numel() for one in (head, embeddings)}  # one if they are tied
    return speed.Parameters(layers=policy.parameter_count - sum(outside.values()), head=head.numel(), vision=0)


def _measured(policy: Policy, engine: ServedEngine, size: SampleSize, limit: float) -> Iterator[Item]:
    examples = [Example(id=str(n), question=f"What is {n} + 2?", answer=str(n + 2)) for n in range(size.prompts)]
    request = SamplingRequest(group_size=size.group, temperature=1.0, max_tokens=size.tokens, seed=[3])
    for version, name in enumerate(("first", "second")):
        began = time.perf_counter()
        with engine.sampling(version):
            yield Measure(f"{name} passing of {policy.parameter_count:,} weights", time.perf_counter() - began, "s")
            yield _difference(name, policy, engine.generate(examples, request))
            if version:  # the first requests of a server take longer
                yield from _speed(engine, examples, request, limit)
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.mul_(1.1)


def _difference(name: str, policy: Policy, rollouts: Rollouts) -> Measure:
    found = (rollouts.sampler_logprobs - rollouts.logprobs)[rollouts.mask].abs()
    if policy.bfloat16:
        what, value, limit = "mean", found.mean(), LARGEST_MEAN_DIFFERENCE
    else:
        what, value, limit = "largest", found.max(), LARGEST_DIFFERENCE
    return at_most(
        f"{name} weights: server and trainer, log-probability, {what} difference", float(value), "nats", limit
    )


def _speed(
    engine: ServedEngine, examples: Sequence[Example], request: SamplingRequest, limit: float
) -> Iterator[Measure]:
    """Measure the requests alone: `generate` also computes log-probabilities."""
    began = time.perf_counter()
    engine._answers(engine._ask(examples, request))
    decoded = len(examples) * request.group_size * request.max_tokens / (time.perf_counter() - began)
    yield Measure("decoding", decoded, "tokens/s", limit)
    yield at_least("decoding, share of the bandwidth limit", decoded / limit, "", DECODE_GOAL)
