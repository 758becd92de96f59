"""CalibRL's guidance, by numbers worked out by hand."""

from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from calibrl_core.algorithms import GRPO, CalibRL
from calibrl_core.algorithms.loss_batch import LossBatch


def batch(
    *,
    logprobs: list[list[float]],
    expert: list[Any],
    advantages: list[float],
    passed: list[bool],
    mask: list[Any] | None = None,
    expert_mask: list[Any] | None = None,
    old_logprobs: list[Any] | None = None,
) -> LossBatch:
    current = torch.tensor(logprobs, dtype=torch.float64, requires_grad=True)
    full = torch.ones(current.shape, dtype=torch.bool)
    return LossBatch(
        logprobs=current,
        old_logprobs=current.detach() if old_logprobs is None else torch.tensor(old_logprobs, dtype=torch.float64),
        advantages=torch.tensor(advantages, dtype=torch.float64),
        completion_mask=full if mask is None else torch.tensor(mask),
        passed=torch.tensor(passed),
        is_expert=torch.zeros(len(passed), dtype=torch.bool),
        expert_logprobs=torch.tensor(expert, dtype=torch.float64),
        expert_mask=full if expert_mask is None else torch.tensor(expert_mask),
    )


def guidance_of(algorithm: CalibRL, given: LossBatch) -> Tensor:
    guidance = algorithm.token_losses(given).guidance
    assert guidance is not None
    return guidance


@pytest.mark.parametrize(
    ("passed", "gap", "expected", "gradient"),
    [
        (True, -2.0, 0.75 * 2.0, -0.75),  # under-confident in a right answer: full push up
        (True, 2.0, -0.75 * 0.5 * 2.0, -0.75 * 0.5),  # confident in a right answer: damped, still up
        (False, 2.0, 0.75 * 2.0, 0.75),  # over-confident in a wrong answer: full push down
        (False, -2.0, -0.75 * 0.5 * 2.0, 0.75 * 0.5),  # humble in a wrong answer: damped, still down
    ],
)
def test_quadrants(passed: bool, gap: float, expected: float, gradient: float) -> None:
    given = batch(logprobs=[[-3.0]], expert=[[-3.0 - gap]], advantages=[0.75 if passed else -0.75], passed=[passed])
    guidance = guidance_of(CalibRL(), given)
    assert guidance.item() == pytest.approx(expected)
    guidance.sum().backward()
    assert given.logprobs.grad is not None
    assert given.logprobs.grad.item() == pytest.approx(gradient)


def test_rareness_is_the_size_of_the_advantage_not_its_sign() -> None:
    given = batch(logprobs=[[-1.0], [-1.0]], expert=[[-2.0], [-2.0]], advantages=[-0.25, 0.25], passed=[False, False])
    assert guidance_of(CalibRL(), given).flatten().tolist() == pytest.approx([0.25, 0.25])
    unweighted = guidance_of(CalibRL(rareness_weighting=False), given)
    assert unweighted.flatten().tolist() == pytest.approx([1.0, 1.0])


def test_past_the_experts_end() -> None:
    given = batch(
        logprobs=[[-1.0, -1.0]], expert=[[-2.0, -9.0]], advantages=[1.0], passed=[False], expert_mask=[[True, False]]
    )
    assert guidance_of(CalibRL(), given)[0].tolist() == pytest.approx([1.0, 0.0])
    # As published: the missing token counts as log-probability 0, so gap = -1 and the humble side is damped.
    tails: tuple[Literal["zero", "zero_for_all"], ...] = ("zero", "zero_for_all")
    for tail in tails:
        assert guidance_of(CalibRL(expert_tail=tail), given)[0].tolist() == pytest.approx([1.0, -0.5])


def test_without_an_expert_the_published_code_compares_with_0() -> None:
    # A failed, gaps -1 and -2: damped, -0.5 and -1; the third token is masked.
    given = batch(
        logprobs=[[-1.0, -2.0, -3.0]],
        expert=[[-7.0]],
        advantages=[1.0],
        passed=[False],
        mask=[[True, True, False]],
        expert_mask=[[False]],
    )
    assert guidance_of(CalibRL(expert_tail="zero_for_all"), given)[0].tolist() == [-0.5, -1.0, 0.0]
    assert guidance_of(CalibRL(expert_tail="zero"), given)[0].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("gap", ["token", "sequence_mean", "sequence_sum"])
@pytest.mark.parametrize("tail", ["none", "zero"])
def test_no_expert_no_guidance(gap: str, tail: str) -> None:
    given = batch(
        logprobs=[[-1.0, -2.0]], expert=[[-7.0, -7.0]], advantages=[1.0], passed=[False], expert_mask=[[False, False]]
    )
    algorithm = CalibRL(expert_gap=gap, expert_tail=tail)
    assert guidance_of(algorithm, given).tolist() == [[0.0, 0.0]]
    torch.testing.assert_close(algorithm.token_losses(given).policy, GRPO().token_losses(given).policy)


