"""The peaks of both paths of the memory benchmark, each in its own process."""

import pytest
from rich.console import Console

from bench import memory

SMALL = memory.Size(vocabulary=20_000, tokens=64)  # logits of all tokens: 41 MB


@pytest.mark.slow
def test_the_plain_path_holds_all_logits_and_more() -> None:
    """Logits, their softmax and its gradient: at the peak at least two of them, each the size of all logits."""
    peak, _ = memory.measure(SMALL, Console(quiet=True))
    logits = 4 * memory.ROWS * SMALL.tokens * SMALL.vocabulary / 1e9
    assert peak.peer > 2 * logits
    assert 0 < peak.ours < peak.peer
