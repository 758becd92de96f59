"""Audits of experts, by numbers worked out by hand: likelihood, gaps, verdicts, the effect of guidance, the summary."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from calibrl_core.algorithms import CalibRL
from calibrl_core.algorithms.loss_batch import LossBatch
from calibrl_core.auditing.audit_file import StoredRow
from calibrl_core.auditing.effect import effect_of_guidance
from calibrl_core.auditing.experts import ScoredExperts, gaps_to_experts, score_experts
from calibrl_core.auditing.settings import AuditRollout, AuditSettings
from calibrl_core.auditing.summary import MOST_WORST, AuditSummary
from calibrl_core.auditing.verdicts import verdict_on
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.expert_mismatch import quadrants
from calibrl_core.metrics.expert import Quadrant
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts
from calibrl_core.verifiers.scorer import Score

SETTINGS = AuditSettings(rollout=AuditRollout(max_completion_tokens=100))
Tokens = dict[Quadrant, int]


def test_a_uniform_policy_has_the_log_of_its_tokens_as_nll(policy: Policy, examples: Sequence[Example]) -> None:
    """A head of zeros makes all allowed tokens equally likely: each costs the log of their number."""
    head = policy.model.get_output_embeddings().weight
    kept, head.data = head.data, torch.zeros_like(head.data)
    uniform = math.log(int((~policy.banned).sum()))
    try:
        texts = [example.expert or "" for example in examples]
        found = score_experts(policy, examples, range(len(examples)), texts, AuditRollout(max_completion_tokens=11))
    finally:
        head.data = kept
    assert found.nll_per_token == pytest.approx([uniform] * len(examples), abs=1e-5)
    assert found.lengths == policy.tokenize_experts(examples, 1000)[1].sum(-1).tolist()
    assert max(found.lengths) > 11  # of these only eleven tokens count
    assert found.nll == pytest.approx([uniform * min(11, length) for length in found.lengths], abs=1e-3)


def rollouts(logprobs: list[list[float]], lengths: list[int], truncated: list[bool]) -> Rollouts:
    values = torch.tensor(logprobs)
    mask = torch.arange(values.shape[1]) < torch.tensor(lengths)[:, None]
    tokens, cut = torch.zeros(values.shape, dtype=torch.long), torch.tensor(truncated)
    return Rollouts(tokens, mask, values, values, values, cut, [""] * len(lengths), len(lengths))


def test_gaps_are_those_of_the_loss() -> None:
    sampled = rollouts([[-1.0, -2.0, -3.0], [-4.0, -1.0, 0.0]], [3, 2], [False, True])
    expert = ScoredExperts([2], torch.ones((1, 2), dtype=torch.bool), torch.tensor([[-2.0, -2.0]]))
    passed = torch.tensor([True, False])
    gaps, counted = gaps_to_experts(CalibRL(), sampled, passed, expert)
    assert counted.tolist() == [[True, True, False], [True, True, False]]
    assert gaps[counted].tolist() == [1.0, 0.0, -2.0, 1.0]
    members = quadrants(gaps[counted], torch.tensor([True, True, False, False]))
    assert {name: int(member.sum()) for name, member in members.items()} == {
        "confident_correct": 2,
        "underconfident_correct": 0,
        "overconfident_wrong": 1,
        "humble_wrong": 1,
    }
    _, masked = gaps_to_experts(CalibRL(mask_truncated=True), sampled, passed, expert)
    assert masked.tolist() == [[True, True, False], [False] * 3]
    means, _ = gaps_to_experts(CalibRL(expert_gap="sequence_mean"), sampled, passed, expert)
    assert means[:, 0].tolist() == [0.0, -0.5]  # means of -2 and -2.5, against one of -2


def score(**verdicts: float) -> Score:
    right = verdicts.get("math", 1.0) >= 0.5
    failed = tuple(name for name, value in verdicts.items() if value < 0)
    return Score({"math": 1.0, "format": 1.0, **verdicts}, 1.0, right, right, "slow" if failed else None, failed)


@pytest.mark.parametrize(
    ("given", "tokens", "nll", "verdict", "reasons"),
    [
        (score(), 100, 2.0, "use", ["right, complete and near the policy: 2.00 nats per token"]),
        (score(math=0.0), 100, 1.0, "drop", ["the reward math refuses the expert"]),
        (score(math=-1.0), 100, 1.0, "drop", ["a reward gave no verdict (slow)"]),
        (score(), 101, 9.0, "drop", ["cut: 101 tokens, more than rollout.max_completion_tokens (100)"]),
        (score(), 100, 2.25, "rewrite", ["far from the policy: 2.25 nats per token, more than max_nll (2)"]),
        (score(format=0.0), 100, 1.0, "rewrite", ["the reward format refuses the expert"]),
    ],
)
def test_a_verdict_has_its_reasons(given: Score, tokens: int, nll: float, verdict: str, reasons: list[str]) -> None:
    assert verdict_on(given, tokens, nll, SETTINGS) == (verdict, reasons)


def tokens(*counts: int) -> Tokens:
    names: tuple[Quadrant, ...] = (
        "confident_correct",
        "underconfident_correct",
        "overconfident_wrong",
        "humble_wrong",
    )
    return dict(zip(names, counts, strict=True))


@pytest.mark.parametrize(
    ("given", "algorithm", "parts"),
    [
        (
            tokens(995, 5, 300, 0),
            CalibRL(),
            (
                "can hardly differ",
                "99.5% of the tokens of correct completions have a gap of 0 or more, factor 1.05 (1 + guidance_coef x",
                "100.0% of the tokens of wrong completions have a gap of 0 or more, factor 1.1 (1 + guidance_coef).",
            ),
        ),
        (tokens(0, 9, 0, 4), CalibRL(), ("correct completions have a gap of less than 0, factor 1.1", "factor 1.05")),
        (
            tokens(30, 10, 0, 0),
            CalibRL(negative_slope=0.25),
            ("can differ", "in the 40.0% of the groups", "25.0% of", "have the factor 1.1, the others 1.025."),
        ),
        (tokens(0, 0, 0, 0), CalibRL(), ("CalibRL equals GRPO",)),
        (tokens(1, 1, 1, 1), CalibRL(guidance_coef=0.0), ("guidance_coef is 0",)),
        (tokens(1, 0, 0, 0), CalibRL(rareness_weighting=False), ("CalibRL differs from GRPO",)),
        (tokens(9, 0, 0, 0), CalibRL(expert_gap="sequence_sum"), ("factor 1 + 0.05 per token of the completion",)),
    ],
)
def test_the_effect_of_guidance_is_said_with_figures(given: Tokens, algorithm: CalibRL, parts: tuple[str, ...]) -> None:
    said = effect_of_guidance(algorithm, given, 0.4)
    assert [part for part in parts if part not in said] == []


def test_without_active_groups_nothing_is_learned() -> None:
    assert "neither CalibRL nor GRPO learns" in effect_of_guidance(CalibRL(), tokens(9, 0, 9, 0), 0.0)


@pytest.mark.parametrize(("passed", "factor"), [(True, 1.05), (False, 1.1)])
def test_the_factors_are_those_of_the_gradient(passed: bool, factor: float) -> None:
    """All gaps are 1: the gradient of the whole loss is that of the policy loss times the stated factor."""
    current = torch.tensor([[-1.0, -1.5]], dtype=torch.float64, requires_grad=True)
    full = torch.ones((1, 2), dtype=torch.bool)
    given = LossBatch(
        logprobs=current,
        old_logprobs=current.detach(),
        advantages=torch.tensor([0.75 if passed else -0.75], dtype=torch.float64),
        completion_mask=full,
        passed=torch.tensor([passed]),
        is_expert=torch.tensor([False]),
        expert_logprobs=current.detach() - 1,
        expert_mask=full,
    )
    losses = CalibRL().token_losses(given)
    assert losses.guidance is not None
    (of_policy,) = torch.autograd.grad(losses.policy.sum(), current, retain_graph=True)
    (of_both,) = torch.autograd.grad((losses.policy + CalibRL().guidance_coef * losses.guidance).sum(), current)
    assert (of_both / of_policy).tolist() == [pytest.approx([factor, factor])]
    counts = tokens(2, 0, 0, 0) if passed else tokens(0, 0, 2, 0)
    assert f"factor {factor:g} (" in effect_of_guidance(CalibRL(), counts, 1.0)


def row(number: int, verdict: Any, nll: float, length: int = 10, **changes: Any) -> StoredRow:
    fields: dict[str, Any] = {
        "row": number,
        "prompt_id": f"data/{number}",
        "data_source": None,
        "verdict": verdict,
        "reasons": ["a reason"],
        "tokens": length,
        "nll": nll * min(length, 100),
        "nll_per_token": nll,
        "follows_format": True,
        "passed": verdict != "drop",
        "pass_rate": 0.5,
        "active": True,
        "gap_mean": 1.0,
        "quadrants": tokens(3, 1, 0, 0),
        "gap_counts": [0] * 33 + [4] + [0] * 30,
        "expert_digest": "0" * 16,
        "settings": "0" * 16,
    }
    return StoredRow(**fields | changes)


def test_the_summary_counts_and_weighs_by_tokens() -> None:
    summary = AuditSummary(SETTINGS, without_expert=2)
    summary.add(row(1, "use", 1.0))
    summary.add(row(2, "drop", 0.5, 300, pass_rate=0.0, active=False, follows_format=False))
    rest = {"rewrite": "x", "rewritten_nll_per_token": 1.5, "quadrants": tokens(0, 0, 4, 0), "gap_mean": 4.0}
    summary.add(row(4, "rewrite", 20.0, 30, **rest))
    found = summary.result()
    assert (found.rows, found.without_expert, found.rewritten) == (3, 2, 1)
    assert found.verdicts == {"use": 1, "rewrite": 1, "drop": 1}
    assert (found.passed, found.in_format, found.cut) == (2, 2, 1)
    assert found.nll_per_token == pytest.approx((10 + 50 + 600) / (10 + 100 + 30))  # of 300 tokens 100 are not cut
    assert (found.pass_rate, found.active_groups) == pytest.approx((1 / 3, 2 / 3))
    assert found.gap_mean == pytest.approx((4 * 1 + 4 * 1 + 4 * 4) / 12)
    shares = {"confident_correct": 0.5, "underconfident_correct": 2 / 12, "overconfident_wrong": 4 / 12}
    assert found.quadrants == pytest.approx(shares | {"humble_wrong": 0.0})
    nll = found.nll_histogram
    assert [(nll.edges[place], count) for place, count in enumerate(nll.counts) if count] == [
        (0.5, 1),
        (1.0, 1),
        (15.75, 1),  # 20 is beyond the last edge
    ]
    assert found.gap_histogram.counts[33] == 12
    assert [one.row for one in found.worst] == [2, 4, 1]
    assert found.worst[1].rewritten_nll_per_token == 1.5


def test_only_the_worst_rows_are_kept() -> None:
    summary = AuditSummary(SETTINGS, without_expert=0)
    for number in range(MOST_WORST + 50):
        summary.add(row(number, "use", number / 100))
    summary.add(row(9999, "drop", 0.0))
    worst = summary.result().worst
    assert (len(worst), worst[0].row, worst[1].row, worst[-1].row) == (MOST_WORST, 9999, MOST_WORST + 49, 51)
