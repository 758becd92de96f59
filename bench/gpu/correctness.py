"""Checks of the trainer on the device: rollouts, ratios before an update, attention kernels, tiny models."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor
from transformers.utils import logging

from bench.arms.ours import HashedRewards, make_learner
from bench.gpu import shapes
from bench.gpu.findings import Item, Measure, Setup, at_most, required
from calibrl_core import data
from calibrl_core.config import PathModel, TrainConfig
from calibrl_core.data.schema import BuiltinData, Example
from calibrl_core.models.errors import ModelError
from calibrl_core.models.loading import load_model
from calibrl_core.models.policy import Policy
from calibrl_core.models.tiny import build_tiny_vlm
from calibrl_core.rollout.base import Rollouts, SamplingRequest
from calibrl_core.rollout.self_check import LARGEST_DIFFERENCE, LARGEST_MEAN_DIFFERENCE, check_model
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from tests.families import more_vision, text, vision
from tests.families.build import write_vision
from tests.families.run import examples as family_examples
from tests.families.run import write_images
from tests.support.tiny_text import tiny_text_policy

Precision = Literal["float32", "bfloat16"]
# In this order: a policy in bfloat16 lets torch compute products of float32 less exactly from then on.
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
GROUP, TOKENS = 4, 24  # completions per prompt, tokens per completion
LIMITS = {"float32": LARGEST_DIFFERENCE, "bfloat16": LARGEST_MEAN_DIFFERENCE}  # nats
FEW = ("Qwen2.5-VL", "LLaVA", "Llama", "Qwen3")  # families of a rehearsal
KERNELS: tuple[Literal["sdpa", "flash_attention_2", "flex"], ...] = ("sdpa", "flash_attention_2", "flex")


def rollouts(setup: Setup) -> Iterator[Item]:
    """Check the contract of the rollout engine, and ratios of exactly 1 before an update, on the built-in model."""
    yield from required(one for precision in PRECISIONS for one in _rollouts(setup, precision))


def families(setup: Setup) -> Iterator[Item]:
    """Run the check at load on a tiny model of each family: sampler, update and transformers agree."""
    logging.disable_progress_bar()
    yield from required(one for precision in PRECISIONS for one in _families(setup, precision))


def kernels(setup: Setup) -> Iterator[Item]:
    """Compare log-probabilities under other attention kernels with those under torch's own, in bfloat16."""
    logging.disable_progress_bar()
    yield from required(_kernels(setup))


# ---- Rollouts


def _rollouts(setup: Setup, precision: Precision) -> Iterator[Measure]:
    policy = Policy(*build_tiny_vlm(0), torch.device(setup.device), precision)
    asked = data.load(BuiltinData(builtin="digits", split="validation", rows=4))
    first, again = _sample(policy, asked), _sample(policy, asked)
    yield at_most(f"{precision}: completions that change when they are sampled again", _changed(first, again), "", 0)
    if precision == "float32":  # in bfloat16 the sums of other batches round differently
        cut = _sample(policy, asked, batch_tokens=400)
        yield at_most(f"{precision}: completions that change in smaller batches", _changed(first, cut), "", 0)
    yield _difference("sampler and update, log-probability", policy, asked, first, precision)
    _change_weights(policy)
    after = _sample(policy, asked)
    name = "sampler and update after a change of weights, log-probability"
    yield _difference(name, policy, asked, after, precision)
    yield _ratios(policy, asked, precision)


def _sample(policy: Policy, asked: Sequence[Example], batch_tokens: int = 10_000) -> Rollouts:
    request = SamplingRequest(group_size=GROUP, temperature=1.0, max_tokens=TOKENS, seed=[3])
    return SharedPrefillEngine(policy, batch_tokens).generate(asked, request)


def _changed(one: Rollouts, other: Rollouts) -> int:
    return sum(a != b for a, b in zip(one.texts, other.texts, strict=True))


def _difference(name: str, policy: Policy, asked: Sequence[Example], sampled: Rollouts, precision: str) -> Measure:
    difference = (_logprobs(policy, asked, sampled) - sampled.logprobs)[sampled.mask].abs()
    largest = precision == "float32"
    found = float(difference.max() if largest else difference.mean())
    return at_most(
        f"{precision}: {name}, {'largest' if largest else 'mean'} difference", found, "nats", LIMITS[precision]
    )


