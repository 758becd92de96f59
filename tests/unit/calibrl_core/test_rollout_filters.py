"""top_k, top_p, min_p and the repetition penalty, with distributions derived by hand."""

import dataclasses
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from calibrl_core.algorithms import GRPO
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.sampling import draw, token_sets
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.settings.sampling import RolloutSettings, SamplingSettings
from calibrl_core.step.optimizer import GradientStep
from calibrl_core.step.update import Updater
from tests.support.updates import config

DRAWS = 20_000
LOGITS = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()
NONE_BANNED = torch.zeros(4, dtype=torch.bool)


def drawn(logits: Any = LOGITS, temperature: float = 1.0, repeated: Any = None, **settings: Any) -> Any:
    uniforms = torch.rand(DRAWS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampling = SamplingSettings(**settings)
    marks = None if repeated is None else torch.tensor(repeated).repeat(DRAWS, 1)
    return draw(logits.repeat(DRAWS, 1), temperature, NONE_BANNED, uniforms, sampling, marks)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.5, 0.25, 0.15, 0.1]),
        ({"top_k": 2}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_k": 1}, [1, 0, 0, 0]),
        ({"top_k": 9}, [0.5, 0.25, 0.15, 0.1]),
        ({"top_p": 0.4}, [1, 0, 0, 0]),
        ({"top_p": 0.7}, [2 / 3, 1 / 3, 0, 0]),  # the second token crosses the sum, and stays
        ({"top_p": 0.8}, [5 / 9, 2.5 / 9, 1.5 / 9, 0]),
        ({"min_p": 0.25}, [5 / 9, 2.5 / 9, 1.5 / 9, 0]),  # at least a quarter of 0.5
        ({"min_p": 1.0}, [1, 0, 0, 0]),
        # top_k leaves 2/3 and 1/3, so top_p 0.6 is reached by the first; before top_k it would need two tokens.
        ({"top_k": 2, "top_p": 0.6}, [1, 0, 0, 0]),
        # min_p leaves 5/9, 2.5/9 and 1.5/9, of which two sum to 0.83; before min_p top_p 0.82 would need three.
        ({"min_p": 0.25, "top_p": 0.82}, [2 / 3, 1 / 3, 0, 0]),
        # Temperature 0.5 squares: 0.25, 0.0625, 0.0225, 0.01 of 0.345. It comes first: top_p 0.7 is reached by one.
        ({"temperature": 0.5, "top_p": 0.7}, [1, 0, 0, 0]),
        ({"temperature": 0.5, "min_p": 0.2}, [0.8, 0.2, 0, 0]),
    ],
)
def test_tokens_come_from_the_filtered_distribution(settings: Any, expected: list[float]) -> None:
    found = drawn(**settings)
    shares = torch.bincount(found.tokens, minlength=4) / DRAWS
    assert shares.tolist() == pytest.approx(expected, abs=0.012)  # 3.5 standard deviations of a share of 1/2
    assert [share > 0 for share in shares.tolist()] == [share > 0 for share in expected]
    probabilities = torch.tensor(expected, dtype=torch.float32)[found.tokens]
    torch.testing.assert_close(found.sampler_logprobs.exp(), probabilities)


def test_the_policys_values_ignore_the_filters() -> None:
    found, plain = drawn(top_k=2, temperature=2.0), drawn(temperature=2.0)
    policy = (LOGITS / 2).log_softmax(-1)
    torch.testing.assert_close(found.logprobs, policy[found.tokens])
    torch.testing.assert_close(found.entropies, plain.entropies)
    assert torch.equal(plain.sampler_logprobs, plain.logprobs)


def test_a_repetition_penalty_divides_or_multiplies() -> None:
    """Logits ln 4, ln 2, -ln 2, 0; of repeated tokens ln 4 / 2 = ln 2, and -ln 2 x 2 = -ln 4: 2, 2, 1/4, 1 of 5.25."""
    logits = torch.tensor([4.0, 2.0, 0.5, 1.0]).log()
    found = drawn(logits, repeated=[True, False, True, False], repetition_penalty=2.0)
    expected = torch.tensor([2.0, 2.0, 0.25, 1.0]) / 5.25
    torch.testing.assert_close(found.sampler_logprobs.exp(), expected[found.tokens])
    torch.testing.assert_close(found.logprobs.exp(), (torch.tensor([4.0, 2.0, 0.5, 1.0]) / 7.5)[found.tokens])
    assert (torch.bincount(found.tokens, minlength=4) / DRAWS).tolist() == pytest.approx(expected.tolist(), abs=0.012)
    # Greedy: ln 3 / 3 is below ln 2.
    greedy = drawn(torch.tensor([3.0, 2.0, 0.5, 1.0]).log(), 0.0, [True] + [False] * 3, repetition_penalty=3.0)
    assert greedy.tokens.unique().tolist() == [1]