def test_sequence_gaps_are_the_same_for_every_token() -> None:
    given = batch(
        logprobs=[[-1.0, -2.0, -5.0]],
        expert=[[-4.0, -4.0, -9.0]],
        advantages=[1.0],
        passed=[False],
        mask=[[True, True, False]],
        expert_mask=[[True, True, False]],
    )
    # rollout: sum -3, mean -1.5; expert: sum -8, mean -4; the masked third token counts nowhere
    assert guidance_of(CalibRL(expert_gap="sequence_sum"), given)[0].tolist() == pytest.approx([5, 5, 0])
    assert guidance_of(CalibRL(expert_gap="sequence_mean"), given)[0].tolist() == pytest.approx([2.5, 2.5, 0])


def test_clips() -> None:
    ratios = torch.tensor([[1.5, 0.5, 1.1]], dtype=torch.float64)
    old = [[-2.0, -2.0, -2.0]]
    up = batch(
        logprobs=(torch.tensor(old) + ratios.log()).tolist(),
        expert=old,
        advantages=[2.0],
        passed=[True],
        old_logprobs=old,
    )
    losses = GRPO().token_losses(up)
    assert losses.policy[0].tolist() == pytest.approx([-2.4, -1.0, -2.2])  # the rise is cut at 1.2
    assert losses.clipped_high.tolist() == [[True, False, False]]
    assert not losses.clipped_low.any()
    down = batch(
        logprobs=(torch.tensor(old) + torch.tensor([[4.0, 0.5, 1.5]]).log()).tolist(),
        expert=old,
        advantages=[-2.0],
        passed=[False],
        old_logprobs=old,
    )
    losses = GRPO().token_losses(down)
    assert losses.policy[0].tolist() == pytest.approx([6.0, 1.6, 3.0])  # 8 is cut at 3 x 2; the fall at 0.8
    assert losses.clipped_dual.tolist() == [[True, False, False]]
    assert losses.clipped_low.tolist() == [[False, True, False]]


def test_guidance_begins_at_its_step() -> None:
    late = CalibRL(guidance_coef=0.3, guidance_start_step=2)
    assert [late.guidance_weight(step) for step in (0, 1, 2, 3)] == [0.0, 0.0, 0.3, 0.3]


def test_rows_without_advantage_are_needed_only_where_something_moves_them() -> None:
    assert not CalibRL().needs_all_rows(0)
    assert CalibRL(kl_coef=0.1).needs_all_rows(0)
    assert CalibRL(entropy_coef=0.1).needs_all_rows(0)
    unweighted = CalibRL(rareness_weighting=False, guidance_start_step=1)
    assert [unweighted.needs_all_rows(step) for step in (0, 1)] == [False, True]
    assert not CalibRL(rareness_weighting=False, guidance_coef=0.0).needs_all_rows(0)


@pytest.mark.parametrize("field", ["mix_ratio", "pass_ratio_low", "pass_ratio_high"])
def test_expert_rows_are_refused_with_the_reason(field: str) -> None:
    with pytest.raises(ValidationError, match="never trains on the expert's own tokens") as caught:
        CalibRL.model_validate({field: 0.5})
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


def test_shuffled_gaps_keep_the_slopes_but_not_their_tokens() -> None:
    gaps = [(-2.0 if token % 4 == 0 else 2.0) for token in range(32)]  # a quarter is opposed in a rollout that passed
    given = batch(
        logprobs=[[-3.0] * 32] * 2,
        expert=[[-3.0 - gap for gap in gaps], [-3.0 + gap for gap in gaps]],
        advantages=[1.0, -1.0],
        passed=[True, False],
    )
    guidance_of(CalibRL(expert_gap="shuffled", negative_slope=0.25), given).sum().backward()
    assert given.logprobs.grad is not None
    passed, failed = given.logprobs.grad
    assert passed.unique().tolist() == [-1.0, -0.25]  # up in every token
    assert failed.unique().tolist() == [0.25, 1.0]  # down in every token
    assert [(passed == -1).sum(), (failed == 1).sum()] == [8, 8]
    assert (passed == -1).nonzero().flatten().tolist() != [token for token in range(32) if token % 4 == 0]
    repeated = guidance_of(CalibRL(expert_gap="shuffled", negative_slope=0.25), given)
    assert torch.equal(repeated, guidance_of(CalibRL(expert_gap="shuffled", negative_slope=0.25), given))
