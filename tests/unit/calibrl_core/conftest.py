"""The tiny model, made once for all tests of the trainer, and a list that stands in for whoever reads the reports."""

import pytest

from calibrl_core import data
from calibrl_core.config import BuiltinModel
from calibrl_core.data.schema import BuiltinData
from calibrl_core.models.policy import load_policy
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine


@pytest.fixture(scope="session")
def policy():
    """A fresh tiny model; tests must leave its weights as they are."""
    return load_policy(BuiltinModel(builtin="tiny-vlm"))


@pytest.fixture(scope="session")
def engine(policy):
    return SharedPrefillEngine(policy)


@pytest.fixture(scope="session")
def examples():
    return data.load(BuiltinData(builtin="digits", split="validation", rows=6))
