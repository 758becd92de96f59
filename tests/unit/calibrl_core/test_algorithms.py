"""Each algorithm by numbers worked out by hand, and their gradients by finite differences."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from calibrl_core.algorithms import DAPO, GRPO, GSPO, LUFFY, CalibRL, DrGRPO, RLPlus
from calibrl_core.algorithms.dapo import overlong_penalty
from calibrl_core.algorithms.kl import kl_k1, kl_k3
from calibrl_core.algorithms.loss_batch import LossBatch
from calibrl_core.algorithms.registry import Algorithm
from calibrl_core.step.advantages import expert_advantages, group_advantages
from calibrl_core.step.token_weights import token_weights
from tests.support.updates import gradient_of, loss_batch, numbers

EVERY = (CalibRL, GRPO, DrGRPO, DAPO, GSPO, LUFFY, RLPlus)


def loss_of(algorithm: Any, given: LossBatch, max_tokens: int = 8) -> Tensor:
    weights = token_weights(given.completion_mask, algorithm.aggregation, max_tokens=max_tokens, dtype=torch.float64)
    losses: Tensor = algorithm.token_losses(given).policy
    return (losses * weights).sum()


# Every algorithm


@pytest.mark.parametrize("algorithm", EVERY)
def test_a_type_names_each(algorithm: type[Any]) -> None:
    name = algorithm().type
    assert TypeAdapter(Algorithm).validate_python({"type": name}) == algorithm()


@pytest.mark.parametrize("algorithm", EVERY)
def test_without_advantage_loss_and_gradient_are_zero(algorithm: type[Any]) -> None:
    given = loss_batch(
        probabilities=[[0.3, 0.6]], old=[[0.2, 0.9]], advantages=[0.0], experts=[algorithm in (LUFFY, RLPlus)]
    )
    assert algorithm().token_losses(given).policy.abs().max() == 0
    assert gradient_of(algorithm(), given).abs().max() == 0


@pytest.mark.parametrize("algorithm", EVERY)
@pytest.mark.parametrize("advantage", [0.5, -0.5])
def test_the_first_update_of_a_rollout_is_the_policy_gradient(algorithm: type[Any], advantage: float) -> None:
    """On-policy every ratio is 1 and no clip acts: the loss is -A a token, and so is its gradient."""
    given = loss_batch(probabilities=[[0.3, 0.6]], advantages=[advantage])
    losses = algorithm().token_losses(given)
    torch.testing.assert_close(losses.policy, numbers([[-advantage, -advantage]]))
    torch.testing.assert_close(gradient_of(algorithm(), given), numbers([[-advantage, -advantage]]))
    for clipped in (losses.clipped_low, losses.clipped_high, losses.clipped_dual):
        assert not clipped.any()


@pytest.mark.parametrize("algorithm", [LUFFY, RLPlus])
def test_rollouts_beside_experts_have_the_loss_of_grpo(algorithm: type[Any]) -> None:
    rows: dict[str, Any] = {"probabilities": [[0.5, 0.1]], "old": [[0.2, 0.9]], "advantages": [-2.0]}
    torch.testing.assert_close(
        algorithm().token_losses(loss_batch(**rows)).policy, GRPO().token_losses(loss_batch(**rows)).policy
    )


# Dr. GRPO


def test_dr_grpo_divides_by_a_constant() -> None:
    # Lengths 2 and 1 of at most 8 tokens, A = 1 and -2: (-1 -1 + 2) / (2 x 8) = 0, and with A = 1, -1: -1 / 16.
    mask = [[True, True], [True, False]]
    even = loss_batch(probabilities=[[0.5, 0.5], [0.5, 1.0]], advantages=[1.0, -2.0], mask=mask)
    assert loss_of(DrGRPO(), even).item() == pytest.approx(0)
    odd = loss_batch(probabilities=[[0.5, 0.5], [0.5, 1.0]], advantages=[1.0, -1.0], mask=mask)
    assert loss_of(DrGRPO(), odd).item() == pytest.approx(-1 / 16)
    assert loss_of(GRPO(), odd).item() == pytest.approx(-1 / 3)


def test_dr_grpo_never_divides_by_std() -> None:
    with pytest.raises(ValidationError, match="normalise_by_std"):
        DrGRPO.model_validate({"normalise_by_std": True})


# DAPO


def test_dapo_lets_unlikely_tokens_rise_further() -> None:
    # Ratios 1.25, 1.5, 0.7 with A = 1: 1.25 is within 1.28, 1.5 is cut there; a fall is not cut where A > 0.
    given = loss_batch(probabilities=[[0.25, 0.3, 0.14]], old=[[0.2, 0.2, 0.2]], advantages=[1.0])
    losses = DAPO().token_losses(given)
    torch.testing.assert_close(losses.policy, numbers([[-1.25, -1.28, -0.7]]))
    assert losses.clipped_high.tolist() == [[False, True, False]]
    # With A = -1 a fall is cut at 0.8, not at 0.72: the range is not symmetric.
    given = loss_batch(probabilities=[[0.14]], old=[[0.2]], advantages=[-1.0])
    torch.testing.assert_close(DAPO().token_losses(given).policy, numbers([[0.8]]))


def test_overlong_penalty() -> None:
    # At most 20 tokens, the last 4 of them penalised: nothing up to 16, then a quarter a token.
    lengths = torch.tensor([0, 16, 17, 18, 20, 25])
    assert overlong_penalty(lengths, max_tokens=20, buffer=4).tolist() == [0, 0, -0.25, -0.5, -1, -1]


# GSPO


def test_gspo_clips_a_sequence_whole() -> None:
    # Ratios 2 and 8 of the counted tokens; the padding's ratio of 100 does not count: s = sqrt(2 x 8) = 4.
    ratios: dict[str, Any] = {
        "probabilities": [[0.2, 0.8, 1.0]],
        "old": [[0.1, 0.1, 0.01]],
        "mask": [[True, True, False]],
    }
    wide = GSPO(clip_high=5.0)
    given = loss_batch(**ratios, advantages=[0.5])
    losses = wide.token_losses(given)
    torch.testing.assert_close(losses.policy[:, :2], numbers([[-2.0, -2.0]]))
    # With the default clip every counted token of the sequence is clipped at 1 + 4e-4, and has no gradient.
    losses = GSPO().token_losses(given)
    torch.testing.assert_close(losses.policy[:, :2], numbers([[-0.5002, -0.5002]]))
    assert losses.clipped_high[:, :2].all()
    assert gradient_of(GSPO(), given)[:, :2].abs().max() == 0
    # A falling sequence with A < 0: s = 1/4, clipped at 1 - 3e-4.
    falling = loss_batch(probabilities=[[0.1, 0.1]], old=[[0.2, 0.8]], advantages=[-0.5])
    losses = GSPO().token_losses(falling)
    torch.testing.assert_close(losses.policy, numbers([[0.49985, 0.49985]]))
    assert losses.clipped_low.all()
    # A token far up and one far down may leave the sequence where it was: nothing is clipped.
    level = loss_batch(probabilities=[[0.8, 0.1]], old=[[0.1, 0.8]], advantages=[-0.5])
    losses = GSPO().token_losses(level)
    torch.testing.assert_close(losses.policy, numbers([[0.5, 0.5]]))
    assert not (losses.clipped_low | losses.clipped_high | losses.clipped_dual).any()


def test_gspo_token_form_has_the_gradient_of_the_sequence_form() -> None:
    # equation 5: loss = mean over sequences of -A s, whose gradient in each token of a length T is -A s / T.
    old = numbers([[0.3, 0.5, 0.2], [0.4, 0.1, 0.6]]).log()
    mask = torch.tensor([[True, True, True], [True, True, False]])
    advantages = numbers([1.5, -0.5])
    free = GSPO(clip_low=0.9, clip_high=9.0)

    def loss(logprobs: Tensor) -> Tensor:
        given = loss_batch(probabilities=logprobs.exp().tolist(), advantages=advantages.tolist(), mask=mask.tolist())
        return loss_of(free, LossBatch(**{**given.__dict__, "logprobs": logprobs, "old_logprobs": old}))

    logprobs = (old + numbers([[0.3, -0.2, 0.1], [-0.4, 0.2, 0.7]])).requires_grad_()
    assert torch.autograd.gradcheck(loss, (logprobs,))
    s = numbers([math.exp((0.3 - 0.2 + 0.1) / 3), math.exp((-0.4 + 0.2) / 2)])
    assert loss(logprobs).item() == pytest.approx((-advantages * s).mean().item())
    (gradient,) = torch.autograd.grad(loss(logprobs), logprobs)
    torch.testing.assert_close(gradient[:, 0], -advantages * s / numbers([3, 2]) / 2)


# LUFFY and RL-PLUS


def test_luffy_by_hand() -> None:
    # p = 0.4: 0.4 / 0.5 = 0.8, times -A = -2; p = 0.1: 0.5. No ratio: the old policy changes nothing.
    given = loss_batch(probabilities=[[0.4, 0.1]], old=[[0.01, 0.99]], advantages=[2.0], experts=[True])
    torch.testing.assert_close(LUFFY().token_losses(given).policy, numbers([[-1.6, -1.0]]))
    # d/dlogp of -A p / (p + 0.1) = -A 0.1 p / (p + 0.1)^2: 2 x 0.04 / 0.25 and 2 x 0.01 / 0.04
    torch.testing.assert_close(gradient_of(LUFFY(), given), numbers([[-0.32, -0.5]]))


def test_rl_plus_by_hand() -> None:
    # p = 0.36, p_old = 0.2: sqrt(0.64) x 0.72 / (0.2 + 0.6) = 0.72, times -A = -2. The root carries no gradient, and
    # dp/dlogp = p, so the gradient is the loss itself.
    given = loss_batch(probabilities=[[0.36]], old=[[0.2]], advantages=[2.0], experts=[True])
    torch.testing.assert_close(RLPlus().token_losses(given).policy, numbers([[-1.44]]))
    torch.testing.assert_close(gradient_of(RLPlus(), given), numbers([[-1.44]]))


@pytest.mark.parametrize("algorithm", [LUFFY, RLPlus])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_expert_rows_are_never_clipped(algorithm: type[Any], advantage: float) -> None:
    far = loss_batch(probabilities=[[0.9, 0.001]], old=[[0.001, 0.9]], advantages=[advantage], experts=[True])
    assert (gradient_of(algorithm(), far) * advantage < 0).all()


@pytest.mark.parametrize("algorithm", [LUFFY, RLPlus])
def test_each_row_has_its_own_loss(algorithm: type[Any]) -> None:
    """An expert shorter than the rollout beside it; the padding of neither matters."""
    together = loss_batch(
        probabilities=[[0.5, 0.4, 0.3], [0.36, 0.7, 0.5]],
        old=[[0.2, 0.4, 0.3], [0.2, 0.6, 0.5]],
        advantages=[-0.5, 2.0],
        mask=[[True, True, True], [True, False, False]],
        experts=[False, True],
    )
    alone = loss_batch(probabilities=[[0.36]], old=[[0.2]], advantages=[2.0], experts=[True])
    rollout = loss_batch(probabilities=[[0.5, 0.4, 0.3]], old=[[0.2, 0.4, 0.3]], advantages=[-0.5])
    expected = (GRPO().token_losses(rollout).policy.sum() + algorithm().token_losses(alone).policy.sum()) / 4
    torch.testing.assert_close(loss_of(algorithm(), together), expected)


@pytest.mark.parametrize("algorithm", [LUFFY, RLPlus])
def test_a_token_of_probability_1_is_finite(algorithm: type[Any]) -> None:
    """Rounding may put a log-probability above 0; a batch of expert rows only, half of it padding, is no NaN."""
    given = loss_batch(
        probabilities=[[1.0 + 1e-6, 1.0], [1.0, 1.0]],
        advantages=[1.0, 1.0],
        mask=[[True, True], [False, False]],
        experts=[True, True],
    )
    assert loss_of(algorithm(), given).isfinite()
    assert gradient_of(algorithm(), given).isfinite().all()


def test_gradients_of_expert_rows_by_finite_differences() -> None:
    old, advantages = numbers([[0.2, 0.6], [0.05, 0.9]]).log(), numbers([0.7, -0.4])
    at = numbers([[0.3, 0.5], [0.1, 0.8]]).log()

    def losses(algorithm: LUFFY | RLPlus, logprobs: Tensor) -> Tensor:
        given = loss_batch(probabilities=[[1.0, 1.0]] * 2, advantages=advantages.tolist(), experts=[True, True])
        return algorithm.token_losses(LossBatch(**{**given.__dict__, "logprobs": logprobs, "old_logprobs": old})).policy

    assert torch.autograd.gradcheck(lambda logprobs: losses(LUFFY(), logprobs), (at.clone().requires_grad_(),))
    # RL-PLUS holds (1 - p)^0.5 still, so its change is taken out of the difference.
    step = 1e-6
    logprobs = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(losses(RLPlus(), logprobs).sum(), logprobs)
    up, down = (losses(RLPlus(), at + d) / (1 - (at + d).exp()).sqrt() for d in (step, -step))
    torch.testing.assert_close(gradient, (up - down) / (2 * step) * (1 - at.exp()).sqrt(), rtol=1e-6, atol=1e-9)


def test_the_range_of_pass_ratios_is_a_range() -> None:
    LUFFY(pass_ratio_low=0.5, pass_ratio_high=0.5)
    with pytest.raises(ValidationError, match=r"pass_ratio_low \(0.6\) must not exceed pass_ratio_high \(0.5\)"):
        RLPlus(pass_ratio_low=0.6, pass_ratio_high=0.5)
    with pytest.raises(ValidationError, match="mix_ratio"):
        LUFFY(mix_ratio=1.5)


def test_an_experts_advantage_uses_the_rollouts_only() -> None:
    # Rollouts 0, 0, 1, 1: mean 0.5, unbiased std sqrt(1/3). An expert with 1.1 has 0.6; theirs stay -0.5, 0.5.
    rewards = numbers([[0, 0, 1, 1]])
    assert group_advantages(rewards, normalise_by_std=False).tolist() == [[-0.5, -0.5, 0.5, 0.5]]
    assert expert_advantages(numbers([1.1]), rewards, normalise_by_std=False).item() == pytest.approx(0.6)
    normalised = expert_advantages(numbers([1.1]), rewards, normalise_by_std=True).item()
    assert normalised == pytest.approx(0.6 / (math.sqrt(1 / 3) + 1e-6))


# Limits of log-ratios


@pytest.mark.parametrize("algorithm", EVERY)
@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("distance", [800.0, -800.0])
def test_a_log_ratio_out_of_range_leaves_the_gradient_finite(
    algorithm: type[Any], advantage: float, distance: float
) -> None:
    """In float64 exp overflows at 710 nats. The second row is an expert's where the algorithm learns from them."""
    experts = [False, algorithm in (LUFFY, RLPlus)]
    given = loss_batch(probabilities=[[0.5, 0.5]] * 2, advantages=[advantage] * 2, experts=experts)
    old = given.old_logprobs + numbers([[-distance, 0.0]] * 2)
    far = LossBatch(**{**given.__dict__, "old_logprobs": old})
    assert algorithm().token_losses(far).policy.isfinite().all()
    assert gradient_of(algorithm(), far).isfinite().all()


