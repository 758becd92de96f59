"""Every arm takes a few cheap steps; what they measured means nothing."""

from dataclasses import replace

import pytest
import torch
from rich.console import Console

pytest.importorskip("trl", reason="needs the extra `bench`")

from bench import trainer
from bench.cases import CASES
from bench.utilisation import copy_rate, matmul_rate

CHEAP = replace(CASES["tiny"], prompts=2, group_size=2, tokens=3)


def test_all_arms_do_the_same_work_in_turn() -> None:
    """`measure` itself refuses prompts of other tokens and other numbers of generated tokens."""
    rows = trainer.measure(CHEAP, 1, 0, Console(quiet=True))
    assert [row.goal for row in rows] == ["peer / ours >= 1.5", "ours / peer <= 1.1", None]
    assert all(row.ours > 0 and row.peer > 0 for row in rows)


def test_the_limits_are_measured() -> None:
    device = torch.device("cpu")
    assert matmul_rate(device, torch.float32) > 1e9
    assert copy_rate(device) > 1e8
