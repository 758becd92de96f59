"""Text models of several kinds, tiny and random: shared computation changes no completion."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    CohereConfig,
    LlamaConfig,
    Qwen2Config,
    T5Config,
)

from calibrl_core.config import PathModel
from calibrl_core.data.schema import DataError, Example
from calibrl_core.models.head_check import check_head
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.self_check import check_model
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from tests.families.text import KINDS


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest, text_policy: Callable[..., Any]) -> Any:
    config_class, settings, shares = KINDS[request.param]
    return text_policy(config_class, **settings), shares


def rows_of(policy: Policy, examples: list[Example]) -> Any:
    """Six completions: three, one and two to a prompt, of different lengths; and one of no tokens at all."""
    engine = SharedPrefillEngine(policy)
    rollouts = engine.generate(examples, SamplingRequest(group_size=3, temperature=1.0, max_tokens=9, seed=[4]))
    kept = [0, 1, 2, 4, 6, 7]
    tokens, mask = rollouts.tokens[kept], rollouts.mask[kept].clone()
    mask[1, 4:] = False
    mask[3] = False
    return [row // 3 for row in kept], tokens, mask, rollouts.logprobs[kept]


def plain(
    policy: Policy, examples: list[Example], owners: Any, tokens: Tensor, mask: Tensor, temperature: float
) -> Any:
    """Run one forward pass per row with the model's own logits: no padding, no packing, no chunks."""
    found = torch.zeros(tokens.shape)
    for row, owner in enumerate(owners):
        prompt, count = policy.encode([examples[owner]]).input_ids, int(mask[row].sum())
        ids = torch.cat([prompt, tokens[row : row + 1, :count]], dim=1)
        logits = policy.model(input_ids=ids).logits[0, prompt.shape[1] - 1 : -1] / temperature
        scores = logits.masked_fill(policy.banned, -torch.inf).log_softmax(-1)
        found[row, :count] = scores[range(count), tokens[row, :count]]
    return found


