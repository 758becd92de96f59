"""Every metric on a batch that is written out, with its number derived by hand."""

import copy
import dataclasses
import json
import math
import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from calibrl_core.config import TrainConfig
from calibrl_core.diagnostics import diagnose, histograms
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.diagnostics.gradients import compare_gradients
from calibrl_core.diagnostics.hardware import HardwareUse
from calibrl_core.diagnostics.memory import memory_bytes
from calibrl_core.diagnostics.rareness import highest_rareness
from calibrl_core.diagnostics.sampled import SampledGroups
from calibrl_core.diagnostics.solved import SolvedPrompts
from calibrl_core.distributed.ranks import ALONE
from tests.support.step_batch import make_batch


@pytest.fixture
def batch() -> StepBatch:
    return make_batch()


def test_reward(batch: StepBatch) -> None:
    found = diagnose(batch)
    assert found["reward/mean"] == pytest.approx(1.2 / 6)
    # squares 1.21 + 0.01, less the square of the mean 0.2
    assert found["reward/std"] == pytest.approx(math.sqrt(1.22 / 6 - 0.04))
    assert found["reward/answer_accuracy"] == found["reward/strict_accuracy"] == pytest.approx(1 / 6)
    assert found["reward/math"] == pytest.approx(1 / 6)
    assert found["reward/format"] == pytest.approx(2 / 6)


def test_verdicts_that_failed_are_counted(batch: StepBatch) -> None:
    names = ("reward/verifier_failures", "reward/verifier_failure_share")
    assert [diagnose(batch)[name] for name in names] == [0.0, 0.0]
    failed = [("math",), ("math", "format"), ("format",), ("math",), (), ()]
    scores = [
        dataclasses.replace(one, failure="too slow" if labels else None, failed=labels)
        for one, labels in zip(batch.scores, failed, strict=True)
    ]
    found = diagnose(dataclasses.replace(batch, scores=scores))
    assert [found[name] for name in names] == [4.0, 3 / 6]  # math failed in 3 of 6, format in 2


def test_entropy(batch: StepBatch) -> None:
    found = diagnose(batch)
    # ten tokens: 0.4 0.8 1.0 2.0 0.0 0.6 0.2 0.2 0.4 0.4 sum to 6.0; the two highest are 2.0 and 1.0
    assert found["exploration/entropy"] == pytest.approx(0.6)
    assert found["exploration/entropy_top20"] == pytest.approx(1.5)
    assert found["exploration/entropy_published"] == pytest.approx((6.0 + 2.0) / 12)


def test_groups(batch: StepBatch) -> None:
    found = diagnose(batch)
    assert found["exploration/pass_at_k"] == 0.5
    assert (found["exploration/groups_none"], found["exploration/groups_some"]) == (0.5, 0.5)
    assert (found["exploration/groups_all"], found["exploration/active_groups"]) == (0.0, 0.5)


def test_answers(batch: StepBatch) -> None:
    found = diagnose(batch)
    # {4, 5} and {7, 8}: a completion without an answer tries none
    assert found["exploration/distinct_answers"] == 2.0
    # the wrong: 5, 5 agree in two of two; 7, none, 8 in one of three
    assert found["exploration/common_wrong_share"] == pytest.approx(3 / 5)


def test_answers_that_mean_the_same_are_one(batch: StepBatch) -> None:
    texts = [f"<answer>{text}</answer>" for text in ("1/2", "0.5", "\\boxed{0.50}", "a", "A", "b")]
    found = diagnose(dataclasses.replace(batch, rollouts=dataclasses.replace(batch.rollouts, texts=texts)))
    assert found["exploration/distinct_answers"] == 1.5
    assert found["exploration/common_wrong_share"] == pytest.approx((2 + 2) / 5)


def test_one_wrong_completion_has_no_agreement(batch: StepBatch) -> None:
    passed = torch.tensor([[True, False, True], [True, True, True]])
    found = diagnose(dataclasses.replace(batch, passed=passed))
    assert "exploration/common_wrong_share" not in found


def test_covariance_of_logprob_and_advantage(batch: StepBatch) -> None:
    # Over ten tokens. Sum of products: 0.72 * -2.0 + -0.31 * -4.1 + -0.41 * -2.0 = 0.651
    # sum of logprobs: -2.0 - 4.1 - 2.0 - 0.2 - 1.0 - 1.2 = -10.5; of advantages: 2 * 0.72 - 3 * 0.31 - 0.41 = 0.1
    assert diagnose(batch)["exploration/logprob_advantage_cov"] == pytest.approx(0.0651 - -1.05 * 0.01)


