"""Log-probabilities of a step's rows, in micro-batches that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models import packing
from calibrl_core.models.logprobs import TokenLogprobs
from calibrl_core.models.policy import Policy
from calibrl_core.step.mini_batches import UpdateRows

IDLE = Example(id="", question="?", answer="")  # without an image: the vision tower gets no gradient from it


class PassLimits(Protocol):
    """Limits of a forward pass, such as those of a training run."""

    @property
    def micro_batch_tokens(self) -> int:
        """Maximum tokens: prompts, completions, padding."""

    @property
    def micro_batch_rows(self) -> int | None:
        """Maximum rows. None: no limit."""


def micro_batches(
    policy: Policy, examples: Sequence[Example], owners: Sequence[int], lengths: Sequence[int], config: PassLimits
) -> list[Tensor]:
    """Divide completions into micro-batches, each within `micro_batch_tokens` and `micro_batch_rows`.

    Args:
        owners: the example of each of N completions, an index into `examples`.
        lengths: tokens of each completion.

    Returns:
        Positions in `owners` by micro-batch.
    """
    prompt_lengths = policy.prompt_lengths([examples[owner] for owner in owners])
    parts = packing.micro_batches(
        owners,
        lengths,
        prompt_lengths,
        config.micro_batch_tokens,
        config.micro_batch_rows,
        shared=policy.shares_prompts,
    )
    return [torch.tensor(part) for part in parts]


def row_logprobs(
    policy: Policy,
    examples: Sequence[Example],
    rows: UpdateRows,
    index: Tensor,
    temperature: float,
    *,
    with_entropy: bool = False,
) -> TokenLogprobs:
    """Return log-probabilities of the rows `index` (`[B]` long), cut to the longest of them: `[B, T]`."""
    mask = rows.mask[index]
    mask = mask[:, : int(mask.sum(-1).max())]
    tokens = rows.tokens[index, : mask.shape[1]]
    owners = rows.prompts[index].tolist()
    return policy.token_logprobs(examples, owners, tokens, mask, temperature, with_entropy=with_entropy)


@contextmanager
def padded_to_equal_passes(policy: Policy, ranks: Ranks, passes: int) -> Iterator[None]:
    """Wrap the `passes` forward and backward passes of an update; with sharded weights, add passes with zero loss.

    FSDP needs every process to run the same number of passes, so this process runs as many as the busiest one.
    """
    if not policy.weights.sharded:
        yield
        return
    (largest,) = ranks.max_over([passes])
    yield
    token = torch.tensor([[policy.tokenizer.eos_token_id]], device=policy.device)
    for _ in range(int(largest) - passes):
        (0 * policy.logprobs([IDLE], [0], token, torch.ones_like(token).bool(), temperature=1.0)).sum().backward()


@torch.no_grad()
def logprobs_in_parts(
    policy: Policy,
    examples: Sequence[Example],
    owners: Sequence[int],
    tokens: Tensor,
    mask: Tensor,
    config: PassLimits,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies of completions, each `[R, T]` float (nats, 0 where masked), no gradient.

    Args:
        owners: the example of each row, an index into `examples`.
        tokens, mask: the completions, `[R, T]` long and bool.
        config: limits of a micro-batch.
    """
    logprobs = torch.zeros(tokens.shape, dtype=policy.model.dtype, device=tokens.device)
    entropies = torch.zeros_like(logprobs)
    for part in micro_batches(policy, examples, owners, mask.sum(-1).tolist(), config):
        width = int(mask[part].sum(-1).max())
        own = [owners[row] for row in part.tolist()]
        output = policy.token_logprobs(
            examples, own, tokens[part, :width], mask[part, :width], temperature, with_entropy=True
        )
        assert output.entropies is not None
        logprobs[part, :width], entropies[part, :width] = output.logprobs, output.entropies
    return logprobs, entropies