def test_limits_by_hand() -> None:
    # A = -1, ratio e^30: limited to e^20, and the dual clip cuts at 3. Without a clip above: A = 1, clip_high = 1e9.
    far = loss_batch(probabilities=[[1.0]], old=[[math.exp(-30)]], advantages=[-1.0])
    assert GRPO().token_losses(far).policy.item() == pytest.approx(3.0)
    free = GRPO(clip_high=1e9).token_losses(loss_batch(probabilities=[[1.0]], old=[[math.exp(-30)]], advantages=[1.0]))
    assert free.policy.item() == pytest.approx(-math.exp(20))
    near = GRPO(clip_high=1e9).token_losses(loss_batch(probabilities=[[1.0]], old=[[math.exp(-19)]], advantages=[1.0]))
    assert near.policy.item() == pytest.approx(-math.exp(19))


@pytest.mark.parametrize(("distance", "value", "slope"), [(2.0, math.exp(2) - 3, 1 - math.exp(2)), (40.0, 10.0, 0.0)])
def test_k3_is_at_most_10_nats(distance: float, value: float, slope: float) -> None:
    logprobs = numbers([[-1.0]]).requires_grad_()
    loss = kl_k3(logprobs, logprobs.detach() + distance, logprobs.detach())
    assert loss.item() == pytest.approx(value)
    assert torch.autograd.grad(loss.sum(), logprobs)[0].item() == pytest.approx(slope)