def test_likely_tokens_with_high_rewards_have_positive_covariance(batch: StepBatch) -> None:
    logprobs = torch.tensor([[-0.1] * 3, [-5.0] * 3, [-5.0] * 3, [-1.0] * 3, [-1.0] * 3, [-1.0] * 3])
    rollouts = dataclasses.replace(batch.rollouts, logprobs=logprobs)
    assert diagnose(dataclasses.replace(batch, rollouts=rollouts))["exploration/logprob_advantage_cov"] > 0.3
    flipped = dataclasses.replace(batch, rollouts=rollouts, advantages=-batch.advantages)
    assert diagnose(flipped)["exploration/logprob_advantage_cov"] < -0.3


def test_length(batch: StepBatch) -> None:
    found = diagnose(batch)
    assert (found["length/mean"], found["length/max"]) == pytest.approx((10 / 6, 3.0))
    assert found["length/truncated_share"] == pytest.approx(1 / 6)


def test_rareness(batch: StepBatch) -> None:
    found = diagnose(batch)
    assert found["rareness/mean"] == pytest.approx(1.44 / 6)
    assert found["rareness/correct"] == pytest.approx(0.72)
    assert found["rareness/wrong"] == pytest.approx(0.72 / 5)


def test_gaps_and_quadrants(batch: StepBatch) -> None:
    found = diagnose(batch)
    # gaps 0.5 0.5 | 0.0 -1.0 -1.0; a gap of 0 counts as confident
    assert found["expert/gap_mean"] == pytest.approx(-0.2)
    assert found["expert/gap_correct"] == pytest.approx(0.5)
    assert found["expert/gap_wrong"] == pytest.approx(-2 / 3)
    assert found["expert/quadrant_confident_correct"] == pytest.approx(2 / 5)
    assert found["expert/quadrant_underconfident_correct"] == 0.0
    assert found["expert/quadrant_overconfident_wrong"] == pytest.approx(1 / 5)
    assert found["expert/quadrant_humble_wrong"] == pytest.approx(2 / 5)
    assert found["expert/damped_share"] == pytest.approx(4 / 5)
    assert found["expert/nll"] == pytest.approx(3.0 / 2)


def test_guidance_opposes_where_the_sign_of_a_is_not_the_outcomes(batch: StepBatch) -> None:
    assert diagnose(batch)["expert/opposing_share"] == 0.0
    # right in the wrong format, and below its group's mean: its two tokens; a wrong one above it: row 2's token.
    # Row 1 has A = 0, and the policy gradient nothing to say.
    advantages = torch.tensor([[-0.1, 0.0, 0.1], [0.0, 0.0, 0.0]], dtype=torch.float64)
    found = diagnose(dataclasses.replace(batch, advantages=advantages))
    assert found["expert/opposing_share"] == pytest.approx(3 / 5)


def test_without_experts_their_metrics_are_absent() -> None:
    found = diagnose(make_batch(experts=False))
    assert not [name for name in found if name.startswith("expert/")]
    assert "exploration/entropy_published" not in found
    assert found["exploration/entropy"] == pytest.approx(0.6)


def test_an_expert_beside_no_token_has_a_likelihood_and_no_gap(batch: StepBatch) -> None:
    """Only the second prompt's rollouts are left, which has none."""
    mask = batch.rollouts.mask.clone()
    mask[:3] = False
    found = diagnose(dataclasses.replace(batch, rollouts=dataclasses.replace(batch.rollouts, mask=mask)))
    assert {name for name in found if name.startswith("expert/")} == {"expert/nll"}


@pytest.mark.parametrize(("right", "absent", "present"), [(True, "wrong", "correct"), (False, "correct", "wrong")])
def test_an_outcome_that_did_not_happen_is_absent(batch: StepBatch, right: bool, absent: str, present: str) -> None:
    found = diagnose(dataclasses.replace(batch, passed=torch.full((2, 3), right)))
    for family, name in (("rareness", ""), ("expert", "gap_")):
        assert f"{family}/{name}{absent}" not in found
        assert f"{family}/{name}{present}" in found
    assert ("exploration/common_wrong_share" in found) is not right


def test_a_single_token() -> None:
    one = make_batch(experts=False)
    mask = torch.zeros((6, 3), dtype=torch.bool)
    mask[0, 0] = True
    found = diagnose(dataclasses.replace(one, rollouts=dataclasses.replace(one.rollouts, mask=mask)))
    assert found["exploration/entropy"] == found["exploration/entropy_top20"] == pytest.approx(0.4)
    assert found["exploration/logprob_advantage_cov"] == 0.0


