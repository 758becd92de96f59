"""The update: micro-batches and rows left out change nothing; a gradient that is not finite changes no weight."""

import copy
import dataclasses

import pytest
import torch

from calibrl_core.advantages import group_advantages
from calibrl_core.algorithms import GRPO, CalibRL
from calibrl_core.config import TrainConfig
from calibrl_core.diagnostics import diagnose
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.diagnostics.expert_mismatch import gap_histogram
from calibrl_core.diagnostics.rareness import rareness_histogram
from calibrl_core.models.policy import Policy
from calibrl_core.optimizer import MOST_SKIPPED, GradientStep, NonFiniteError
from calibrl_core.rewards import Score
from calibrl_core.update import Updater

GROUP = 3


@pytest.fixture
def batch(engine, examples):
    """Six groups of three: in four of them one rollout passes, in two none does."""
    rollouts = engine.generate(examples, group_size=GROUP, temperature=1.0, max_tokens=10, seed=[2])
    passed = torch.tensor([[True, False, False]] * 4 + [[False] * 3] * 2)
    rewards = passed.double()
    generator = torch.Generator().manual_seed(0)
    longest = rollouts.mask.shape[1] + 3  # half of the experts are longer than every rollout
    expert_mask = torch.ones((len(rollouts.mask), longest), dtype=torch.bool)
    expert_mask[::2, 7:] = False
    return StepBatch(
        rollouts=rollouts,
        scores=[Score({"math": float(one)}, float(one), bool(one), bool(one)) for one in passed.flatten()],
        rewards=rewards,
        passed=passed,
        advantages=group_advantages(rewards, normalise_by_std=False),
        expert_logprobs=-5 * torch.rand(expert_mask.shape, generator=generator),
        expert_mask=expert_mask,
        expert_nll=2.5,
    )


@pytest.fixture
def rows_run(monkeypatch):
    """How many rows each forward pass of an update had."""
    counts = []
    plain = Policy.logprobs

    def counting(self, examples, owners, *rest, **named):
        counts.append(len(owners))
        return plain(self, examples, owners, *rest, **named)

    monkeypatch.setattr(Policy, "logprobs", counting)
    return counts


def config(algorithm, **changes):
    required = {"model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}, "steps": 1}
    return TrainConfig.model_validate({**required, "algorithm": algorithm, **changes})


def gradients(policy, examples, batch, algorithm, micro_batch_rows=None, step=0):
    """The gradient that a step ends with (one mini-batch, nothing clipped), and its metrics."""
    twin = Policy(copy.deepcopy(policy.model), policy.processor, policy.device)
    settings = config(algorithm, micro_batch_rows=micro_batch_rows, optimizer={"max_grad_norm": 1e9})
    gradient = GradientStep(twin, torch.optim.SGD(twin.model.parameters(), lr=0.0), settings.optimizer)
    metrics = Updater(twin, gradient, settings).update(examples, batch, step)
    return {name: parameter.grad for name, parameter in twin.model.named_parameters()}, metrics


def group_slice(batch, first, last):
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
        expert_logprobs=batch.expert_logprobs[rows],
        expert_mask=batch.expert_mask[rows],
    )


def assert_same(one, other):
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
def test_micro_batches_change_nothing(policy, examples, batch, algorithm):
    whole, metrics = gradients(policy, examples, batch, algorithm)
    parts, again = gradients(policy, examples, batch, algorithm, micro_batch_rows=4)
    assert_same(whole, parts)
    assert metrics["loss/total"] == pytest.approx(again["loss/total"], abs=1e-6)
    assert metrics["loss/grad_norm"] > 0


def test_rows_without_advantage_are_left_out_and_nothing_changes(policy, examples, batch, rows_run, monkeypatch):
    algorithm = CalibRL(mini_batches=1)
    left_out, metrics = gradients(policy, examples, batch, algorithm)
    monkeypatch.setattr(Updater, "_rows_with_gradient", lambda self, batch, rows, coef: torch.arange(len(rows)))
    kept, again = gradients(policy, examples, batch, algorithm)
    assert rows_run == [12, 18]
    assert_same(left_out, kept)
    assert metrics["loss/total"] == pytest.approx(again["loss/total"], abs=1e-6)


