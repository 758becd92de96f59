"""A training step on the real shapes of Qwen2.5-VL with random weights: time, utilisation, memory."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from statistics import median
from typing import Any

import torch
from PIL import Image

from bench.arms.ours import HashedRewards, make_learner
from bench.cases import NO_STOP
from bench.gpu import cards, shapes, speed
from bench.gpu.findings import Item, Measure, Setup, at_least
from bench.peak_memory import peak_bytes, restart_peak
from calibrl.schemas import MemoryPlan, TrainSpec
from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.self_check import check_model
from jobs.planning import memory
from jobs.planning.model_shapes import ModelShape, is_vision

# Published: EasyR1, Qwen2.5-VL-7B on 8 H100, 512 prompts x 5 rollouts.
PUBLISHED_MFU, PUBLISHED_TOKENS, PUBLISHED_STEP = 0.23, 2000.0, 120.0
MFU_GOAL, TOKENS_GOAL = 0.35, 2000.0
QUESTION = "What is the size of the angle at C, in degrees?"


@dataclass(frozen=True)
class StepSize:
    """Size of a measured step. canvas: pixels per side of an image, a multiple of 28."""

    prompts: int
    group: int
    tokens: int  # of every completion: no token ends one
    canvas: int
    steps: int


FULL = StepSize(prompts=16, group=8, tokens=256, canvas=448, steps=2)
SMALL = StepSize(prompts=2, group=2, tokens=8, canvas=56, steps=1)


def train(setup: Setup, shape: shapes.Shape, *, lora: bool) -> Iterator[Item]:
    """Measure a step of GRPO with all weights or with adapters, if the memory plan says that it fits."""
    shape, size = (replace(shapes.SMALL, tied=shape.tied), SMALL) if setup.small else (shape, FULL)
    options: dict[str, Any] = {"lora": {}} if lora else {}
    tensors = shapes.tensor_shapes(shape)
    spec = _spec(setup, size, options)
    plan = memory.estimate(spec, tensors, spec.model)
    available = cards.memory_bytes(setup.device)
    if available is not None and plan.bytes > available:
        yield f"left out: the memory plan says {plan.bytes / 1e9:.0f} GB, and the card has {available / 1e9:.0f} GB"
        return
    policy = shapes.make_policy(shape, TrainConfig.model_validate(_settings(size, options)).model, setup.device)
    examples = make_examples(size)
    yield Measure("check at load, difference of sampler and update", check_model(policy, examples), "nats")
    policy.stop_ids = frozenset({NO_STOP})
    prompt_tokens = policy.prompt_lengths(examples[:1])[0]
    plan = memory.estimate(_spec(setup, size, options, prompt_tokens), tensors, spec.model)
    restart_peak(on_gpu=setup.device == "cuda")
    measured = _steps(policy, _settings(size, options), examples, size)
    peak = peak_bytes(on_gpu=setup.device == "cuda")
    yield from _speed(setup, size, tensors, measured, prompt_tokens, lora=lora)
    yield _of_memory(peak, plan, setup)


@dataclass(frozen=True)
class Seconds:
    """Durations of a step."""

    step: float
    rollout: float

    @property
    def update(self) -> float:
        """Everything except sampling, so that the work that a GPU finishes later counts."""
        return self.step - self.rollout


def make_examples(size: StepSize) -> list[Example]:
    """Return prompts with an image each, for every step and one before them; the answer is the number of the prompt."""
    return [
        Example(id=str(n), question=f"<image>{QUESTION}", answer=str(n), images=(_png(n, size.canvas),))
        for n in range(size.prompts * (size.steps + 1))
    ]


def _png(seed: int, canvas: int) -> bytes:
    pixels = torch.randint(0, 255, (8, 8, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).resize((canvas, canvas)).save(file, format="PNG")
    return file.getvalue()


def _settings(size: StepSize, options: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": {"path": "/random", **options},  # a name only: the weights are made here
        "data": {"builtin": "digits"},  # not read
        "algorithm": {"type": "grpo", "mini_batches": 1},
        "rollout": {"group_size": size.group, "max_completion_tokens": size.tokens},
        "prompts_per_step": size.prompts,
        "steps": size.steps + 1,
    }


def _spec(setup: Setup, size: StepSize, options: dict[str, Any], prompt_tokens: int | None = None) -> TrainSpec:
    named = {"kind": "train", "name": "gpu", "resources": {"gpus": int(setup.device == "cuda")}}
    return TrainSpec.model_validate({**named, **_settings(size, options), "prompts": {"max_tokens": prompt_tokens}})


def _steps(policy: Policy, settings: dict[str, Any], examples: list[Example], size: StepSize) -> list[Seconds]:
    """Take a step that does not count, then `size.steps` steps."""
    config = TrainConfig.model_validate(settings)
    taken = []
    with HashedRewards(config.rewards) as scorer:
        learner = make_learner(config, policy, examples, scorer)
        for step in range(size.steps + 1):
            began = time.perf_counter()
            asked = examples[step * size.prompts : (step + 1) * size.prompts]
            result = learner.step(step, [replace(one) for one in asked])
            if policy.device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(Seconds(time.perf_counter() - began, result.metrics["perf/rollout_seconds"]))
            assert result.batch is not None
            generated = int(result.batch.rollouts.mask.sum())
            assert generated == size.prompts * size.group * size.tokens, "a completion ended early"
    return taken[1:]


def _speed(
    setup: Setup, size: StepSize, tensors: ModelShape, measured: list[Seconds], prompt_tokens: int, *, lora: bool
) -> Iterator[Item]:
    card = cards.limits(setup.device)
    yield f"limits of the card ({card.source}): {card.flops / 1e12:,.3g} TFLOP/s, {card.bandwidth / 1e12:,.3g} TB/s"
    parameters, rows = count_parameters(tensors), size.prompts * size.group
    work = speed.Work(size.prompts * prompt_tokens, rows * size.tokens, size.prompts * (size.canvas // 14) ** 2)
    step, rollout, update = (median(getattr(one, name) for one in measured) for name in ("step", "rollout", "update"))
    width = 2 if setup.device == "cuda" else 4
    limit = speed.decode_limit(rows, parameters, width, card.bandwidth)
    decoded = rows * size.tokens / rollout
    mfu = speed.utilisation(speed.update_flops(parameters, work, lora=lora), update, card.flops)
    name = f"{size.prompts} x {size.group} rollouts, {prompt_tokens} + {size.tokens} tokens"
    yield Measure(f"step of {name}", step, "s")
    yield Measure("of this, sampling", rollout, "s")
    every = rows * (prompt_tokens + size.tokens)
    yield at_least("step, tokens of prompts and completions", every / step, "tokens/s", TOKENS_GOAL, PUBLISHED_TOKENS)
    yield at_least("update, model FLOPs utilisation", mfu, "", MFU_GOAL, PUBLISHED_MFU)
    yield Measure("decoding", decoded, "tokens/s", limit)
    yield Measure("decoding, share of the bandwidth limit", decoded / limit)


def count_parameters(tensors: ModelShape) -> speed.Parameters:
    """Count parameters by the tokens that use them. A tied head is the matrix of the embeddings."""
    head = sum(prod(one) for name, one in tensors.shapes.items() if "lm_head" in name.split("."))
    embeddings = sum(prod(one) for name, one in tensors.shapes.items() if "embed_tokens" in name.split("."))
    layers = sum(prod(one) for name, one in tensors.shapes.items() if not is_vision(name)) - head - embeddings
    return speed.Parameters(layers=layers, head=head or embeddings, vision=tensors.vision)


def _of_memory(peak: int, plan: MemoryPlan, setup: Setup) -> Measure:
    """Compare with the plan. torch does not count what the plan calls the process."""
    process = sum(part.bytes for part in plan.parts if part.name == "process") if setup.device == "cuda" else 0
    planned = plan.bytes - process
    error = f"{(planned - peak) / peak:+.0%}"
    return Measure(f"peak memory; reference: the plan, which is off by {error}", peak / 1e9, "GB", planned / 1e9)
