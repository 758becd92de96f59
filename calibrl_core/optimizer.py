"""AdamW over fp32 master weights, and the learning rate as a plain function of the step."""

import math

import torch

from calibrl_core.config import OptimizerSettings
from calibrl_core.models.policy import Policy


def make_optimizer(policy: Policy, settings: OptimizerSettings) -> torch.optim.AdamW:
    return torch.optim.AdamW(policy.model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)


def learning_rate(settings: OptimizerSettings, step: int, steps: int) -> float:
    """The rate of `step` (from 0) out of `steps`. A function of the step: a resumed run restores nothing."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / (settings.warmup_steps + 1)
    progress = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    if settings.schedule == "linear":
        return settings.lr * (1 - progress)
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * progress))
    return settings.lr
