"""How much a step's completions depend on their images: their log-probabilities beside those with changed images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from calibrl_core.config import TrainConfig
from calibrl_core.data.changed_images import ChangedImages
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.base import ImageGains
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts
from calibrl_core.settings.image_changes import ImageChange
from calibrl_core.step.token_logprobs import logprobs_in_parts

GROUPS = 8  # per process, or as many as are kept for people to read


def image_gains(
    policy: Policy, examples: Sequence[Example], rollouts: Rollouts, rewards: Tensor, config: TrainConfig
) -> ImageGains | None:
    """Return the gains of the groups with images whose rewards differ most, `rewards` `[P, G]`; None if no prompt has
    an image. The groups that are kept for people to read are among them.
    """
    spread = rewards.std(-1, unbiased=False).argsort(descending=True, stable=True).tolist()  # as `report_groups`
    chosen = [place for place in spread if examples[place].images][: max(GROUPS, config.samples.groups)]
    if not chosen:
        return None
    size, count = rollouts.group_size, len(chosen)
    rows = torch.tensor([place * size + number for place in chosen for number in range(size)])
    owners = [place for place in range(count) for _ in range(size)]
    tokens, mask = rollouts.tokens[rows], rollouts.mask[rows]

    def logprobs(shown: Sequence[Example]) -> Tensor:
        return logprobs_in_parts(policy, shown, owners, tokens, mask, config, config.rollout.temperature)[0]

    right = [examples[place] for place in chosen]
    before = logprobs(right)

    def gain(change: ImageChange) -> Tensor:
        every = ChangedImages(examples, change)
        shown = [every[place] for place in chosen]
        changed = torch.tensor([new.images != old.images for new, old in zip(shown, right, strict=True)])
        counted = mask & changed.repeat_interleave(size).to(mask.device)[:, None]
        values = before.new_full(rollouts.mask.shape, math.nan)
        values[rows] = (before - logprobs(shown)).masked_fill(~counted, math.nan)
        return values

    return ImageGains(blank=gain("blank"), shuffle=gain("shuffle"), swap=gain("swap"))
