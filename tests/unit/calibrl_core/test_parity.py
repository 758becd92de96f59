"""The objectives against the numbers of the paper's published loss code (float64), to 1e-6 and better."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from calibrl_core.advantages import group_advantages
from calibrl_core.aggregation import token_weights
from calibrl_core.algorithms import GRPO, CalibRL
from calibrl_core.algorithms.base import LossBatch

FILE = np.load(Path(__file__).parents[2] / "data" / "reference_losses.npz")
CASES = [
    (index, case) for index, case in enumerate(json.loads(str(FILE["cases"]))) if case["method"] in ("grpo", "calibrl")
]
TOLERANCE = 1e-9


def array(index, name):
    return torch.from_numpy(FILE[f"{index:02d}/{name}"])


def settings(case):
    shared = {
        "clip_low": case["clip_low"],
        "clip_high": case["clip_high"],
        "dual_clip": case["dual_clip"],
        "normalise_by_std": case["normalise_by_std"],
        "aggregation": case["loss_aggregation"],
    }
    if case["method"] == "grpo":
        return GRPO(**shared)
    return CalibRL(
        **shared, negative_slope=case["negative_slope"], guidance_coef=case["guidance_coefficient"], expert_tail="zero"
    )


@pytest.mark.parametrize(("index", "case"), CASES, ids=lambda value: str(value) if isinstance(value, int) else "")
def test_published_numbers(index, case):
    algorithm = settings(case)
    is_expert = array(index, "is_expert")
    rows = ~is_expert
    mask = array(index, "response_mask")[rows]
    rewards = array(index, "rewards")
    groups = array(index, "group_index")
    size = int((groups[rows] == 0).sum())
    advantages = group_advantages(rewards[rows].view(-1, size), normalise_by_std=algorithm.normalise_by_std).flatten()
    torch.testing.assert_close(advantages[:, None] * mask, array(index, "advantages")[rows], rtol=0, atol=TOLERANCE)

    logprobs = array(index, "logprobs")[rows].requires_grad_()
    expert_rows = array(index, "expert_logprobs_rows")[rows] if case["method"] == "calibrl" else None
    losses = algorithm.token_losses(
        LossBatch(
            logprobs=logprobs,
            old_logprobs=array(index, "old_logprobs")[rows],
            advantages=advantages,
            completion_mask=mask,
            passed=rewards[rows] > case["pass_threshold"],
            expert_logprobs=expert_rows,
            expert_mask=None if expert_rows is None else torch.ones_like(mask),
        )
    )
    weights = token_weights(mask, algorithm.aggregation).double()
    policy = (losses.policy * weights).sum()
    total = policy
    assert policy.item() == pytest.approx(array(index, "pg_loss").item(), abs=1e-6)
    if losses.guidance is not None:
        guidance = (losses.guidance * weights).sum()
        total = policy + algorithm.guidance_coef * guidance
        assert guidance.item() == pytest.approx(array(index, "guided_loss").item(), abs=1e-6)
    assert total.item() == pytest.approx(array(index, "total_loss").item(), abs=1e-6)
    total.backward()
    torch.testing.assert_close(logprobs.grad, array(index, "grad_logprobs")[rows], rtol=0, atol=1e-6)


def test_the_file_has_cases():
    assert len(CASES) == 6
