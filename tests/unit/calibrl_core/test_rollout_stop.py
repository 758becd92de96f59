"""Strings that end a completion."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.rollout.stop_strings import StopStrings
from calibrl_core.settings.sampling import SamplingSettings

WIDTH = 16


@pytest.fixture
def request_of() -> Any:
    def make(**sampling: Any) -> Any:
        return SamplingRequest(
            group_size=4, temperature=1.0, max_tokens=WIDTH, seed=[3], sampling=SamplingSettings(**sampling)
        )

    return make


@pytest.fixture
def plain(policy: Policy, examples: Any, request_of: Any) -> Any:
    return SharedPrefillEngine(policy).generate(examples[:2], request_of())


def text(policy: Policy, tokens: Any) -> str:
    return str(policy.tokenizer.decode(tokens, skip_special_tokens=False))


def test_a_string_across_tokens_is_found_at_its_last(policy: Policy) -> None:
    tokens = policy.tokenizer("é so 12</answer> more", add_special_tokens=False).input_ids
    strings = StopStrings(policy.tokenizer, ["</answer>"])
    found = [strings.end([tokens[: end + 1]])[0] for end in range(len(tokens))]
    first = found.index(True)
    assert "</answer>" in text(policy, tokens[: first + 1])
    assert "</answer>" not in text(policy, tokens[:first])
    assert not StopStrings(policy.tokenizer, ["nowhere"]).end([tokens])[0]
    assert StopStrings(policy.tokenizer, ["nowhere", "so"]).end([tokens])[0]


def test_a_completion_ends_with_the_token_that_completes_it(
    policy: Policy, examples: Any, plain: Any, request_of: Any
) -> None:
    """The same numbers draw the same tokens, up to the one that completes the string."""
    words = [row[mask].tolist() for row, mask in zip(plain.tokens, plain.mask, strict=True)]
    string = text(policy, words[0][4:6])  # two tokens of the first completion
    rollouts = SharedPrefillEngine(policy).generate(examples[:2], request_of(stop=[string]))
    cut = 0
    for row, whole in enumerate(words):
        end = next((end for end in range(1, len(whole) + 1) if string in text(policy, whole[:end])), None)
        kept = rollouts.tokens[row][rollouts.mask[row]].tolist()
        assert kept == whole[:end]
        assert bool(rollouts.truncated[row]) == (bool(plain.truncated[row]) and end is None)
        if end is not None:
            cut += 1
            assert rollouts.texts[row] == text(policy, kept)
            assert string in rollouts.texts[row]
    assert cut >= 1
    width = rollouts.mask.shape[1]
    torch.testing.assert_close(rollouts.logprobs, plain.logprobs[:, :width] * rollouts.mask)


def test_an_empty_list_stops_nothing() -> None:
    strings = StopStrings(SimpleNamespace(batch_decode=lambda rows, **_: [""] * len(rows)), ())
    assert not strings
    assert strings.end([[1], [2]]) == [False, False]
