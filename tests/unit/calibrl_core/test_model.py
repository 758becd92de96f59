"""The tiny model, its log-probabilities and its rollouts, against transformers' own paths."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from calibrl_core.config import BuiltinModel, PathModel
from calibrl_core.data.schema import Example
from calibrl_core.models.encoding import PromptEncoder
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.models.tiny import build_tiny_vlm
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine


def weights(policy: Policy) -> Any:
    return {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}


def test_the_seed_decides_the_weights(policy: Policy) -> None:
    state = torch.get_rng_state()
    again = weights(load_policy(BuiltinModel(builtin="tiny-vlm")))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights(policy).items())
    other = weights(load_policy(BuiltinModel(builtin="tiny-vlm", seed=1)))
    assert not torch.equal(other["lm_head.weight"], again["lm_head.weight"])


def test_save_and_load(policy: Policy, examples: list[Example], tmp_path: Path) -> None:
    policy.save(tmp_path)
    loaded = load_policy(PathModel(path=str(tmp_path)))
    assert loaded.tokenizer.padding_side == "left"
    rows, again = policy.encode(examples), loaded.encode(examples)
    assert torch.equal(rows.input_ids, again.input_ids)
    with torch.no_grad():
        logits = [
            one.model(input_ids=rows.input_ids, attention_mask=rows.attention_mask, **rows.images).logits
            for one in (policy, loaded)
        ]
    assert torch.equal(*logits)


@pytest.mark.parametrize("text", ["<think>3+4=7.</think><answer>7</answer>", "Grüße, 数学 & <b>tags</b>  \n\t x=½"])
def test_any_text_survives_the_tokenizer(policy: Policy, text: str) -> None:
    ids = policy.tokenizer(text, add_special_tokens=False).input_ids
    assert policy.tokenizer.decode(ids) == text


def test_the_tokenizer_is_the_same_every_time(policy: Policy) -> None:
    _, processor = build_tiny_vlm(0)
    assert processor.tokenizer.get_vocab() == policy.tokenizer.get_vocab()


def test_experts_end_with_a_stop_token_unless_cut(policy: Policy, examples: list[Example]) -> None:
    tokens, mask = policy.tokenize_experts(examples[:2], limit=1000)
    lengths = mask.sum(-1).tolist()
    assert [tokens[row, length - 1].item() for row, length in enumerate(lengths)] == [policy.tokenizer.eos_token_id] * 2
    tokens, mask = policy.tokenize_experts(examples[:2], limit=5)
    assert mask.sum(-1).tolist() == [5, 5]
    assert policy.tokenizer.eos_token_id not in tokens


def test_packed_completions_match_separate_rows_in_logprobs_and_gradients(
    policy: Policy, engine: SharedPrefillEngine, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against one plain forward pass a row, with prompts of different lengths and uneven groups."""
    longer = [
        dataclasses.replace(examples[0], id="longer", question="And now: " + examples[0].question),
        *examples[1:3],
    ]
    rollouts = engine.generate(longer, SamplingRequest(group_size=3, temperature=1.0, max_tokens=9, seed=[4]))
    mask = rollouts.mask.clone()
    mask[1, 4:] = False
    kept = [0, 1, 2, 4, 6, 7]  # groups of 3, 1 and 2
    tokens, mask = rollouts.tokens[kept], mask[kept]
    owners = [row // 3 for row in kept]
    weight = policy.model.get_output_embeddings().weight

    packed = policy.logprobs(longer, owners, tokens, mask, 1.0)
    (gradient,) = torch.autograd.grad(packed.square().sum(), weight)
    monkeypatch.setattr(policy, "shares_prompts", False)  # one row per pack
    single = policy.logprobs(longer, owners, tokens, mask, 1.0)
    torch.testing.assert_close(packed, single, rtol=0, atol=2e-5)

    plain = torch.zeros_like(packed)
    for row, owner in enumerate(owners):
        prompt, count = policy.encode([longer[owner]]), int(mask[row].sum())
        ids = torch.cat([prompt.input_ids, tokens[row : row + 1, :count]], dim=1)
        logits = policy.model(input_ids=ids, **prompt.images).logits[0, prompt.input_ids.shape[1] - 1 : -1]
        scores = logits.masked_fill(policy.banned, -torch.inf).log_softmax(-1)
        plain[row, :count] = scores[range(count), tokens[row, :count]]
    torch.testing.assert_close(packed, plain, rtol=0, atol=2e-5)
    (expected,) = torch.autograd.grad(plain.square().sum(), weight)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-3)


def test_another_picture_gives_other_logprobs(policy: Policy, examples: list[Example]) -> None:
    changed = dataclasses.replace(examples[0], id="changed", images=examples[1].images)
    tokens, mask = policy.tokenize_experts([examples[0]], limit=32)
    with torch.no_grad():
        seen, other = (policy.logprobs([one], [0], tokens, mask, 1.0) for one in (examples[0], changed))
    assert (seen - other).abs().max() > 1e-4


def test_prompts_of_one_id_are_not_mixed_up(policy: Policy, examples: list[Example]) -> None:
    """Two files of one name give their rows the same ids."""
    other = dataclasses.replace(examples[1], id=examples[0].id)
    first, second = policy.encode([examples[0]]), policy.encode([other])
    assert not torch.equal(first.images["pixel_values"], second.images["pixel_values"])


def test_tokens_that_cannot_be_sampled_are_left_out_of_an_expert(policy: Policy, examples: list[Example]) -> None:
    strange = dataclasses.replace(examples[0], expert=f"<image>{examples[0].expert}")
    assert torch.equal(*(policy.tokenize_experts([one], limit=99)[0] for one in (strange, examples[0])))


def test_the_encoded_prompts_kept_are_bounded(
    policy: Policy, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calibrl_core.models.encoding.ENCODED_MEGABYTES", 0)
    small = PromptEncoder(policy.processor, None)
    small.lengths(examples)
    assert len(small._encoded) == 1