def test_log_probabilities_and_gradients_are_those_of_plain_rows(kind: Any, text_examples: list[Example]) -> None:
    policy, shares = kind
    assert policy.shares_prompts == shares
    owners, tokens, mask, sampled = rows_of(policy, text_examples)
    expected = plain(policy, text_examples, owners, tokens, mask, 0.7)
    found = policy.logprobs(text_examples, owners, tokens, mask, 0.7)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(
        policy.logprobs(text_examples, owners, tokens, mask, 1.0)[mask], sampled[mask], rtol=0, atol=2e-5
    )
    weights = torch.linspace(0.1, 1, found.numel()).view(found.shape)
    parameters = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    ours = torch.autograd.grad((weights * found).sum(), parameters)
    theirs = torch.autograd.grad((weights * expected).sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_greedy_completions_are_those_of_generate(kind: Any, text_examples: list[Example]) -> None:
    policy, _ = kind
    ours = SharedPrefillEngine(policy).generate(
        text_examples, SamplingRequest(group_size=1, temperature=0, max_tokens=12, seed=[0])
    )
    rows = policy.encode(text_examples)
    theirs = policy.model.generate(
        input_ids=rows.input_ids,
        attention_mask=rows.attention_mask,
        max_new_tokens=12,
        do_sample=False,
        suppress_tokens=policy.banned.nonzero().flatten().tolist(),
        pad_token_id=policy.pad_id,
    )[:, rows.input_ids.shape[1] :]
    assert torch.equal(ours.tokens[ours.mask], theirs[:, : ours.tokens.shape[1]][ours.mask])


def test_the_checks_at_load_accept_the_model(kind: Any, text_examples: list[Example]) -> None:
    check_head(kind[0])
    check_model(kind[0], text_examples[:1])


def test_a_model_with_unknown_logit_computation_is_refused(text_policy: Callable[..., Any]) -> None:
    policy = text_policy(CohereConfig, logit_scale=0.5)
    forward = policy.model.forward

    def doubled(*inputs: Any, **options: Any) -> Any:
        output = forward(*inputs, **options)
        output.logits = output.logits * 2
        return output

    policy.model.forward = doubled
    with pytest.raises(ValueError, match="does not know how cohere computes its logits"):
        check_head(policy)


def test_saved_and_loaded_a_text_model_is_the_same(
    text_policy: Callable[..., Any], text_examples: list[Example], tmp_path: Path
) -> None:
    policy = text_policy(Qwen2Config)
    policy.save(tmp_path)
    loaded = load_policy(PathModel(path=str(tmp_path)))
    assert type(loaded.model).__name__ == "Qwen2ForCausalLM"
    owners, tokens, mask, _ = rows_of(policy, text_examples)
    with torch.no_grad():
        expected = policy.logprobs(text_examples, owners, tokens, mask, 1.0)
        assert torch.equal(loaded.logprobs(text_examples, owners, tokens, mask, 1.0), expected)


def test_without_a_chat_template_a_prompt_is_plain_text(
    text_policy: Callable[..., Any], text_examples: list[Example]
) -> None:
    policy = text_policy(LlamaConfig)
    rows = policy.encode(text_examples[1:2])
    text = policy.tokenizer.decode(rows.input_ids[0])
    assert text.startswith("User: 2 + 2?\n")
    assert text.endswith("\nAssistant:")


def test_a_chat_template_of_text_models_gets_text(
    text_policy: Callable[..., Any], text_examples: list[Example]
) -> None:
    policy = text_policy(LlamaConfig)
    policy.processor.chat_template = "{{ messages[0]['content'] + '!' }}"
    text = policy.tokenizer.decode(policy.encode(text_examples[1:2]).input_ids[0])
    assert text.startswith("2 + 2?\n")
    assert text.endswith("</answer>.!")


def test_special_tokens_are_the_templates_alone(
    policy: Policy, text_policy: Callable[..., Any], text_examples: list[Example]
) -> None:
    """A tokenizer that puts a first token before any text would put a second one before a template's."""
    from tokenizers.processors import TemplateProcessing

    text = text_policy(LlamaConfig)
    text.tokenizer.bos_token = "<|system|>"
    mark = text.tokenizer.bos_token_id
    text.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|system|> $A", special_tokens=[("<|system|>", mark)]
    )
    assert text.tokenizer("2").input_ids[0] == mark
    assert text.encode(text_examples).input_ids.eq(mark).sum(-1).tolist() == [1, 1, 1]


def test_images_for_a_text_model_are_refused(text_policy: Callable[..., Any], examples: list[Example]) -> None:
    with pytest.raises(DataError, match="has images, but this model takes none"):
        text_policy(LlamaConfig).encode(examples[:1])


def test_padding_that_is_the_stop_token_may_be_sampled(text_policy: Callable[..., Any]) -> None:
    policy = text_policy(LlamaConfig)
    assert policy.pad_id == policy.tokenizer.eos_token_id in policy.stop_ids
    assert not policy.banned[policy.pad_id]


def test_a_model_that_is_neither_text_nor_image_text_is_refused(tmp_path: Path, policy: Policy) -> None:
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="t5 is neither"):
        load_policy(PathModel(path=str(tmp_path)))


def test_a_tokenizer_without_an_end_is_refused(text_policy: Callable[..., Any], tmp_path: Path) -> None:
    policy = text_policy(LlamaConfig)
    policy.save(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="eos_token"):
        load_policy(PathModel(path=str(tmp_path)))


def test_lengths_are_those_of_the_encoded_prompts(
    policy: Policy, examples: list[Example], text_examples: list[Example]
) -> None:
    both = [examples[0], text_examples[0]]
    assert policy.prompt_lengths(both) == policy.encode(both).attention_mask.sum(-1).tolist()
    assert policy.prompt_lengths([dataclasses.replace(examples[0], images=())]) < policy.prompt_lengths(examples[:1])
