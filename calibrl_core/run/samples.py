"""Sampled groups for people to read: prompt, image, expert, all completions with their numbers, token by token."""

import io
import math

import torch
from torch import Tensor

from calibrl_core.data.image_decoding import open_image
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.models.policy import Policy
from calibrl_core.report import Report, SampleCompletion, SampleGroup

TOKENS = 32_768  # stored per group, shared evenly by its completions; about 50 bytes each
CHARACTERS = 500_000  # stored per group of completion texts, per prompt and per expert
CUT = " [...] "  # replaces the middle of a long text


def report_groups(report: Report, step: int, policy: Policy, batch: StepBatch, count: int) -> None:
    """Emit `count` of the step's groups: those with the largest spread of rewards, which the step learns most from."""
    spread = batch.rewards.std(-1, unbiased=False)  # [P]
    for index in spread.argsort(descending=True, stable=True)[:count].tolist():
        report.emit("sample", step=step, group=_group(report, policy, batch, index))


def _group(report: Report, policy: Policy, batch: StepBatch, index: int) -> SampleGroup:
    example, size = batch.examples[index], batch.rollouts.group_size
    return SampleGroup(
        prompt_id=example.id,
        prompt=_shortened(example.question, CHARACTERS),
        answer=example.answer,
        images=[report.save_image(_as_png(image)) for image in example.images],
        expert=None if example.expert is None else _shortened(example.expert, CHARACTERS),
        completions=[_completion(policy, batch, row) for row in range(index * size, (index + 1) * size)],
    )


def _completion(policy: Policy, batch: StepBatch, row: int) -> SampleCompletion:
    rollouts, score = batch.rollouts, batch.scores[row]
    length, limit = int(rollouts.mask[row].sum()), TOKENS // rollouts.group_size
    places = torch.arange(length)
    if length > limit:
        places = torch.cat([places[: limit - limit // 2], places[length - limit // 2 :]])
    ratios: list[float | None] = [None] * len(places)
    if batch.ratios is not None:
        ratios = _measured(batch.ratios[row, places])
    gaps, has_gap = batch.gaps[row, places].tolist(), batch.gap_mask[row, places].tolist()
    completion = SampleCompletion(
        text=_shortened(rollouts.texts[row], CHARACTERS // rollouts.group_size),
        tokens=[policy.tokenizer.decode([token]) for token in rollouts.tokens[row, places].tolist()],
        logprobs=_rounded(rollouts.logprobs[row, places]),
        entropies=_rounded(rollouts.entropies[row, places]),
        gaps=[round(gap, 5) if has else None for gap, has in zip(gaps, has_gap, strict=True)],
        ratios=ratios,
        left_out=length - len(places),
        rewards=score.by_verifier,
        reward=score.reward,
        advantage=batch.advantages.flatten()[row].item(),
        passed=score.passed,
        truncated=bool(rollouts.truncated[row]),
    )
    if (gains := batch.image_gains) is not None:
        completion["image_blank"] = _measured(gains.blank[row, places])
        completion["image_shuffle"] = _measured(gains.shuffle[row, places])
        completion["image_swap"] = _measured(gains.swap[row, places])
    return completion


def _measured(values: Tensor) -> list[float | None]:
    """Return `values` with None in place of those that are not finite."""
    return [round(value, 5) if math.isfinite(value) else None for value in values.tolist()]


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]


def _shortened(text: str, limit: int) -> str:
    """Return the beginning and the end of a text; the answer is usually at the end."""
    if len(text) <= limit:
        return text
    half = (limit - len(CUT)) // 2
    return text[:half] + CUT + text[-half:]


def _as_png(data: bytes) -> bytes:
    """Return an image as the model sees it."""
    buffer = io.BytesIO()
    open_image(data).save(buffer, format="PNG")
    return buffer.getvalue()
