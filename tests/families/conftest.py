"""The tiny model's tokenizer, rewards that vary, and the table of all families."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from calibrl_core.verifiers.scorer import Scorer
from tests.families import table
from tests.families.run import Result, write_rows
from tests.support.tiny_model import policy, text_policy
from tests.support.training import score_by_hash

__all__ = ["policy", "text_policy"]


@pytest.fixture(autouse=True)
def rewarding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hash of each completion decide: a fresh model is never right, so that nothing could be learned."""
    monkeypatch.setattr(Scorer, "grade", score_by_hash)


@pytest.fixture(scope="session")
def rows_with_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("images"), with_images=True)


@pytest.fixture(scope="session")
def rows_of_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("texts"), with_images=False)


@pytest.fixture(scope="session")
def results() -> Iterator[dict[str, Result]]:
    """Collect the rows of the table by family. The page is written if all families ran and torchvision is installed."""
    found: dict[str, Result] = {}
    yield found
    table.write(found)
