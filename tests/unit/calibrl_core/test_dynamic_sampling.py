"""Dynamic sampling: groups with equal rewards are replaced, by correctness; groups without a replacement stay."""

import dataclasses
from typing import Any

import torch

from calibrl_core.algorithms import DAPO
from calibrl_core.data.schema import Example
from calibrl_core.rollout.base import Rollouts
from calibrl_core.step.dynamic_sampling import ScoredRollouts, replace_groups
from calibrl_core.verifiers.scorer import Score


def sampled(*outcomes: Any, width: int = 2) -> Any:
    """Prompts named by their outcomes, such as "10" for a right and a wrong rollout."""
    rows = len(outcomes) * 2
    tokens = torch.full((rows, width), width)
    floats = torch.zeros((rows, width))
    return ScoredRollouts(
        examples=[Example(id=outcome, question="q", answer="1") for outcome in outcomes],
        rollouts=Rollouts(
            tokens=tokens,
            mask=tokens > 0,
            logprobs=floats,
            sampler_logprobs=floats,
            entropies=floats,
            truncated=torch.zeros(rows, dtype=torch.bool),
            texts=[f"{outcome}{mark}" for outcome in outcomes for mark in outcome],
            group_size=2,
        ),
        # The reward always differs within a group: a format term, say. It must have no say.
        scores=[
            Score({}, 0.1 * place, mark == "1", False) for outcome in outcomes for place, mark in enumerate(outcome)
        ],
    )


def mixed(groups: Any) -> Any:
    return DAPO().keeps_groups(groups.passed, torch.zeros(groups.passed.shape))


def every(groups: Any) -> Any:
    return groups.complete({"judge"})


def names(found: Any) -> Any:
    return [example.id for example in found.examples]


def test_groups_with_equal_rewards_are_replaced() -> None:
    asked = []

    def draw(attempt: Any, count: int) -> Any:
        asked.append((attempt, count))
        return sampled("01", "11", width=5) if attempt == 1 else sampled("10", width=1)

    found = replace_groups(sampled("10", "11", "00"), mixed, draw, attempts=9, complete=every)
    assert names(found) == ["10", "01", "10"]
    # 2 missing at 1 of 3 accepted: 6, at most 3; then 1 missing at 2 of 5: 2.5, so 3
    assert asked == [(1, 3), (2, 3)]
    assert found.rollouts.texts == ["101", "100", "010", "011", "101", "100"]
    assert found.rollouts.tokens.shape == (6, 5)
    assert found.rollouts.mask.sum(-1).tolist() == [2, 2, 5, 5, 1, 1]
    assert [score.passed for score in found.scores] == [True, False, False, True, True, False]


def test_groups_without_a_replacement_stay_in_order() -> None:
    asked = []

    def draw(attempt: Any, count: int) -> Any:
        asked.append((attempt, count))
        return sampled("00", "11")

    found = replace_groups(sampled("11", "10", "00"), mixed, draw, attempts=2, complete=every)
    assert names(found) == ["10", "11", "00"]
    assert asked == [(1, 3), (2, 3)]


def test_a_draw_asks_by_the_share_accepted_so_far_and_keeps_all() -> None:
    asked = []

    def draw(attempt: Any, count: int) -> Any:
        asked.append(count)
        return sampled("01", "10", "01")

    found = replace_groups(sampled("10", "11", "10", "10", "00", "01"), mixed, draw, attempts=9, complete=every)
    assert asked == [3]  # 2 missing at 4 of 6 accepted
    assert names(found) == ["10", "10", "10", "01", "01", "10", "01"]  # one more than the step needs


def test_a_first_draw_without_a_kept_group_asks_for_a_whole_step() -> None:
    asked = []

    def draw(attempt: Any, count: int) -> Any:
        asked.append(count)  # the data has no other prompt

    found = replace_groups(sampled("11", "00"), mixed, draw, attempts=9, complete=every)
    assert (names(found), asked) == (["11", "00"], [2])


def test_a_full_batch_draws_nothing() -> None:
    def draw(attempt: int, count: int) -> Any:
        raise AssertionError("no group is replaced")

    batch = sampled("10", "01")
    found = replace_groups(batch, mixed, draw, attempts=3, complete=every)
    assert names(found) == ["10", "01"]
    assert dataclasses.asdict(found.scores[0]) == dataclasses.asdict(batch.scores[0])


def without_verdict(groups: Any, row: int) -> Any:
    scores = list(groups.scores)
    scores[row] = dataclasses.replace(scores[row], failure="judge: no answer", failed=("judge",))
    return dataclasses.replace(groups, scores=scores)


def test_groups_that_lack_a_needed_verdict_are_neither_kept_nor_fill_up() -> None:
    def none(attempt: Any, count: int) -> Any:
        return None

    first = without_verdict(without_verdict(sampled("10", "01", "11", "00"), 2), 5)  # of the second and the third
    assert every(first).tolist() == [True, False, False, True]
    assert first.complete({"math"}).tolist() == [True] * 4
    assert names(replace_groups(first, mixed, none, attempts=1, complete=every)) == ["10", "00"]
    assert names(replace_groups(first, every, none, attempts=0, complete=every)) == ["10", "00"]
