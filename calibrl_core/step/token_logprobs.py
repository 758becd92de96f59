"""Log-probabilities of a step's rows, in micro-batches that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from calibrl_core.config import TrainSettings
from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models import packing
from calibrl_core.models.logprobs import TokenScores
from calibrl_core.models.policy import Policy
from calibrl_core.step.mini_batches import UpdateRows

IDLE = Example(id="", question="?", answer="")  # without an image: the vision tower gets no gradient from it


def micro_batches(
    policy: Policy, examples: Sequence[Example], owners: Sequence[int], lengths: Sequence[int], config: TrainSettings
) -> list[Tensor]:
    """Positions in `owners` (each a completion's prompt) by micro-batch, every one within micro_batch_tokens."""
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


def score_rows(
    policy: Policy,
    examples: Sequence[Example],
    rows: UpdateRows,
    of: Tensor,
    temperature: float,
    *,
    with_entropy: bool = False,
) -> TokenScores:
    """The rows `of` (`[B]`), cut to the longest of them: `[B, T]`."""
    mask = rows.mask[of]
    mask = mask[:, : int(mask.sum(-1).max())]
    tokens = rows.tokens[of, : mask.shape[1]]
    owners = rows.prompts[of].tolist()
    return policy.evaluate_tokens(examples, owners, tokens, mask, temperature, with_entropy=with_entropy)


@contextmanager
def in_step(policy: Policy, ranks: Ranks, passes: int) -> Iterator[None]:
    """Around the `passes` forward and backward passes of an update: where weights are sharded, it has this process run
    as many more as another one runs. They weigh nothing, but a layer's weights and gradients come together only if all
    take part."""
    if not policy.weights.sharded:
        yield
        return
    (most,) = ranks.most([passes])
    yield
    token = torch.tensor([[policy.tokenizer.eos_token_id]], device=policy.device)
    for _ in range(int(most) - passes):
        (0 * policy.logprobs([IDLE], [0], token, torch.ones_like(token).bool(), temperature=1.0)).sum().backward()


@torch.no_grad()
def score_in_parts(
    policy: Policy,
    examples: Sequence[Example],
    owners: Sequence[int],
    tokens: Tensor,
    mask: Tensor,
    config: TrainSettings,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies `[R, T]` (nats, 0 where masked) of completions, without a gradient."""
    logprobs = torch.zeros(tokens.shape, dtype=policy.model.dtype, device=tokens.device)
    entropies = torch.zeros_like(logprobs)
    for part in micro_batches(policy, examples, owners, mask.sum(-1).tolist(), config):
        width = int(mask[part].sum(-1).max())
        some = [owners[row] for row in part.tolist()]
        scores = policy.evaluate_tokens(
            examples, some, tokens[part, :width], mask[part, :width], config.rollout.temperature, with_entropy=True
        )
        assert scores.entropies is not None
        logprobs[part, :width], entropies[part, :width] = scores.logprobs, scores.entropies
    return logprobs, entropies