def config(**changes: Any) -> TrainConfig:
    given = {"model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}, "steps": 1, "prompts_per_step": 4}
    return TrainConfig.model_validate(given | changes)


def counts(found: dict[str, Any], name: str) -> dict[Any, Any]:
    """{lower edge: count} of the bins that hold anything."""
    edges, numbers = found[name]
    assert len(edges) == len(numbers) + 1
    return {round(edge, 6): number for edge, number in zip(edges, numbers, strict=False) if number}


def test_all_sampled_groups_are_summed_draw_by_draw(batch: StepBatch) -> None:
    """The batch, and once more its second prompt, which earned nothing: as one draw each."""
    groups = SampledGroups()
    scores = [dataclasses.replace(batch.scores[0], failed=("math",)), *batch.scores[1:]]
    groups.add(batch.rewards, batch.rollouts, scores)
    rows = slice(3, 6)
    of = batch.rollouts
    again = dataclasses.replace(
        of, **{name: getattr(of, name)[rows] for name in ("tokens", "mask", "logprobs", "entropies", "truncated")}
    )
    groups.add(batch.rewards[1:], again, batch.scores[rows])
    assert groups.metrics() == {
        "exploration/sampled_prompts": 3.0,
        "sampled/reward/mean": pytest.approx(1.2 / 9),
        # squares 1.21 + 0.01
        "sampled/reward/std": pytest.approx(math.sqrt(1.22 / 9 - (1.2 / 9) ** 2)),
        "sampled/reward/answer_accuracy": pytest.approx(1 / 9),
        "sampled/reward/strict_accuracy": pytest.approx(1 / 9),
        # 0.4 + 0.8 + 1.0 + 2.0 + 0.0 + 0.6, then twice 0.2 + 0.2 + 0.4 + 0.4, over 6 + 4 + 4 tokens
        "sampled/reward/verifier_failure_share": pytest.approx(1 / 9),
        "sampled/exploration/entropy": pytest.approx((4.8 + 2 * 1.2) / 14),
        "sampled/exploration/active_groups": pytest.approx(1 / 3),
        "sampled/length/truncated_share": pytest.approx(2 / 9),
    }


def test_histograms(batch: StepBatch) -> None:
    found = histograms(batch, config())
    # |A| 0.72, 0.31, 0.41, 0, 0, 0 in 22 bins up to the rewards' weights 1 + 0.1: each 0.05 wide
    assert counts(found, "rareness") == {0.0: 3, 0.3: 1, 0.4: 1, 0.7: 1}
    assert counts(found, "rareness/correct") == {0.7: 1}
    assert counts(found, "rareness/wrong") == {0.0: 3, 0.3: 1, 0.4: 1}
    # gaps 0.5 0.5 | 0.0 -1.0 -1.0 in bins of half a nat
    assert counts(found, "expert/gap") == {-1.0: 2, 0.0: 1, 0.5: 2}
    assert counts(found, "expert/gap_correct") == {0.5: 2}
    assert counts(found, "expert/gap_wrong") == {-1.0: 2, 0.0: 1}
    # entropies 0.4 0.8 1.0 2.0 0.0 0.6 0.2 0.2 0.4 0.4 in bins of an eighth of a nat
    assert counts(found, "exploration/entropy") == {0.0: 1, 0.125: 2, 0.375: 3, 0.5: 1, 0.75: 1, 1.0: 1, 2.0: 1}


def test_histograms_count_outliers_at_their_ends_and_nan_nowhere(batch: StepBatch) -> None:
    entropies = batch.rollouts.entropies.clone()
    entropies[0, 0], entropies[0, 1] = 99.0, math.nan
    found = histograms(
        dataclasses.replace(batch, rollouts=dataclasses.replace(batch.rollouts, entropies=entropies)), config()
    )
    assert found["exploration/entropy"][1][-1] == 1
    assert sum(found["exploration/entropy"][1]) == 9


def test_without_experts_there_is_no_histogram_of_gaps() -> None:
    assert {*histograms(make_batch(experts=False), config())} == {
        "rareness",
        "rareness/correct",
        "rareness/wrong",
        "exploration/entropy",
    }


def test_the_rareness_histogram_reaches_as_far_as_rareness_can() -> None:
    assert highest_rareness(config()) == pytest.approx(1.1)  # math 1, format 0.1
    # one 1 among eight: mean 1/8, unbiased variance (7/8) / 7 = 1/8, so A = (7/8) / sqrt(1/8)
    normalised = config(algorithm={"type": "grpo", "normalise_by_std": True}, rollout={"group_size": 8})
    assert highest_rareness(normalised) == pytest.approx(7 / 8 * math.sqrt(8))
    penalised = config(algorithm={"type": "dapo", "normalise_by_std": False, "overlong_buffer": 10})
    assert highest_rareness(penalised) == pytest.approx(2.1)  # right and short against wrong and overlong


def test_gradients_are_compared_over_all_parameters() -> None:
    # as one vector: (3, 0, 4, 0) and (0, 5, 0, 0): nothing in common
    apart = compare_gradients(
        [torch.tensor([[3.0, 0.0]]), torch.tensor([4.0, 0.0])], [torch.tensor([[0.0, 5.0]]), torch.zeros(2)]
    )
    assert apart == {"loss/policy_grad_norm": 5.0, "loss/guidance_grad_norm": 5.0, "loss/guidance_cosine": 0.0}
    # (3, 4) and (3, -4): norms 5, product 9 - 16 = -7, one of two elements opposed
    opposed = compare_gradients([torch.tensor([3.0]), torch.tensor([4.0])], [torch.tensor([3.0]), torch.tensor([-4.0])])
    assert opposed["loss/guidance_cosine"] == pytest.approx(-7 / 25)
    assert opposed["loss/guidance_opposing_share"] == 0.5


def test_gradients_in_parts_are_compared_as_wholes() -> None:
    """Two processes, each with a half of (3, 4) and (3, -4): every sum is taken over both before anything else."""
    sums: list[list[float]] = []

    def record(values: Sequence[float]) -> list[float]:
        sums.append([*values])
        return sums[-1]

    halves = [([torch.tensor([3.0])], [torch.tensor([3.0])]), ([torch.tensor([4.0])], [torch.tensor([-4.0])])]
    for half in halves:
        compare_gradients(*half, total=record)
    found = compare_gradients(*halves[0], total=lambda values: [sum(both) for both in zip(*sums, strict=True)])
    assert found["loss/policy_grad_norm"] == found["loss/guidance_grad_norm"] == 5.0
    assert found["loss/guidance_cosine"] == pytest.approx(-7 / 25)
    assert found["loss/guidance_opposing_share"] == 0.5


def test_a_gradient_of_zero_has_no_direction() -> None:
    found = compare_gradients([torch.tensor([1.0])], [torch.tensor([0.0])])
    assert found == {"loss/policy_grad_norm": 1.0, "loss/guidance_grad_norm": 0.0}


def test_solved_then_lost() -> None:
    prompts = SolvedPrompts()
    assert prompts.observe(["a", "b", "c"], [True, True, False]) == {}  # never met before
    # of a and b, solved when last met, b is lost; c was not solved, d is new
    assert prompts.observe(["a", "b", "c", "d"], [True, False, False, True]) == {"exploration/solved_then_lost": 0.5}
    assert prompts.observe(["b", "c"], [False, True]) == {}  # b was lost already: it counts once
    assert prompts.observe(["c"], [False]) == {"exploration/solved_then_lost": 1.0}


def test_solved_prompts_survive_json_and_are_bounded() -> None:
    prompts = SolvedPrompts(limit=2)
    prompts.observe(["a", "b"], [True, True])
    prompts.observe(["a", "c"], [True, True])  # a was met later than b, which is forgotten
    restored = SolvedPrompts(json.loads(json.dumps(prompts.state())), limit=2)
    assert restored.state() == ["a", "c"]
    assert copy.deepcopy(restored).observe(["b"], [False]) == {}
    assert restored.observe(["a", "c"], [False, True]) == {"exploration/solved_then_lost": 0.5}


def test_hardware_use_is_reported_by_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a core in 2 s; 3 of 8 bytes of the GPU in use."""
    monkeypatch.setattr(time, "monotonic", iter((10.0, 12.0)).__next__)
    monkeypatch.setattr(time, "process_time", iter((5.0, 6.0)).__next__)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 8))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 70)
    found = HardwareUse(torch.device("cuda"), ALONE).read()
    assert found.pop("perf/host_memory_bytes/0") > 2**20
    assert found == {
        "perf/memory_bytes": 2.0,
        "perf/cpu_cores/0": 0.5,
        "perf/gpu_memory_bytes/0": 3.0,
        "perf/gpu_utilisation/0": 70.0,
    }


def test_memory_is_this_process_at_its_peak() -> None:
    block = torch.ones(64 * 2**20 // 4)  # 64 MiB, touched
    held = memory_bytes(torch.device("cpu"))["perf/memory_bytes"]
    del block
    after = memory_bytes(torch.device("cpu"))["perf/memory_bytes"]
    assert after > held - 2**20  # the kernel counts a few pages late
    assert 64 * 2**20 < held < 64 * 2**30
