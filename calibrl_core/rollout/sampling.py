"""What any rollout engine needs: random numbers by row, drawing tokens, and batches that fit in memory.

`R`: rows. `V`: vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from calibrl_core.models.logprobs import sampler_logits

BLOCK = 64  # uniform numbers drawn at once for a row
# Logits looked at together: what a CPU's cache holds, or enough to keep a GPU busy.
DRAW_ELEMENTS = {"cpu": 2**19, "cuda": 2**26}


class Uniforms:
    """Numbers in [0, 1), one a token, that depend on the seed, the row's number and the token's place alone.

    Drawn as they are needed, from a generator a row (Philox, which counts: no two streams meet), since those of 4800
    rows of 4096 tokens would fill 157 MB.
    """

    def __init__(self, seed: Sequence[int], rows: Sequence[int]) -> None:
        key = int(np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)[0])
        self._generators = [np.random.Generator(np.random.Philox(key=[key, row])) for row in rows]

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows only, given by their places among those so far."""
        self._generators = [self._generators[place] for place in places]

    def block(self, size: int = BLOCK) -> Tensor:
        """The next `size` numbers of each row. `[size, R]` float64."""
        return torch.from_numpy(np.stack([generator.random(size) for generator in self._generators], axis=1))


def draw(logits: Tensor, temperature: float, banned: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A token for each row of logits `[R, V]`, its log-probability, and the entropy of the distribution that it was
    drawn from (nats), `[R]` each. Temperature 0 takes the likeliest token, of the distribution at temperature 1.

    The token is where the cumulative distribution passes the row's number of `uniforms` `[R]` float64. It is summed up
    in float64, so that the last of 150,000 tokens is not lost to rounding; what has probability 0 can't be chosen.
    """
    size = max(1, DRAW_ELEMENTS[logits.device.type] // logits.shape[1])
    parts = []
    for some, aims in zip(logits.split(size), uniforms.split(size), strict=True):
        logs = sampler_logits(some, temperature or 1.0, banned).log_softmax(-1)
        probabilities = logs.exp()
        chosen = logs.argmax(-1) if temperature == 0 else _invert(probabilities, aims)
        logprobs = logs.gather(-1, chosen[:, None]).squeeze(-1)
        logs.clamp_(min=torch.finfo(logs.dtype).min)  # times a probability of 0 it is 0, not NaN
        parts.append((chosen, logprobs, -probabilities.mul_(logs).sum(-1)))
    chosen, logprobs, entropies = (torch.cat(column) for column in zip(*parts, strict=True))
    return chosen, logprobs, entropies


def _invert(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    aims = (uniforms * cumulative[:, -1])[:, None]
    chosen = torch.searchsorted(cumulative, aims, right=True).squeeze(-1)
    return chosen.where(chosen < probabilities.shape[-1], probabilities.argmax(-1))  # the product rounded up


def batches(
    prompt_lengths: Sequence[int], group_size: int, max_tokens: int, budget_tokens: int
) -> list[tuple[list[int], int]]:
    """Prompts in batches, each with how many rows of a group run at once: all of them, unless a single group is too
    large. Rows x (longest prompt + max_tokens) stays within the budget, down to one row. Prompts of a length come
    together, since all are padded to the longest."""
    order = sorted(range(len(prompt_lengths)), key=lambda prompt: -prompt_lengths[prompt])
    found: list[tuple[list[int], int]] = []
    room = 0  # prompts that the last batch still has room for
    for prompt in order:
        if room == 0:
            rows = max(1, budget_tokens // (prompt_lengths[prompt] + max_tokens))
            found.append(([], min(rows, group_size)))
            room = max(1, rows // group_size)
        found[-1][0].append(prompt)
        room -= 1
    return found
