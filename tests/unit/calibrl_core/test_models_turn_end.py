"""Experts end as a turn of the assistant does in the chat template, which is where sampling stops."""

import copy
import dataclasses
from typing import Any

import pytest

from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy

MESSAGES = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
TEMPLATE = MESSAGES + "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
PARTS = TEMPLATE.replace(
    "{{ message['content'] }}", "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}"
)
END = "<end_of_turn>"


def text_like(policy: Policy, template: str, tokens: tuple[str, ...] = (END,), stops: tuple[str, ...] = ()) -> Policy:
    """The tiny model's tokenizer alone, with new special tokens, of which `stops` are stop tokens of the model."""
    tokenizer: Any = copy.deepcopy(policy.tokenizer)
    tokenizer.chat_template = template
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    model = copy.deepcopy(policy.model)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids([*stops, "<|end|>"])
    return Policy(model, tokenizer, policy.device)


def expert_end(policy: Policy, examples: list[Example], limit: int = 100) -> list[str]:
    """The tokens of an expert behind its text, which is one token."""
    tokens, mask = policy.tokenize_experts([dataclasses.replace(examples[0], expert="7")], limit)
    words: list[str] = policy.tokenizer.convert_ids_to_tokens(tokens[mask].tolist())
    first, *end = words
    assert first == "7"
    return end


@pytest.mark.parametrize("stops", [(END,), ()], ids=["listed", "not listed"])
def test_an_expert_ends_as_the_template_ends_a_turn(
    policy: Policy, examples: list[Example], stops: tuple[str, ...]
) -> None:
    """Also where the model's files do not list that token as a stop token. `eos_token` stays one."""
    found = text_like(policy, TEMPLATE, stops=stops)
    assert expert_end(found, examples) == [END]
    assert found.stop_ids == {*found.tokenizer.convert_tokens_to_ids([END, "<|end|>"])}
    assert not found.banned[sorted(found.stop_ids)].any()


def test_an_end_of_several_tokens_is_kept_up_to_the_stop_token(policy: Policy, examples: list[Example]) -> None:
    template = TEMPLATE.replace(END, "<end_of_answer><end_of_turn>")
    found = text_like(policy, template, ("<end_of_answer>", END), stops=(END,))
    assert expert_end(found, examples) == ["<end_of_answer>", END]
    assert expert_end(found, examples, limit=2) == ["<end_of_answer>"]


@pytest.mark.parametrize(
    "template",
    [
        TEMPLATE.replace(END, ""),
        TEMPLATE.replace(END, "<|end|>"),
        MESSAGES + "{% if message['role'] != 'user' %}{{ raise_exception('users only') }}{% endif %}{% endfor %}",
        "{{ messages[0]['content'] }}",
    ],
    ids=["plain text", "eos_token", "template that refuses", "template without the answer"],
)
def test_otherwise_an_expert_ends_with_eos_token(policy: Policy, examples: list[Example], template: str) -> None:
    found = text_like(policy, template)
    assert expert_end(found, examples) == ["<|end|>"]
    assert found.stop_ids == {found.tokenizer.eos_token_id}


def test_an_image_text_models_template_gets_parts(policy: Policy, examples: list[Example]) -> None:
    processor: Any = copy.deepcopy(policy.processor)
    processor.chat_template = PARTS.replace(END, "<end_of_utterance>")
    assert expert_end(Policy(policy.model, processor, policy.device), examples) == ["<end_of_utterance>"]
