"""Sampled groups for people to read: prompt, image, expert, all completions with their numbers, token by token."""

import io

import torch

from calibrl_core.data.image_decoding import open_image
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.diagnostics.shown import known_gaps, measured, rounded, shortened
from calibrl_core.models.policy import Policy
from calibrl_core.report import Report, SampleCompletion, SampleGroup

TOKENS = 32_768  # stored per group, shared evenly by its completions; about 50 bytes each
EXPERT_TOKENS = 4096  # stored per expert: the first ones
CHARACTERS = 500_000  # stored per group of completion texts, per prompt and per expert


def report_groups(report: Report, step: int, policy: Policy, batch: StepBatch, count: int) -> None:
    """Emit `count` of the step's groups: those with the largest spread of rewards, which the step learns most from."""
    spread = batch.rewards.std(-1, unbiased=False)  # [P]
    for index in spread.argsort(descending=True, stable=True)[:count].tolist():
        report.emit("sample", step=step, group=_group(report, policy, batch, index))


def _group(report: Report, policy: Policy, batch: StepBatch, index: int) -> SampleGroup:
    example, size = batch.examples[index], batch.rollouts.group_size
    group = SampleGroup(
        prompt_id=example.id,
        prompt=shortened(example.question, CHARACTERS),
        answer=example.answer,
        images=[report.save_image(_as_png(image)) for image in example.images],
        expert=None if example.expert is None else shortened(example.expert, CHARACTERS),
        completions=[_completion(policy, batch, row) for row in range(index * size, (index + 1) * size)],
    )
    if example.expert is not None:
        tokens = batch.experts.tokens[index][batch.experts.mask[index]][:EXPERT_TOKENS].tolist()
        group["expert_tokens"] = [policy.tokenizer.decode([token]) for token in tokens]
    return group


def _completion(policy: Policy, batch: StepBatch, row: int) -> SampleCompletion:
    rollouts, score = batch.rollouts, batch.scores[row]
    length, limit = int(rollouts.mask[row].sum()), TOKENS // rollouts.group_size
    places = torch.arange(length)
    if length > limit:
        places = torch.cat([places[: limit - limit // 2], places[length - limit // 2 :]])
    ratios: list[float | None] = [None] * len(places)
    if batch.ratios is not None:
        ratios = measured(batch.ratios[row, places])
    completion = SampleCompletion(
        text=shortened(rollouts.texts[row], CHARACTERS // rollouts.group_size),
        tokens=[policy.tokenizer.decode([token]) for token in rollouts.tokens[row, places].tolist()],
        logprobs=rounded(rollouts.logprobs[row, places]),
        entropies=rounded(rollouts.entropies[row, places]),
        gaps=known_gaps(batch, row, places),
        ratios=ratios,
        left_out=length - len(places),
        rewards=score.by_verifier,
        reward=score.reward,
        advantage=batch.advantages.flatten()[row].item(),
        passed=score.passed,
        truncated=bool(rollouts.truncated[row]),
    )
    if (gains := batch.image_gains) is not None:
        completion["image_blank"] = measured(gains.blank[row, places])
        completion["image_shuffle"] = measured(gains.shuffle[row, places])
        completion["image_swap"] = measured(gains.swap[row, places])
    return completion


def _as_png(data: bytes) -> bytes:
    """Return an image as the model sees it."""
    buffer = io.BytesIO()
    open_image(data).save(buffer, format="PNG")
    return buffer.getvalue()
