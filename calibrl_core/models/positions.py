"""Compares the longest rows of a run with the positions of its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from calibrl_core.data.schema import Example
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy

_MEASURED = 100  # prompts whose lengths a warning is based on: measuring can encode their images
_OFFSET = 2  # first row that OPT and BioGPT use


def check_positions(
    policy: Policy,
    field: str,
    examples: Sequence[Example],
    max_completion_tokens: int,
    setting: str = "rollout.max_completion_tokens",
) -> str | None:
    """Return a warning if a prompt with the longest possible completion exceeds the positions that the model was
    trained for, else None. `field`: where the examples come from; `setting`: the field of `max_completion_tokens`.

    Raises:
        ModelError: it does, and the model has no other positions: they are rows of a table (GPT-2, OPT, GPT-J).
    """
    positions = position_limit(policy)
    if positions is None:
        return None
    ends = _has_table(policy.model, positions)
    longest = max(policy.prompt_lengths(examples if ends else examples[:_MEASURED]), default=0)
    if longest + max_completion_tokens <= positions:
        return None
    message = (
        f"{field}: a prompt of {longest} tokens with a completion of up to {max_completion_tokens} exceeds the "
        f"{positions} positions of the model (max_position_embeddings)"
    )
    advice = f"lower {setting}, or leave long prompts out"
    if ends:
        raise ModelError(f"{message}, and the model computes none beyond them; {advice}")
    return f"{message}, beyond which it was not trained; {advice}"


def position_limit(policy: Policy) -> int | None:
    """Return the number of positions that the model was trained for. None: unknown, or without a limit."""
    positions = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
    return positions if isinstance(positions, int) else None


def _has_table(model: Any, positions: int) -> bool:
    """Return if the language model looks its positions up in a table, learned or computed once."""
    decoder, tokens = model.get_decoder(), model.get_input_embeddings()
    learned = (
        isinstance(module, nn.Embedding)
        and module is not tokens
        and module.num_embeddings in (positions, positions + _OFFSET)
        for module in decoder.modules()
    )
    computed = (
        "pos" in name and buffer.ndim == 2 and len(buffer) == positions for name, buffer in decoder.named_buffers()
    )
    return any(learned) or any(computed)
