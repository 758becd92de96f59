"""The update: micro-batches and rows left out change nothing; a gradient that is not finite changes no weight."""

import copy
import dataclasses
from typing import Any

import pytest
import torch

from calibrl_core.algorithms import GRPO, CalibRL
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.base import Experts
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.policy import Policy
from calibrl_core.step.mini_batches import mini_batches, update_rows
from calibrl_core.step.optimizer import MOST_SKIPPED, GradientStep, NonFiniteError
from calibrl_core.step.token_logprobs import row_logprobs
from calibrl_core.step.update import Updater
from tests.support.updates import GROUP, config, gradients


def group_slice(batch: Any, first: Any, last: Any) -> Any:
    """The batch of some of the groups."""
    rows = slice(first * GROUP, last * GROUP)
    rollouts = dataclasses.replace(
        batch.rollouts,
        **{name: getattr(batch.rollouts, name)[rows] for name in ("tokens", "mask", "logprobs", "entropies", "texts")},
    )
    return dataclasses.replace(
        batch,
        rollouts=rollouts,
        rewards=batch.rewards[first:last],
        passed=batch.passed[first:last],
        advantages=batch.advantages[first:last],
        examples=batch.examples[first:last],
        experts=Experts(*(tensor[first:last] for tensor in vars(batch.experts).values() if tensor is not None)),
    )


