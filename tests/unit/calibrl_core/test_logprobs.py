"""Chunked log-probabilities and entropies from hidden states, against the plain path over a whole matrix of logits."""

from typing import Any

import pytest
import torch
from torch import Tensor

from calibrl_core.models import logprobs as logprobs_module
from calibrl_core.models.entropy import entropy
from calibrl_core.models.logprobs import Head, sampler_logits, token_logprobs

TOKENS, HIDDEN, VOCABULARY = 37, 8, 50


@pytest.fixture
def inputs() -> Any:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator)
    head = torch.randn(VOCABULARY, HIDDEN, generator=generator)
    targets = torch.randint(2, VOCABULARY, (TOKENS,), generator=generator)
    banned = torch.zeros(VOCABULARY, dtype=torch.bool)
    banned[:2] = True
    return hidden.requires_grad_(), head.requires_grad_(), targets, banned


def plain(hidden: Any, head: Any, targets: Any, temperature: float, banned: Any) -> Any:
    logits = (hidden @ head.T)[:, ~banned] / temperature  # the banned are gone, not masked
    logs = logits.log_softmax(-1)
    return logs.gather(-1, targets[:, None] - 2).squeeze(-1), -(logs.exp() * logs).sum(-1)


@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("elements", [2**24, VOCABULARY * 5])
def test_values_and_gradients_are_those_of_the_plain_path(
    inputs: Any, monkeypatch: pytest.MonkeyPatch, elements: Any, with_entropy: bool
) -> None:
    hidden, head, targets, banned = inputs
    monkeypatch.setitem(logprobs_module.CHUNK_ELEMENTS, "cpu", elements)
    found = token_logprobs(hidden, Head(head), targets, 0.5, banned, with_entropy=with_entropy)
    logprobs, entropies = plain(hidden, head, targets, 0.5, banned)
    torch.testing.assert_close(found.logprobs, logprobs)
    if with_entropy:
        assert found.entropies is not None
        torch.testing.assert_close(found.entropies, entropies)
        ours, theirs = found.logprobs.square() + 3 * found.entropies, logprobs.square() + 3 * entropies
    else:
        assert found.entropies is None
        ours, theirs = found.logprobs.square(), logprobs.square()
    gradients = torch.autograd.grad(ours.sum(), [hidden, head])
    for one, other in zip(gradients, torch.autograd.grad(theirs.sum(), [hidden, head]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("elements", [2**24, VOCABULARY * 5])
def test_a_head_with_bias_scale_and_softcap(inputs: Any, monkeypatch: pytest.MonkeyPatch, elements: Any) -> None:
    hidden, head, targets, banned = inputs
    bias = torch.linspace(-1, 1, VOCABULARY).requires_grad_()
    monkeypatch.setitem(logprobs_module.CHUNK_ELEMENTS, "cpu", elements)
    found = token_logprobs(hidden, Head(head, bias, scale=0.5, softcap=2.0), targets, 0.7, banned, with_entropy=True)
    logits = 2.0 * torch.tanh(0.5 * (hidden @ head.T + bias) / 2.0)
    logs = (logits / 0.7)[:, ~banned].log_softmax(-1)
    logprobs, entropies = logs.gather(-1, targets[:, None] - 2).squeeze(-1), -(logs.exp() * logs).sum(-1)
    torch.testing.assert_close(found.logprobs, logprobs)
    assert found.entropies is not None
    torch.testing.assert_close(found.entropies, entropies)
    weights = torch.linspace(0.1, 2, TOKENS)
    ours = torch.autograd.grad((weights * (found.logprobs + 3 * found.entropies)).sum(), [hidden, head, bias])
    theirs = torch.autograd.grad((weights * (logprobs + 3 * entropies)).sum(), [hidden, head, bias])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_frozen_head_and_frozen_hidden_states_get_no_gradient(inputs: Any) -> None:
    hidden, head, targets, banned = inputs
    token_logprobs(hidden, Head(head.detach()), targets, 1.0, banned).logprobs.sum().backward()
    assert hidden.grad is not None and head.grad is None
    assert not token_logprobs(hidden.detach(), Head(head.detach()), targets, 1.0, banned).logprobs.requires_grad


@pytest.mark.parametrize("elements", [2**24, VOCABULARY * 5])
def test_no_matrix_of_all_tokens_logits_is_kept_or_made(
    inputs: Any, monkeypatch: pytest.MonkeyPatch, elements: Any
) -> None:
    """Only a single chunk waits for the backward pass, and it may be run again."""
    hidden, head, targets, banned = inputs
    monkeypatch.setitem(logprobs_module.CHUNK_ELEMENTS, "cpu", elements)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        found = token_logprobs(hidden, Head(head), targets, 1.0, banned).logprobs.sum()
    assert (max(one.numel() for one in kept) == TOKENS * VOCABULARY) == (elements == 2**24)
    (first,) = torch.autograd.grad(found, [head], retain_graph=True)
    (second,) = torch.autograd.grad(found, [head])
    assert torch.equal(first, second)


def test_entropy() -> None:
    logits = sampler_logits(torch.tensor([[0.0, 0.0, 5.0], [0.0, 100.0, 0.0]]), 1.0, torch.tensor([False, False, True]))
    assert entropy(logits).tolist() == pytest.approx([0.6931472, 0.0], abs=1e-6)
