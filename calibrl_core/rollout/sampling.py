"""Sampling shared by the rollout engines: random numbers per row, token draws, and batches that fit in memory.

`R`: rows. `V`: vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from calibrl_core.models.logprobs import sampler_logits

BLOCK = 64  # uniform numbers generated at a time per row
# Logits processed at a time: the size of a CPU's cache, or enough to keep a GPU busy.
DRAW_ELEMENTS = {"cpu": 2**19, "cuda": 2**26}


class Uniforms:
    """Random numbers in [0, 1), one per token. Each depends only on the seed, the row number and the token's position.

    Generated on demand, by one generator per row (Philox is counter-based: streams never overlap). All numbers of
    4800 rows of 4096 tokens would take 157 MB.
    """

    def __init__(self, seed: Sequence[int], rows: Sequence[int]) -> None:
        key = int(np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)[0])
        self._generators = [np.random.Generator(np.random.Philox(key=[key, row])) for row in rows]

    def keep(self, places: Sequence[int]) -> None:
        """Continue with these rows only, given by their positions among the current rows."""
        self._generators = [self._generators[place] for place in places]

    def block(self, size: int = BLOCK) -> Tensor:
        """Return the next `size` numbers of each row, `[size, R]` float64."""
        return torch.from_numpy(np.stack([generator.random(size) for generator in self._generators], axis=1))


def draw(logits: Tensor, temperature: float, banned: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a token for each row of logits `[R, V]`.

    Return the tokens, their log-probabilities and the entropies of the sampled distribution (nats), `[R]` each.
    Temperature 0 takes the most likely token; log-probability and entropy are then those at temperature 1.

    The token is the position where the cumulative distribution exceeds the row's value of `uniforms` `[R]` float64.
    The sum is float64, so that the last of 150,000 tokens is not lost to rounding. A token of probability 0 is never
    drawn.
    """
    size = max(1, DRAW_ELEMENTS[logits.device.type] // logits.shape[1])
    parts = []
    for rows, targets in zip(logits.split(size), uniforms.split(size), strict=True):
        logs = sampler_logits(rows, temperature or 1.0, banned).log_softmax(-1)
        probabilities = logs.exp()
        chosen = logs.argmax(-1) if temperature == 0 else _invert(probabilities, targets)
        logprobs = logs.gather(-1, chosen[:, None]).squeeze(-1)
        logs.clamp_(min=torch.finfo(logs.dtype).min)  # 0 x this is 0; 0 x -inf would be NaN
        parts.append((chosen, logprobs, -probabilities.mul_(logs).sum(-1)))
    chosen, logprobs, entropies = (torch.cat(column) for column in zip(*parts, strict=True))
    return chosen, logprobs, entropies


def _invert(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    targets = (uniforms * cumulative[:, -1])[:, None]
    chosen = torch.searchsorted(cumulative, targets, right=True).squeeze(-1)
    return chosen.where(chosen < probabilities.shape[-1], probabilities.argmax(-1))  # rounding can exceed the sum


def batches(
    prompt_lengths: Sequence[int], group_size: int, max_tokens: int, budget_tokens: int
) -> list[tuple[list[int], int]]:
    """Return batches of prompts, each with the number of a group's rows that run at the same time.

    All rows of a group run together unless a single group is too large. Rows x (longest prompt + max_tokens) stays
    within the budget, down to one row. Prompts of similar length share a batch, since all are padded to the longest.
    """
    order = sorted(range(len(prompt_lengths)), key=lambda prompt: -prompt_lengths[prompt])
    result: list[tuple[list[int], int]] = []
    room = 0  # free places in the last batch, in prompts
    for prompt in order:
        if room == 0:
            rows = max(1, budget_tokens // (prompt_lengths[prompt] + max_tokens))
            result.append(([], min(rows, group_size)))
            room = max(1, rows // group_size)
        result[-1][0].append(prompt)
        room -= 1
    return result