def test_a_mini_batch_with_nothing_to_learn_has_a_gradient_of_zero(policy, examples, batch):
    """As in a plain loop, so that momentum and weight decay go on."""
    found, metrics = gradients(policy, examples[4:], group_slice(batch, 4, 6), GRPO(mini_batches=1))
    assert metrics["loss/grad_norm"] == 0
    assert all(gradient is not None and not gradient.any() for gradient in found.values())


def test_unweighted_guidance_keeps_every_row(policy, examples, batch, rows_run):
    algorithm = CalibRL(mini_batches=1, rareness_weighting=False)
    with_guidance, _ = gradients(policy, examples, batch, algorithm, step=0)
    assert rows_run == [18]
    late, metrics = gradients(policy, examples, batch, algorithm.model_copy(update={"guidance_start_step": 1}))
    without, _ = gradients(policy, examples, batch, GRPO(mini_batches=1))
    assert_same(late, without)
    assert metrics["loss/total"] == pytest.approx(metrics["loss/policy"])
    difference = with_guidance["lm_head.weight"] - without["lm_head.weight"]
    assert difference.abs().max() > 1e-4


def test_mini_batches_hold_whole_groups(policy, examples, batch, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Updater, "_backward", lambda self, examples, batch, rows, step, tally: seen.append(rows.tolist())
    )
    monkeypatch.setattr("calibrl_core.update._Tally.metrics", lambda self: {})
    gradients(policy, examples, batch, GRPO(mini_batches=4))
    assert seen == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17]]


def test_a_gradient_that_is_not_finite_changes_no_weight_and_ends_the_run_in_the_end(policy, examples, batch):
    twin = Policy(copy.deepcopy(policy.model), policy.processor, policy.device)
    before = twin.model.state_dict()["lm_head.weight"].clone()
    settings = config(GRPO(mini_batches=1))
    optimizer = torch.optim.AdamW(twin.model.parameters(), lr=1.0)
    updater = Updater(twin, GradientStep(twin, optimizer, settings.optimizer), settings)
    batch.rollouts.logprobs[batch.rollouts.mask] = -1e30  # ratios overflow
    batch.advantages.neg_()
    for _ in range(MOST_SKIPPED - 1):
        assert updater.update(examples, batch, 0)["loss/skipped_updates"] == 1
    assert torch.equal(twin.model.state_dict()["lm_head.weight"], before)
    with pytest.raises(NonFiniteError, match=r"lower optimizer\.lr"):
        updater.update(examples, batch, 0)


def test_diagnostics(batch):
    found = diagnose(batch)
    assert found["reward/mean"] == pytest.approx(4 / 18)
    assert found["reward/answer_accuracy"] == found["reward/math"] == pytest.approx(4 / 18)
    assert found["rareness/correct"] == pytest.approx(2 / 3)
    assert found["rareness/wrong"] == pytest.approx((8 * 1 / 3 + 0) / 14)
    assert found["exploration/active_groups"] == pytest.approx(4 / 6)
    assert found["exploration/pass_at_k"] == pytest.approx(4 / 6)
    assert found["exploration/groups_none"] == pytest.approx(2 / 6)
    quadrants = [value for name, value in found.items() if "quadrant" in name]
    assert len(quadrants) == 4
    assert sum(quadrants) == pytest.approx(1)
    counted = batch.gap_mask
    width = counted.shape[1]
    assert torch.equal(counted, batch.rollouts.mask & batch.expert_mask[:, :width])
    gaps = (batch.rollouts.logprobs - batch.expert_logprobs[:, :width])[counted]
    assert found["expert/gap_mean"] == pytest.approx(gaps.mean().item(), abs=1e-5)
    correct = batch.passed.flatten()[:, None].expand_as(counted)[counted]
    assert found["expert/quadrant_overconfident_wrong"] == pytest.approx(
        ((gaps >= 0) & ~correct).float().mean().item(), abs=1e-6
    )
    assert found["expert/damped_share"] == pytest.approx(
        found["expert/quadrant_confident_correct"] + found["expert/quadrant_humble_wrong"]
    )
    assert sum(gap_histogram(batch)[1]) == int(counted.sum())
    edges, counts = rareness_histogram(batch, 1.1)
    assert sum(counts) == 18
    assert counts[0] == 6
    assert len(edges) == len(counts) + 1
