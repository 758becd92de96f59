"""Assignment of rows to packs and micro-batches, and the tokens of a pack."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PretrainedConfig

from calibrl_core.models import packing
from calibrl_core.models.attention import pack_mask_for
from calibrl_core.models.encoding import PromptRows
from calibrl_core.models.packing import micro_batches, pack_inputs, pack_rows


def shape(packs: Any) -> Any:
    return [(pack.prompt, pack.rows, pack.tokens) for pack in packs]


def test_neighbours_of_one_prompt_share_a_pack() -> None:
    assert shape(pack_rows([0, 0, 1, 0], [3, 2, 5, 1], [10, 10, 7, 10])) == [
        (0, [0, 1], 15),
        (1, [2], 12),
        (0, [3], 11),
    ]
    assert [pack.rows for pack in pack_rows([0, 0], [3, 2], [10, 10], shared=False)] == [[0], [1]]


def test_a_pack_ends_where_it_would_waste_more_than_it_saves() -> None:
    # 1,000 tokens behind 2,000 others are 2,000,000 masked pairs: too many for a prompt of 600 tokens, fine for 700.
    lengths = [1000, 1000, 1000]
    assert [pack.rows for pack in pack_rows([0] * 3, lengths, [600] * 3)] == [[0, 1], [2]]
    assert [pack.rows for pack in pack_rows([0] * 3, lengths, [700] * 3)] == [[0, 1, 2]]


def test_a_pack_keeps_within_the_masks_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PACK_TOKENS", 20)
    assert [pack.rows for pack in pack_rows([0] * 4, [4, 4, 4, 4], [10] * 4)] == [[0, 1], [2, 3]]
    assert [pack.rows for pack in pack_rows([0, 0], [30, 1], [10, 10])] == [[0], [1]]


def test_micro_batches_by_hand() -> None:
    # Packs: prompt 0 (10 + 2 + 2 = 14), prompt 1 (10 + 9 = 19), prompt 2 (10 + 3 = 13).
    rows = ([0, 0, 1, 2], [2, 2, 9, 3], [10] * 4)
    assert micro_batches(*rows, 1000) == [[2, 0, 1, 3]]  # largest first
    assert micro_batches(*rows, 57) == [[2, 0, 1, 3]]  # 3 x 19
    assert micro_batches(*rows, 56) == [[2, 0, 1], [3]]
    assert micro_batches(*rows, 1000, max_rows=2) == [[2], [0, 1], [3]]
    assert micro_batches(*rows, 1000, max_rows=1) == [[2], [3], [0], [1]]
    assert micro_batches(*rows, 1) == [[2], [3], [0], [1]]  # too long for the budget: alone


@pytest.mark.parametrize("seed", range(8))
def test_micro_batches_keep_every_row_and_the_budget(seed: int) -> None:
    draw = np.random.default_rng(seed)
    owners = sorted(draw.integers(0, 9, 40).tolist())
    lengths = draw.integers(0, 60, 40).tolist()
    prompt_lengths = [10 + 7 * owner for owner in owners]
    budget, most = int(draw.integers(100, 600)), [None, 5][seed % 2]
    parts = micro_batches(owners, lengths, prompt_lengths, budget, most)
    assert sorted(itertools.chain(*parts)) == list(range(40))
    for part in parts:
        of = ([owners[row] for row in part], [lengths[row] for row in part], [prompt_lengths[row] for row in part])
        packs = pack_rows(*of)  # as the forward pass will
        assert len(part) == 1 or len(packs) * max(pack.tokens for pack in packs) <= budget
        assert most is None or len(part) <= most


def prompts_of(tokens: Tensor, lengths: list[int]) -> PromptRows:
    width = max(lengths)
    mask = torch.tensor([[0] * (width - length) + [1] * length for length in lengths])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return PromptRows(tokens, mask, positions, positions.amax(-1) + 1, {}, {})


PROMPTS = prompts_of(torch.tensor([[0, 11, 12], [21, 22, 23]]), [2, 3])
COMPLETIONS = torch.tensor([[31, 32], [41, 0], [51, 52]])


def test_a_pack_token_by_token() -> None:
    packs = pack_rows([0, 0, 1], [2, 1, 2], [2, 2, 3])
    inputs = pack_inputs(packs, PROMPTS, COMPLETIONS, [2, 1, 2], pad_id=9)
    assert inputs.input_ids.tolist() == [[11, 12, 31, 32, 41], [21, 22, 23, 51, 52]]
    assert inputs.position_ids.tolist() == [[0, 1, 2, 3, 2], [0, 1, 2, 3, 4]]
    assert inputs.predictors.tolist() == [1, 2, 1, 5 + 2, 5 + 3]
    assert inputs.segments is not None
    config = PretrainedConfig()
    config._attn_implementation = "sdpa"
    mask = pack_mask_for(config, inputs.segments)
    assert isinstance(mask, Tensor)
    seen = mask[:, 0].int().tolist()
    assert seen[0] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert seen[1] == torch.ones(5, 5).tril().int().tolist()


def test_lone_completions_need_no_mask() -> None:
    packs = pack_rows([0, 1, 1], [2, 0, 2], [2, 3, 3], shared=False)
    inputs = pack_inputs(packs, PROMPTS, COMPLETIONS, [2, 0, 2], pad_id=9)
    assert inputs.segments is None
    assert inputs.input_ids.tolist() == [[11, 12, 31, 32, 9], [21, 22, 23, 9, 9], [21, 22, 23, 51, 52]]
    assert inputs.position_ids.tolist() == [[0, 1, 2, 3, 4]] * 3  # through the padding, which has no effect
    assert inputs.predictors.tolist() == [1, 2, 10 + 2, 10 + 3]


def test_positions_with_three_axes_continue_those_of_the_prompt() -> None:
    """With an image of 2 x 2 patches the completion begins after the largest position, on all axes."""
    positions = torch.tensor([[[0, 0, 1, 1, 1, 1, 3]], [[0, 0, 1, 1, 2, 2, 3]], [[0, 0, 1, 2, 1, 2, 3]]])
    prompt = PromptRows(torch.arange(7)[None], torch.ones(1, 7).long(), positions, torch.tensor([4]), {}, {})
    packs = pack_rows([0, 0], [2, 1], [7, 7])
    inputs = pack_inputs(packs, prompt, COMPLETIONS[:2], [2, 1], pad_id=9)
    assert inputs.position_ids[:, 0].tolist() == [[*axis, 4, 5, 4] for axis in positions[:, 0].tolist()]
