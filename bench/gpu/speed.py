"""Formulas of utilisation: floating-point operations of an update, and the bandwidth limit of decoding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parameters:
    """Number of parameters by the tokens that use them. Input embeddings are only looked up and do not count."""

    layers: int  # of the language model: all tokens
    head: int  # completion tokens
    vision: int  # patches of images


@dataclass(frozen=True)
class Work:
    """Tokens of a step. A prompt counts once per group, because its completions share it in the update."""

    prompt_tokens: int
    completion_tokens: int
    patches: int


def update_flops(parameters: Parameters, work: Work, *, lora: bool) -> float:
    """Return the floating-point operations that an update needs.

    6 per parameter and token: 2 in the forward pass, 4 in the backward pass, half of these for the gradient of the
    weights (arXiv 2204.02311, appendix B; model FLOPs, so nothing is added for activations that are computed again).
    With LoRA, the gradient of frozen weights is not needed: 4. The vision tower then needs no backward pass: 2.
    Attention over earlier tokens is left out, which makes the utilisation smaller than it is.
    """
    tokens = work.prompt_tokens + work.completion_tokens
    language = parameters.layers * tokens + parameters.head * work.completion_tokens
    vision = parameters.vision * work.patches
    return float(4 * language + 2 * vision if lora else 6 * (language + vision))


def utilisation(flops: float, seconds: float, peak: float) -> float:
    """Return the model FLOPs utilisation: `flops` in `seconds`, as a share of the card's `peak` FLOP/s."""
    return flops / seconds / peak


def decode_limit(rows: int, parameters: Parameters, bytes_per_parameter: int, bandwidth: float) -> float:
    """Return the tokens per second of all rows if a token of every row takes the time to read all weights of the
    language model once. Keys and values are left out. bandwidth: bytes/s.
    """
    return rows * bandwidth / ((parameters.layers + parameters.head) * bytes_per_parameter)
