"""Whole groups for people to read: prompt, image, expert, every completion with its numbers, token by token."""

import io
from collections.abc import Sequence

from PIL import Image

from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.models.policy import Policy
from calibrl_core.report import Report, SampleCompletion, SampleGroup

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def report_groups(
    report: Report, step: int, policy: Policy, examples: Sequence[Example], batch: StepBatch, count: int
) -> None:
    """Emit `count` of the step's groups, those that divide the most first: they are what the step learns from."""
    spread = batch.rewards.std(-1, unbiased=False)  # [P]
    for index in spread.argsort(descending=True, stable=True)[:count].tolist():
        report.emit("sample", step=step, group=_group(report, policy, examples[index], batch, index))


def _group(report: Report, policy: Policy, example: Example, batch: StepBatch, index: int) -> SampleGroup:
    size = batch.rollouts.group_size
    return SampleGroup(
        prompt_id=example.id,
        prompt=example.question,
        answer=example.answer,
        images=[report.save_image(_as_png(image)) for image in example.images],
        expert=example.expert,
        completions=[_completion(policy, batch, row) for row in range(index * size, (index + 1) * size)],
    )


def _completion(policy: Policy, batch: StepBatch, row: int) -> SampleCompletion:
    rollouts, score = batch.rollouts, batch.scores[row]
    length = int(rollouts.mask[row].sum())
    gaps, has_gap = batch.gaps[row, :length].tolist(), batch.gap_mask[row, :length].tolist()
    return SampleCompletion(
        text=rollouts.texts[row],
        tokens=[policy.tokenizer.decode([token]) for token in rollouts.tokens[row, :length].tolist()],
        logprobs=_rounded(rollouts.logprobs[row, :length].tolist()),
        entropies=_rounded(rollouts.entropies[row, :length].tolist()),
        gaps=[round(gap, 5) if has else None for gap, has in zip(gaps, has_gap, strict=True)],
        rewards=score.by_verifier,
        reward=score.reward,
        advantage=batch.advantages.flatten()[row].item(),
        passed=score.passed,
        truncated=bool(rollouts.truncated[row]),
    )


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 5) for value in values]


def _as_png(data: bytes) -> bytes:
    if data.startswith(PNG_SIGNATURE):
        return data
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()