def test_k1_limits_its_ratio() -> None:
    # rho = e^20 in place of e^50, times logprob - reference = 2.
    logprobs = numbers([[-1.0]]).requires_grad_()
    loss = kl_k1(logprobs, numbers([[-3.0]]), numbers([[-51.0]]))
    assert loss.item() == pytest.approx(2 * math.exp(20))
    assert torch.autograd.grad(loss.sum(), logprobs)[0].item() == pytest.approx(math.exp(20))


def test_expert_rows_have_no_clipped_ratio() -> None:
    given = loss_batch(probabilities=[[0.9], [0.9]], old=[[0.1], [0.1]], advantages=[1.0, 1.0], experts=[False, True])
    assert LUFFY().token_losses(given).clipped_high.tolist() == [[True], [False]]


# The KL divergence


def test_kl_by_hand() -> None:
    # p = 0.4, reference 0.2, old 0.2: rho = 2, k1 = 2 ln 2; k3 = 0.5 + ln 2 - 1. At the reference both are 0.
    logprobs, reference = numbers([[0.4]]).log(), numbers([[0.2]]).log()
    assert kl_k1(logprobs, reference, reference).item() == pytest.approx(2 * math.log(2))
    assert kl_k3(logprobs, reference, reference).item() == pytest.approx(math.log(2) - 0.5)
    for estimator in (kl_k1, kl_k3):
        assert estimator(reference, reference, reference).item() == 0


