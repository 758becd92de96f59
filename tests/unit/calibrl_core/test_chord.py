"""CHORD by numbers worked out by hand in float64."""

import math

import pytest
import torch
from pydantic import ValidationError

from calibrl_core.algorithms import CHORD, GRPO
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.step.mini_batches import UpdateRows, mini_batches
from tests.support.updates import config, loss_batch, numbers


def test_an_experts_token_by_hand() -> None:
    # p = 0.5: phi = 0.25, loss -0.25 ln 0.5; p = 0.1: phi = 0.09, loss -0.09 ln 0.1. phi has no gradient.
    given = loss_batch(
        probabilities=[[0.5, 0.1], [0.5, 0.1]], old=[[0.2, 0.9]] * 2, advantages=[-2.0, 3.0], experts=[False, True]
    )
    losses = CHORD().token_losses(given)
    assert losses.guidance is not None
    torch.testing.assert_close(losses.guidance, numbers([[0, 0], [-0.25 * math.log(0.5), -0.09 * math.log(0.1)]]))
    (gradient,) = torch.autograd.grad(losses.guidance.sum(), given.logprobs)
    torch.testing.assert_close(gradient, numbers([[0, 0], [-0.25, -0.09]]))
    plain = CHORD(token_weighting=False).token_losses(given).guidance
    assert plain is not None
    torch.testing.assert_close(plain[1], numbers([-math.log(0.5), -math.log(0.1)]))
    rollout = loss_batch(probabilities=[[0.5, 0.1]], old=[[0.2, 0.9]], advantages=[-2.0])
    torch.testing.assert_close(losses.policy[0], GRPO().token_losses(rollout).policy[0])
    assert losses.policy[1].tolist() == [0, 0]


def test_the_weight_follows_a_cosine() -> None:
    chord = CHORD(mu=0.9, mu_end=0.1, mu_decay_steps=4)
    found = [chord.guidance_weight(step) for step in range(6)]
    assert found == pytest.approx([0.9, 0.5 + 0.4 * math.sqrt(0.5), 0.5, 0.5 - 0.4 * math.sqrt(0.5), 0.1, 0.1])
    assert [chord.policy_weight(step) for step in (0, 2, 9)] == pytest.approx([0.1, 0.5, 0.9])
    assert CHORD().guidance_weight(0) == 0.1


def test_rollouts_and_experts_have_their_own_denominators() -> None:
    """Rollouts of 2 and 1 tokens, an expert of 3: 1/3 and 1/3 per token, not 1/6."""
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    zeros = torch.zeros((3, 3), dtype=torch.float64)
    rows = UpdateRows(
        tokens=zeros.long(),
        mask=mask,
        sampler_logprobs=zeros,
        old_logprobs=zeros,
        advantages=zeros[0],
        passed=torch.zeros(3).bool(),
        is_expert=torch.tensor([False, False, True]),
        prompts=torch.zeros(3).long(),
    )

    def weights(algorithm: CHORD) -> list[list[float]]:
        (found,) = mini_batches(rows, algorithm, first_prompt=0, max_tokens=8, micro_rows=None, ranks=Ranks())
        return [row.tolist() for row in found.weights]

    third = pytest.approx(1 / 3)
    assert weights(CHORD(mini_batches=1)) == [[third, third, 0], [third, 0, 0], [third, third, third]]
    half = CHORD(mini_batches=1, aggregation="seq-mean-token-mean")
    assert weights(half) == [[0.25, 0.25, 0], [0.5, 0, 0], [third, third, third]]


def test_rows_without_advantage_are_needed_while_experts_count() -> None:
    assert CHORD().needs_all_rows(0)
    assert not CHORD(mu=0.0, mu_end=0.0).needs_all_rows(0)


def test_micro_batch_means_are_refused() -> None:
    with pytest.raises(ValidationError, match="micro_batch_mean averages rollouts and experts together"):
        config(CHORD(micro_batch_mean=True), micro_batch_rows=2)


def test_other_advantages_than_the_groups_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"algorithm.advantages \(batch\) must be group"):
        config(CHORD(advantages="batch"))
