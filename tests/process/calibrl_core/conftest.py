"""The tiny model, made once, as in the unit tests; and a package of verifiers."""

from pathlib import Path

import pytest

from tests.support.metric_names import registered_metrics
from tests.support.tiny_model import engine, examples, policy, text_examples, text_policy
from tests.support.verifier_package import install

__all__ = ["engine", "examples", "policy", "registered_metrics", "text_examples", "text_policy"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder into which the package of verifiers is installed for this test."""
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"
