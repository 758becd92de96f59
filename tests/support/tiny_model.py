"""Fixtures of the tiny model, made once per session. A conftest that needs them imports them."""

from collections.abc import Callable
from typing import Any

import pytest

from calibrl_core import data
from calibrl_core.config import BuiltinModel, Precision
from calibrl_core.data.schema import BuiltinData, Example
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine


@pytest.fixture(scope="session")
def policy() -> Policy:
    """A fresh tiny model; tests must leave its weights as they are."""
    return load_policy(BuiltinModel(builtin="tiny-vlm"))


@pytest.fixture(scope="session")
def engine(policy: Policy) -> SharedPrefillEngine:
    return SharedPrefillEngine(policy)


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    return data.load(BuiltinData(builtin="digits", split="validation", rows=6))


@pytest.fixture(scope="session")
def text_policy(policy: Policy) -> Callable[..., Any]:
    """Makes a tiny text model with random weights: config class of transformers, and what differs from a tiny Llama's
    usual sizes. Its tokenizer brings no chat template and no padding token."""
    import copy

    import torch
    from transformers import AutoModelForCausalLM

    def make(config_class: type[Any], precision: Precision = "auto", **changed: Any) -> Policy:
        tokenizer = copy.deepcopy(policy.tokenizer)
        tokenizer.pad_token = None
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        settings = {
            **sizes,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "initializer_range": 0.2,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": None,
            **changed,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config_class(**settings))
        return Policy(model, tokenizer, torch.device("cpu"), precision)

    return make
