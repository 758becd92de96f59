"""CISPO and SAPO by numbers worked out by hand in float64, and their gradients by finite differences."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from calibrl_core.algorithms import CISPO, SAPO
from calibrl_core.algorithms.loss_batch import LossBatch
from tests.support.updates import gradient_of, loss_batch, numbers


@pytest.mark.parametrize("algorithm", [CISPO, SAPO])
@pytest.mark.parametrize("advantage", [0.5, -0.5])
def test_on_policy_the_gradient_is_the_policy_gradient(algorithm: type[Any], advantage: float) -> None:
    given = loss_batch(probabilities=[[0.3, 0.6]], advantages=[advantage])
    torch.testing.assert_close(gradient_of(algorithm(), given), numbers([[-advantage, -advantage]]))
    losses = algorithm().token_losses(given)
    assert not (losses.clipped_low | losses.clipped_high | losses.clipped_dual).any()


@pytest.mark.parametrize("algorithm", [CISPO, SAPO])
@pytest.mark.parametrize("distance", [800.0, -800.0])
def test_a_ratio_out_of_range_leaves_the_gradient_finite(algorithm: type[Any], distance: float) -> None:
    given = loss_batch(probabilities=[[0.5], [0.5]], advantages=[1.0, -1.0])
    far = LossBatch(**{**given.__dict__, "old_logprobs": given.old_logprobs - distance})
    assert gradient_of(algorithm(), far).isfinite().all()


def test_cispo_by_hand() -> None:
    # Ratios 2, 10, 0.1 with A = -1.5: weights 2, 5 (limited), 0.1. Loss 1.5 w log p, gradient 1.5 w: none is dropped.
    given = loss_batch(probabilities=[[0.4, 0.5, 0.01]], old=[[0.2, 0.05, 0.1]], advantages=[-1.5])
    losses = CISPO().token_losses(given)
    expected = [1.5 * 2 * math.log(0.4), 1.5 * 5 * math.log(0.5), 1.5 * 0.1 * math.log(0.01)]
    torch.testing.assert_close(losses.policy, numbers([expected]))
    torch.testing.assert_close(gradient_of(CISPO(), given), numbers([[3.0, 7.5, 0.15]]))
    assert losses.clipped_high.tolist() == [[False, True, False]]
    assert not losses.clipped_low.any()
    low = CISPO(clip_low=0.2)  # the weight 0.1 becomes 0.8
    torch.testing.assert_close(gradient_of(low, given), numbers([[3.0, 7.5, 1.2]]))
    assert low.token_losses(given).clipped_low.tolist() == [[False, False, True]]


def test_sapo_by_hand() -> None:
    # A = 2, tau 1, ratio 1 + ln 3: sigmoid(ln 3) = 3/4, loss -2 x 4 x 3/4; A = -2, tau 0.5, ratio 1: 2 x 8 x 1/2.
    rho = 1 + math.log(3)
    given = loss_batch(probabilities=[[0.2 * rho], [0.3]], old=[[0.2], [0.3]], advantages=[2.0, -2.0])
    sapo = SAPO(temperature_negative=0.5)
    torch.testing.assert_close(sapo.token_losses(given).policy, numbers([[-6.0], [8.0]]))
    # d loss / d log p = -A rho 4 p (1 - p): -2 rho x 4 x 3/16, and 2.
    torch.testing.assert_close(gradient_of(sapo, given), numbers([[-1.5 * rho], [2.0]]))


def test_sapo_gradients_by_finite_differences() -> None:
    old, advantages = numbers([[0.2, 0.6], [0.05, 0.9]]).log(), [0.7, -0.4]

    def losses(logprobs: Tensor) -> Tensor:
        given = loss_batch(probabilities=[[1.0, 1.0]] * 2, advantages=advantages)
        return SAPO().token_losses(LossBatch(**{**given.__dict__, "logprobs": logprobs, "old_logprobs": old})).policy

    assert torch.autograd.gradcheck(losses, (numbers([[0.3, 0.5], [0.1, 0.8]]).log().requires_grad_(),))


def test_sapo_fades_faster_where_the_advantage_is_negative() -> None:
    given = loss_batch(probabilities=[[0.9], [0.9]], old=[[0.1], [0.1]], advantages=[1.0, -1.0])
    up, down = gradient_of(SAPO(), given).abs().flatten().tolist()
    assert up > down > 0