def assert_same(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        if gradient is None or other[name] is None:
            assert gradient is None and other[name] is None, name
        else:
            torch.testing.assert_close(gradient, other[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "algorithm",
    [*(CalibRL(mini_batches=1, expert_gap=gap) for gap in ("token", "sequence_mean", "sequence_sum")), GRPO()],
    ids=["token", "sequence_mean", "sequence_sum", "grpo"],
)
def test_micro_batches_change_nothing(policy: Policy, examples: list[Example], batch: Any, algorithm: Any) -> None:
    whole, metrics = gradients(policy, batch, algorithm)
    parts, again = gradients(policy, batch, algorithm, micro_batch_rows=4)
    assert_same(whole, parts)
    assert metrics["loss/total"] == pytest.approx(again["loss/total"], abs=1e-6)
    assert metrics["loss/grad_norm"] > 0


def test_rows_without_advantage_are_left_out_and_nothing_changes(
    policy: Policy, examples: list[Example], batch: Any, rows_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm = CalibRL(mini_batches=1)
    left_out, metrics = gradients(policy, batch, algorithm)
    monkeypatch.setattr(CalibRL, "needs_all_rows", lambda self, step: True)
    kept, again = gradients(policy, batch, algorithm)
    assert rows_run == [12, 18]
    assert_same(left_out, kept)
    assert metrics["loss/total"] == pytest.approx(again["loss/total"], abs=1e-6)


def test_a_mini_batch_with_nothing_to_learn_has_a_gradient_of_zero(
    policy: Policy, examples: list[Example], batch: Any
) -> None:
    """Momentum and weight decay then continue, like in a plain loop."""
    found, metrics = gradients(policy, group_slice(batch, 4, 6), GRPO(mini_batches=1))
    assert metrics["loss/grad_norm"] == 0
    assert all(gradient is not None and not gradient.any() for gradient in found.values())


def test_unweighted_guidance_keeps_every_row(
    policy: Policy, examples: list[Example], batch: Any, rows_run: Any
) -> None:
    algorithm = CalibRL(mini_batches=1, rareness_weighting=False)
    with_guidance, _ = gradients(policy, batch, algorithm, step=0)
    assert rows_run == [18]
    late, metrics = gradients(policy, batch, algorithm.model_copy(update={"guidance_start_step": 1}))
    without, _ = gradients(policy, batch, GRPO(mini_batches=1))
    assert_same(late, without)
    assert metrics["loss/total"] == pytest.approx(metrics["loss/policy"])
    difference = with_guidance["lm_head.weight"] - without["lm_head.weight"]
    assert difference.abs().max() > 1e-4


def test_mini_batches_hold_whole_groups(batch: Any) -> None:
    """A group goes where its number says, counted over all processes."""

    def dealt(first_prompt: Any) -> Any:
        found = mini_batches(
            update_rows(batch),
            GRPO(mini_batches=4),
            first_prompt=first_prompt,
            max_tokens=10,
            micro_rows=None,
            ranks=Ranks(),
        )
        return [mini_batch.rows.tolist() for mini_batch in found]

    assert dealt(0) == [[0, 1, 2, 12, 13, 14], [3, 4, 5, 15, 16, 17], [6, 7, 8], [9, 10, 11]]
    assert dealt(3) == [[3, 4, 5, 15, 16, 17], [6, 7, 8], [9, 10, 11], [0, 1, 2, 12, 13, 14]]


def test_a_non_finite_gradient_changes_no_weight_and_finally_ends_the_run(
    policy: Policy, examples: list[Example], batch: Any
) -> None:
    twin = Policy(copy.deepcopy(policy.model), policy.processor, policy.device)
    before = twin.model.state_dict()["lm_head.weight"].clone()
    settings = config(GRPO(mini_batches=1))
    optimizer = torch.optim.AdamW(twin.model.parameters(), lr=1.0)
    updater = Updater(twin, GradientStep(twin, optimizer, settings.optimizer), settings)
    batch.advantages.mul_(torch.inf)  # 0 becomes NaN
    for _ in range(MOST_SKIPPED - 1):
        assert updater.update(batch, 0)[0]["loss/skipped_updates"] == 1
    assert torch.equal(twin.model.state_dict()["lm_head.weight"], before)
    with pytest.raises(NonFiniteError, match=r"lower optimizer\.lr"):
        updater.update(batch, 0)


def test_a_tokens_ratio_is_that_of_the_policy_that_its_mini_batch_met(policy: Policy, batch: Any) -> None:
    """1 in the first mini-batch; in the second, what the first one's update made of it; none where A is 0."""

    def updated(batch: Any) -> Any:
        twin = Policy(copy.deepcopy(policy.model), policy.processor, policy.device)
        settings = config(GRPO(mini_batches=2))
        gradient = GradientStep(twin, torch.optim.SGD(twin.model.parameters(), lr=0.5), settings.optimizer)
        return twin, Updater(twin, gradient, settings).update(batch, 0)

    rows, mask = update_rows(batch), batch.rollouts.mask
    metrics, ratios = updated(batch)[1]
    first, second, without = [0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11], [*range(12, 18)]
    torch.testing.assert_close(ratios[first][mask[first]], torch.ones(int(mask[first].sum())), rtol=0, atol=1e-4)
    assert ratios[without].isnan().all()
    only_first = batch.advantages.clone()
    only_first[[1, 3]] = 0
    met, _ = updated(dataclasses.replace(batch, advantages=only_first))
    with torch.no_grad():
        logprobs = row_logprobs(met, batch.examples, rows, torch.tensor(second), 1.0).logprobs
    expected = (logprobs - rows.old_logprobs[second, : logprobs.shape[1]]).exp()
    found = ratios[second, : logprobs.shape[1]]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert (found[mask[second, : logprobs.shape[1]]] - 1).abs().max() > 0.01
    assert metrics["ratio/max"] == pytest.approx(ratios[mask & ~ratios.isnan()].max().item())


@pytest.mark.parametrize(("slope", "cosine_is_one"), [(1.0, True), (0.0, False)])
def test_on_policy_guidance_is_the_policy_gradient_again(
    policy: Policy, batch: Any, slope: float, cosine_is_one: bool
) -> None:
    """With s of A's sign, beside an expert who is sure of every token: right rollouts are pushed in full, wrong ones by
    the slope. Looking at it changes no weight and leaves no gradient."""
    twin = Policy(copy.deepcopy(policy.model), policy.processor, policy.device)
    settings = config(CalibRL(mini_batches=1, negative_slope=slope))
    gradient = GradientStep(twin, torch.optim.SGD(twin.model.parameters(), lr=1.0), settings.optimizer)
    mask = torch.ones_like(batch.experts.mask)
    sure = dataclasses.replace(batch.experts, mask=mask, logprobs=torch.zeros(mask.shape))
    found = Updater(twin, gradient, settings).compare_gradients(dataclasses.replace(batch, experts=sure), 0)
    norm, of_guidance = found["loss/policy_grad_norm"], found["loss/guidance_grad_norm"]
    assert norm > 0
    assert (of_guidance == pytest.approx(norm, rel=1e-3)) == cosine_is_one
    assert (found["loss/guidance_cosine"] == pytest.approx(1, abs=1e-4)) == cosine_is_one
    assert all(one.grad is None for one in twin.model.parameters())
    for one, other in zip(twin.model.parameters(), policy.model.parameters(), strict=True):
        assert torch.equal(one, other)