@torch.no_grad()
def _logprobs(policy: Policy, asked: Sequence[Example], sampled: Rollouts) -> Tensor:
    owners = [row // sampled.group_size for row in range(len(sampled.tokens))]
    return policy.logprobs(asked, owners, sampled.tokens, sampled.mask, 1.0)


@torch.no_grad()
def _change_weights(policy: Policy) -> None:
    for parameter in policy.model.parameters():
        parameter.mul_(1.1)


def _ratios(policy: Policy, asked: Sequence[Example], precision: Precision) -> Measure:
    """Take a step of two mini-batches with a learning rate that changes no weight: every ratio must be 1.

    In float32 the old log-probabilities are the sampler's, which agree with those of the update only nearly.
    """
    config = TrainConfig.model_validate(
        {
            "model": {"builtin": "tiny-vlm"},  # not read
            "data": {"builtin": "digits"},  # not read
            "algorithm": {"type": "grpo", "mini_batches": 2},
            "rollout": {"group_size": GROUP, "max_completion_tokens": TOKENS},
            "optimizer": {"lr": 1e-30},
            "prompts_per_step": len(asked),
            "precision": precision,
            "steps": 1,
        }
    )
    numbered = [replace(one, answer=str(number), expert=None) for number, one in enumerate(asked)]
    with HashedRewards(config.rewards) as scorer:
        batch = make_learner(config, policy, numbered, scorer).step(0, numbered).batch
    assert batch is not None and batch.ratios is not None
    found = (batch.ratios - 1)[batch.rollouts.mask & ~batch.ratios.isnan()].abs().max()
    limit = 0.0 if precision == "bfloat16" else LARGEST_DIFFERENCE
    return at_most(f"{precision}: ratio before an update, largest distance from 1", float(found), "", limit)


# ---- Families


def _families(setup: Setup, precision: Precision) -> Iterator[Item]:
    base = build_tiny_vlm(0)[1].tokenizer
    of_images = vision.FAMILIES | more_vision.FAMILIES
    for name in (one for one in of_images if not setup.small or one in FEW):
        family = of_images[name]
        if reason := _left_out(family):
            yield f"{name}: left out: {reason}"
            continue
        with tempfile.TemporaryDirectory() as folder:
            asked = family_examples(write_images(Path(folder)))
            model = Path(folder) / "model"
            write_vision(model, base, family)
            policy = Policy(*load_model(PathModel(path=str(model))), torch.device(setup.device), precision)
            yield from _checked(name, policy, asked, precision)
    for name in (one for one in text.FAMILIES if not setup.small or one in FEW):
        yield from _text_family(name, base, setup, precision)


def _left_out(family: vision.Family) -> str | None:
    """Return the reason why a family cannot run here."""
    if family.needs and find_spec(family.needs) is None:
        return f"its processor needs {family.needs}"
    return None if hasattr(transformers, family.config) else _too_old()


def _too_old() -> str:
    return f"transformers {transformers.__version__} does not have it"


def _text_family(name: str, base: Any, setup: Setup, precision: Precision) -> Iterator[Item]:
    config, settings = text.FAMILIES[name]
    if not hasattr(transformers, config):
        yield f"{name}: left out: {_too_old()}"
        return
    policy = tiny_text_policy(base, getattr(transformers, config), precision, setup.device, **settings)
    yield from _checked(name, policy, family_examples([]), precision)


def _checked(name: str, policy: Policy, asked: list[Example], precision: Precision) -> Iterator[Item]:
    measure = f"{name}, {precision}, difference"
    try:
        yield at_most(measure, check_model(policy, asked), "nats", LIMITS[precision])
    except ModelError as error:
        yield f"{name}: {error}"
        yield Measure(measure, None, "nats", goal=f"<= {LIMITS[precision]:g} nats", met=False)


# ---- Kernels


def _kernels(setup: Setup) -> Iterator[Item]:
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        shapes.write_model(model, shapes.SMALL)
        asked = family_examples(write_images(Path(folder)))
        sampled, expected = None, None
        for name in KERNELS:
            try:
                loaded = load_model(PathModel(path=str(model), attention=name))
            except ModelError as error:
                yield f"{name}: left out: {error}"
                continue
            policy = Policy(*loaded, torch.device(setup.device), "bfloat16")
            *notes, checked = _checked(name, policy, asked, "bfloat16")
            yield from (*notes, checked)
            if notes:  # its kernels do not run here
                continue
            sampled = sampled or _sample(policy, asked)
            found = _logprobs(policy, asked, sampled)
            expected = found if expected is None else expected
            difference = float((found - expected)[sampled.mask].abs().mean())
            yield at_most(f"{name} and sdpa, mean difference", difference, "nats", LARGEST_MEAN_DIFFERENCE)
