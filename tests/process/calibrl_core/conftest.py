"""The tiny model, made once: the fixtures of the unit tests."""

from tests.unit.calibrl_core.conftest import engine, examples, policy, text_policy

__all__ = ["engine", "examples", "policy", "text_policy"]
