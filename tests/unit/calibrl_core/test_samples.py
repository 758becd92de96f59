"""Sampled groups: the numbers of the batch, the groups that divide the most, and a bounded size."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.base import Experts, StepBatch
from calibrl_core.models.policy import Policy
from calibrl_core.report import EventFile
from calibrl_core.rollout.base import Rollouts
from calibrl_core.run import samples
from calibrl_core.run.samples import report_groups
from calibrl_core.verifiers.scorer import Score

LENGTH = 9


@pytest.fixture
def batch() -> StepBatch:
    """Two prompts, two rollouts each; row r's token t has log-probability -(10 r + t). An expert of seven tokens."""
    numbers = torch.arange(4)[:, None] * 10.0 + torch.arange(LENGTH)
    rewards = torch.tensor([[0.0, 0.1], [1.0, 0.0]], dtype=torch.float64)
    mask = torch.ones((4, LENGTH), dtype=torch.bool)
    mask[3, 2:] = False
    return StepBatch(
        examples=[Example("dull", "q", "1"), Example("telling", "q", "2", expert="e" * 40)],
        rollouts=Rollouts(
            tokens=torch.arange(5, 5 + LENGTH).repeat(4, 1),
            mask=mask,
            logprobs=-numbers,
            sampler_logprobs=-numbers,
            entropies=numbers / 100,
            truncated=torch.tensor([True, True, True, False]),
            texts=["a" * 30 + "<answer>1</answer>"] * 4,
            group_size=2,
        ),
        scores=[Score({"math": one, "format": 0.0}, one, one == 1.0, False) for one in rewards.flatten().tolist()],
        rewards=rewards,
        passed=rewards == 1.0,
        advantages=torch.tensor([[-0.05, 0.05], [0.5, -0.5]], dtype=torch.float64),
        experts=Experts(
            tokens=torch.ones((2, 7), dtype=torch.long),
            mask=torch.tensor([[False] * 7, [True] * 7]),
            logprobs=torch.tensor([[0.0] * 7, [-1.0] * 7]),
            entropies=torch.zeros((2, 7)),
        ),
    )


def reported(folder: Path, policy: Policy, batch: Any, count: int = 1) -> Any:
    report_groups(EventFile(folder), 3, policy, batch, count)
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_the_group_with_most_spread_is_first_with_all_its_numbers(tmp_path: Path, policy: Policy, batch: Any) -> None:
    first, second = reported(tmp_path, policy, batch, count=2)
    assert [first["group"]["prompt_id"], second["group"]["prompt_id"]] == ["telling", "dull"]
    passed, failed = first["group"]["completions"]
    assert passed["logprobs"] == [-(20.0 + place) for place in range(LENGTH)]
    assert passed["entropies"] == pytest.approx([0.20 + 0.01 * place for place in range(LENGTH)])
    # against the expert's -1 a token, which ends after seven
    assert passed["gaps"] == [*(-(19.0 + place) for place in range(7)), None, None]
    assert passed["tokens"] == [policy.tokenizer.decode([token]) for token in range(5, 5 + LENGTH)]
    assert (passed["rewards"], passed["reward"], passed["advantage"]) == ({"math": 1.0, "format": 0.0}, 1.0, 0.5)
    assert (passed["passed"], passed["truncated"], passed["left_out"]) == (True, True, 0)
    assert (len(failed["tokens"]), len(failed["gaps"]), failed["truncated"]) == (2, 2, False)
    assert second["group"]["completions"][0]["gaps"] == [None] * LENGTH
    assert (
        first["group"]["expert_tokens"] == [policy.tokenizer.decode([1])] * 7 and "expert_tokens" not in second["group"]
    )


def test_each_token_has_its_ratio_where_the_update_met_it(tmp_path: Path, policy: Policy, batch: Any) -> None:
    before = reported(tmp_path, policy, batch)[0]["group"]["completions"]
    assert before[1]["ratios"] == [None, None]
    ratios = 1 + torch.arange(4)[:, None] * 0.1 + torch.arange(LENGTH) * 0.01
    ratios[3] = float("nan")
    kept = reported(tmp_path, policy, dataclasses.replace(batch, ratios=ratios))[-1]["group"]["completions"]
    assert kept[0]["ratios"] == pytest.approx([1.2 + 0.01 * place for place in range(LENGTH)])
    assert kept[1]["ratios"] == [None, None]


def test_too_long_text_loses_its_middle(
    tmp_path: Path, policy: Policy, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "TOKENS", 10)  # five a completion
    monkeypatch.setattr(samples, "CHARACTERS", 27)  # thirteen a completion's text
    (event,) = reported(tmp_path, policy, batch)
    long, short = event["group"]["completions"]
    assert long["logprobs"] == [-20.0, -21.0, -22.0, -27.0, -28.0]
    assert long["gaps"] == [-19.0, -20.0, -21.0, None, None]
    assert (long["left_out"], short["left_out"]) == (4, 0)
    assert long["text"] == "aaa [...] er>"
    assert event["group"]["expert"] == "e" * 10 + " [...] " + "e" * 10
    assert event["group"]["prompt"] == "q"


def test_an_event_is_bounded_however_long_the_completions(tmp_path: Path, policy: Policy, batch: Any) -> None:
    rows, tokens = 64, 4096
    wide = dataclasses.replace(
        batch,
        examples=batch.examples[1:],
        rollouts=Rollouts(
            tokens=torch.full((rows, tokens), 5),
            mask=torch.ones((rows, tokens), dtype=torch.bool),
            logprobs=torch.full((rows, tokens), -12.34567),
            sampler_logprobs=torch.full((rows, tokens), -12.34567),
            entropies=torch.full((rows, tokens), 12.34567),
            truncated=torch.ones(rows, dtype=torch.bool),
            texts=["x" * 4 * tokens] * rows,
            group_size=rows,
        ),
        scores=batch.scores[:1] * rows,
        rewards=torch.zeros((1, rows)),
        passed=torch.zeros((1, rows), dtype=torch.bool),
        advantages=torch.zeros((1, rows)),
        experts=Experts(
            tokens=batch.experts.tokens[1:],
            mask=batch.experts.mask[1:],
            logprobs=batch.experts.logprobs[1:],
            entropies=batch.experts.entropies[1:],
        ),
    )
    reported(tmp_path, policy, wide)
    assert (tmp_path / "events.jsonl").stat().st_size < 2_500_000
