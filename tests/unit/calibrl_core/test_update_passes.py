"""Several passes over a step's rollouts, and completions that are left out of the loss."""

import copy
import dataclasses
from typing import Any

import pytest
import torch

from calibrl_core.algorithms import GRPO, CalibRL
from calibrl_core.models.policy import Policy
from calibrl_core.step.mini_batches import update_rows
from calibrl_core.step.optimizer import GradientStep
from calibrl_core.step.token_logprobs import row_logprobs
from calibrl_core.step.update import Updater
from tests.support.updates import GROUP, config, gradients

ROWS = range(12)  # of the four groups with an advantage


def updated(policy: Policy, batch: Any, algorithm: Any) -> Any:
    twin = Policy(copy.deepcopy(policy.model), policy.processor, policy.device)
    settings = config(algorithm)
    gradient = GradientStep(twin, torch.optim.SGD(twin.model.parameters(), lr=0.5), settings.optimizer)
    return twin, *Updater(twin, gradient, settings).update(batch, 0)


def test_ratios_of_later_passes_compare_with_the_policy_before_the_first(policy: Policy, batch: Any) -> None:
    """The ratios of a second pass are those of the policy that one pass leaves."""
    after_one, _, _ = updated(policy, batch, GRPO(mini_batches=1))
    rows = update_rows(batch)
    with torch.no_grad():
        logprobs = row_logprobs(after_one, batch.examples, rows, torch.tensor(ROWS), 1.0).logprobs
    _, metrics, ratios = updated(policy, batch, GRPO(mini_batches=1, epochs_per_step=2))
    width = logprobs.shape[1]
    mask = batch.rollouts.mask[: len(ROWS), :width]
    expected = (logprobs - rows.old_logprobs[: len(ROWS), :width]).exp()
    torch.testing.assert_close(ratios[: len(ROWS), :width][mask], expected[mask], rtol=1e-4, atol=1e-4)
    assert (expected[mask] - 1).abs().max() > 0.01
    assert metrics["loss/skipped_updates"] == 0


def test_each_pass_updates_every_mini_batch(policy: Policy, batch: Any, rows_run: Any) -> None:
    updated(policy, batch, GRPO(mini_batches=2, epochs_per_step=3))
    assert rows_run == [6, 6] * 3


def truncated(batch: Any, rows: list[int]) -> Any:
    cut = torch.zeros(len(batch.rollouts.truncated), dtype=torch.bool)
    cut[rows] = True
    return dataclasses.replace(batch, rollouts=dataclasses.replace(batch.rollouts, truncated=cut))


def test_truncated_completions_give_no_loss_and_no_denominator(policy: Policy, batch: Any, rows_run: Any) -> None:
    """The loss is the same as if these rows had A = 0 and the mean were over the tokens of the others."""
    some = truncated(batch, [0, 4, 17])
    masked, metrics = gradients(policy, some, GRPO(mini_batches=1, mask_truncated=True))
    assert rows_run == [10]
    flat = batch.advantages.flatten().clone()
    flat[[0, 4, 17]] = 0
    zeroed = dataclasses.replace(some, advantages=flat.view(batch.advantages.shape))
    counted, _ = gradients(policy, zeroed, GRPO(mini_batches=1))
    mask = batch.rollouts.mask
    share = mask.sum() / mask[[row for row in range(18) if row not in (0, 4, 17)]].sum()
    assert share > 1.05
    for name, gradient in counted.items():
        if gradient is not None:
            torch.testing.assert_close(masked[name], share * gradient, rtol=1e-3, atol=1e-6)
    assert metrics["loss/grad_norm"] > 0


@pytest.mark.parametrize("algorithm", [GRPO, CalibRL])
def test_a_step_of_truncated_completions_only_changes_nothing(policy: Policy, batch: Any, algorithm: Any) -> None:
    every = truncated(batch, [*range(6 * GROUP)])
    _, metrics = gradients(policy, every, algorithm(mini_batches=1, mask_truncated=True, entropy_coef=0.1))
    assert metrics["loss/grad_norm"] == 0
    assert metrics["ratio/mean"] == 1
