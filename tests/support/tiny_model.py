"""Fixtures of the tiny model, made once per session. A conftest that needs them imports them."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from calibrl_core import data
from calibrl_core.config import BuiltinModel
from calibrl_core.data.schema import BuiltinData, Example
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from tests.support.tiny_text import tiny_text_policy


@pytest.fixture(scope="session")
def policy() -> Policy:
    """A fresh tiny model; tests must leave its weights as they are."""
    return load_policy(BuiltinModel(builtin="tiny-vlm"))


@pytest.fixture(scope="session")
def engine(policy: Policy) -> SharedPrefillEngine:
    return SharedPrefillEngine(policy)


@pytest.fixture(scope="session")
def examples() -> Sequence[Example]:
    return data.load(BuiltinData(builtin="digits", split="validation", rows=6))


@pytest.fixture(scope="session")
def text_examples(examples: Sequence[Example]) -> Any:
    """Without images, of different lengths."""
    longer = "What is 3 + 4? Think about it, and take your time."
    return [dataclasses.replace(examples[0], images=(), question=text) for text in (longer, "2 + 2?", "And 9?")]


@pytest.fixture(scope="session")
def text_policy(policy: Policy) -> Callable[..., Any]:
    """Makes a tiny text model: see `tiny_text_policy`."""
    return partial(tiny_text_policy, policy.tokenizer)