@pytest.mark.parametrize("estimator", [kl_k1, kl_k3])
def test_kl_gradients(estimator: Callable[..., Any]) -> None:
    reference, old = numbers([[0.2, 0.7]]).log(), numbers([[0.3, 0.6]]).log()
    logprobs = numbers([[0.4, 0.5]]).log().requires_grad_()
    assert torch.autograd.gradcheck(lambda current: estimator(current, reference, old), (logprobs,))


def test_kl_in_expectation() -> None:
    """Over a distribution of three tokens, every token weighed by how often it is sampled. k1 has the KL divergence's
    value and gradient; k3 its value, and the gradient of the other direction; a plain difference has none at all."""
    scores = numbers([0.2, -0.5, 0.9]).requires_grad_()
    reference = numbers([0.5, 0.3, 0.2]).log()
    logprobs = scores.log_softmax(-1)
    sampled = logprobs.detach()

    def in_expectation(loss: Tensor) -> tuple[float, Tensor]:
        expected = (sampled.exp() * loss).sum()
        return expected.item(), torch.autograd.grad(expected, scores, retain_graph=True)[0]

    def exact(loss: Tensor) -> tuple[float, Tensor]:
        return loss.item(), torch.autograd.grad(loss, scores, retain_graph=True)[0]

    value, gradient = exact((logprobs.exp() * (logprobs - reference)).sum())
    _, other_way = exact((reference.exp() * (reference - logprobs)).sum())
    k1_value, k1_gradient = in_expectation(kl_k1(logprobs, reference, sampled))
    k3_value, k3_gradient = in_expectation(kl_k3(logprobs, reference, sampled))
    assert k1_value == pytest.approx(value)
    assert k3_value == pytest.approx(value)
    torch.testing.assert_close(k1_gradient, gradient)
    torch.testing.assert_close(k3_gradient, other_way)
    _, plain = in_expectation(logprobs - reference)
    assert plain.abs().max() < 1e-12
    assert gradient.abs().max() > 0.05