def test_token_sets_leave_out_padding_and_foreign_markers() -> None:
    sets = token_sets(torch.tensor([[0, 1, 3], [2, 7, 2]]), torch.tensor([[False, True, True], [True, True, True]]), 4)
    assert sets.tolist() == [[False, True, False, True], [False, False, True, False]]


@pytest.mark.parametrize(
    "settings",
    [{"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}, {"min_p": -0.1}, {"repetition_penalty": 0}, {"stop": [""]}],
)
def test_settings_out_of_bounds_are_refused(settings: Any) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        RolloutSettings.model_validate(settings)


def test_no_token_repeats_under_a_huge_penalty(policy: Policy, examples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive logits of seen tokens fall to a tenth: greedy completions of the tiny model repeat them no more."""
    monkeypatch.setattr(policy, "stop_ids", frozenset())
    request = SamplingRequest(group_size=2, temperature=0, max_tokens=12, seed=[0])
    engine = SharedPrefillEngine(policy)
    plain = engine.generate(examples[:2], request).tokens
    penalty = dataclasses.replace(request, sampling=SamplingSettings(repetition_penalty=10.0))
    penalised = engine.generate(examples[:2], penalty).tokens

    def distinct(rows: Any) -> Any:
        return [len(set(row)) for row in rows.tolist()]

    assert max(distinct(plain)) < 12
    assert distinct(penalised) == [12] * 4
    asked = set(policy.encode(examples[:1]).input_ids[0].tolist())
    assert not asked & set(penalised[0].tolist())


def filtered_batch(policy: Policy, batch: Any, **filters: Any) -> Any:
    request = SamplingRequest(
        group_size=batch.rollouts.group_size,
        temperature=1.0,
        max_tokens=10,
        seed=[2],
        sampling=SamplingSettings(**filters),
    )
    rollouts = SharedPrefillEngine(policy).generate(batch.examples, request)
    return dataclasses.replace(batch, rollouts=rollouts)


def test_the_update_compares_the_policy_and_weighs_by_the_filter(policy: Policy, batch: Any) -> None:
    """Old and new log-probabilities are both unfiltered, so no ratio differs from 1; the weight is what top_k kept."""
    sampled = filtered_batch(policy, batch, top_k=5)
    mask = sampled.rollouts.mask
    kept = (sampled.rollouts.logprobs - sampled.rollouts.sampler_logprobs).exp()[mask]
    assert kept.max() < 0.999
    losses = {}
    for correction in ("none", "token_truncate"):
        settings = config(
            GRPO(mini_batches=1, aggregation="seq-mean-token-sum"),
            rollout={"top_k": 5, "importance_correction": correction},
            micro_batch_rows=4,
        )
        gradient = GradientStep(policy, torch.optim.SGD(policy.model.parameters(), lr=0.0), settings.optimizer)
        metrics, ratios = Updater(policy, gradient, settings).update(sampled, 0)
        assert ratios[~ratios.isnan()].sub(1).abs().max() < 1e-4
        losses[correction] = metrics["loss/policy"]
    # With a ratio of 1 a token's loss is -A: times the weight, over the rows that have an advantage.
    weights = (sampled.rollouts.logprobs - sampled.rollouts.sampler_logprobs).exp() * mask
    advantages = sampled.advantages.flatten().float()
    rows = len(advantages)
    assert losses["none"] == pytest.approx((-advantages * mask.sum(-1)).sum().item() / rows, abs=1e-4)
    assert losses["token_truncate"] == pytest.approx((-advantages * weights.sum(-1)).sum().item() / rows, abs=1e-4)
    assert abs(losses["none"] - losses["token_truncate"]) > 1e-3
