"""Image-text models: the stock Idefics3, and tiny random ones: Qwen2.5-VL, whose positions have three axes and whose
images are of any size, LLaVA and Gemma 3. Prompts with no, one and two images share a batch without an effect on
each other.
"""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from calibrl_core.data.schema import DataError, Example
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.self_check import check_model
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from tests.support.image_processors import MARKS, PlainProcessor, QwenProcessor, picture


@pytest.fixture(scope="module")
def tokenizer(policy: Policy) -> Any:
    tokenizer = copy.deepcopy(policy.tokenizer)
    tokenizer.add_tokens(MARKS, special_tokens=True)
    return tokenizer


@pytest.fixture(scope="module")
def text(tokenizer: Any) -> dict[str, Any]:
    """Settings of a tiny language model."""
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": len(tokenizer) + 3,
        "initializer_range": 0.2,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
    }


VISION: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION |= {"image_size": 56, "patch_size": 14, "initializer_range": 0.2}  # 16 patches


def policy_of(model_class: Any, config: Any, processor: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    return Policy(model, processor, torch.device("cpu"))


@pytest.fixture(scope="module")
def qwen_policy(tokenizer: Any, text: dict[str, Any]) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = Qwen2_5_VLConfig(
        text_config={
            **text,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 1, 1]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
            "window_size": 56,
            "initializer_range": 0.2,
        },
        **dict(zip(names, tokenizer.convert_tokens_to_ids(MARKS), strict=True)),
    )
    return policy_of(Qwen2_5_VLForConditionalGeneration, config, QwenProcessor(tokenizer))


@pytest.fixture(scope="module")
def llava_policy(tokenizer: Any, text: dict[str, Any]) -> Any:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    mark = tokenizer.convert_tokens_to_ids(MARKS[0])
    config = LlavaConfig(
        text_config={**text, "model_type": "llama"},
        vision_config={**VISION, "model_type": "clip_vision_model"},
        image_token_index=mark,
        vision_feature_layer=-1,
    )
    return policy_of(LlavaForConditionalGeneration, config, PlainProcessor(tokenizer, 56, 16, mark, typed=False))


@pytest.fixture(scope="module")
def gemma_policy(tokenizer: Any, text: dict[str, Any]) -> Any:
    """Return a Gemma 3 policy: image tokens attend in both directions, and every other layer has a window."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    mark, _, begin, end = tokenizer.convert_tokens_to_ids(MARKS)
    config = Gemma3Config(
        text_config={**text, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
        vision_config=VISION,
        mm_tokens_per_image=4,
        image_token_index=mark,
        boi_token_index=begin,
        eoi_token_index=end,
    )
    made = policy_of(Gemma3ForConditionalGeneration, config, PlainProcessor(tokenizer, 56, 4, mark, typed=True))
    projection = made.decoder.multi_modal_projector.mm_input_projection_weight  # it begins as 0
    torch.nn.init.orthogonal_(projection, generator=torch.Generator().manual_seed(0))
    return made


@pytest.fixture(params=["idefics3", "qwen", "llava", "gemma"])
def model(request: pytest.FixtureRequest, policy: Policy) -> Any:
    return policy if request.param == "idefics3" else request.getfixturevalue(f"{request.param}_policy")


@pytest.fixture(scope="module")
def mixed(examples: list[Example]) -> Any:
    """Return prompts with no image, one, two of different sizes, and one without an image mark in its question."""
    ask = dataclasses.replace(examples[0], images=(), question="What is 3 + 4?")
    one, wide, two = picture(1), picture(2, width=112, height=28), picture(3, width=84)
    return [
        ask,
        dataclasses.replace(ask, images=(one,), question="<image>What do you see?"),
        dataclasses.replace(ask, images=(wide, two), question="Compare <image> with <image>."),
        dataclasses.replace(ask, images=(two,), question="And here?"),
    ]


def sampled(model: Any, examples: list[Example], **changed: Any) -> Any:
    settings = {"group_size": 3, "temperature": 1.0, "max_tokens": 7, "seed": [4], **changed}
    return SharedPrefillEngine(model).generate(examples, SamplingRequest(**settings))


def test_batching_does_not_change_prompts_with_no_one_or_two_images(model: Any, mixed: list[Example]) -> None:
    rollouts = sampled(model, mixed)
    for index, example in enumerate(mixed):
        rows = slice(3 * index, 3 * index + 3)
        alone = sampled(model, [example], first_row=3 * index)
        assert alone.texts == rollouts.texts[rows]
        width = alone.tokens.shape[1]
        torch.testing.assert_close(alone.logprobs, rollouts.logprobs[rows, :width], rtol=0, atol=2e-5)
    owners = [row // 3 for row in range(12)]
    with torch.no_grad():
        together = model.logprobs(mixed, owners, rollouts.tokens, rollouts.mask, 1.0)
        back_to_front = list(reversed(range(12)))
        other_order = model.logprobs(
            mixed, [owners[row] for row in back_to_front], rollouts.tokens.flip(0), rollouts.mask.flip(0), 1.0
        )
    torch.testing.assert_close(together, rollouts.logprobs, rtol=0, atol=2e-5)
    torch.testing.assert_close(other_order.flip(0), together, rtol=0, atol=2e-5)


def plain(model: Any, example: Example, tokens: Tensor) -> Any:
    """Run one forward pass of prompt and completion with the model's own positions, masks and logits."""
    encoded = dict(model.encoder.encode_one(example))
    for name in ("position_ids", "attention_mask"):
        del encoded[name]
    count = len(tokens)
    encoded["input_ids"] = torch.cat([encoded["input_ids"], tokens[None]], dim=1)
    for name in ("mm_token_type_ids", "token_type_ids"):
        if (types := encoded.pop(name, None)) is not None and name in model._takes:
            encoded[name] = torch.nn.functional.pad(types, (0, count))
    logits = model.model(**encoded).logits[0, -count - 1 : -1]
    return logits.masked_fill(model.banned, -torch.inf).log_softmax(-1)[range(count), tokens]


@pytest.mark.parametrize("shares", [True, False])
def test_log_probabilities_and_gradients_are_those_of_plain_rows(
    model: Any, mixed: list[Example], shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shares and not model.shares_prompts:
        pytest.skip("its completions can't share a prompt")
    monkeypatch.setattr(model, "shares_prompts", shares)
    kept = [0, 1, 3, 4, 6, 7, 8, 10]
    rollouts = sampled(model, mixed)
    tokens, mask, owners = rollouts.tokens[kept], rollouts.mask[kept].clone(), [row // 3 for row in kept]
    mask[1, 3:] = False
    found = model.logprobs(mixed, owners, tokens, mask, 1.0)
    expected = torch.zeros_like(found)
    for row, owner in enumerate(owners):
        expected[row, mask[row]] = plain(model, mixed[owner], tokens[row][mask[row]])
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-5)
    weights = torch.linspace(0.1, 1, found.numel()).view(found.shape)
    parameters = list(model.model.parameters())
    ours = torch.autograd.grad((weights * found).sum(), parameters, allow_unused=True)
    theirs = torch.autograd.grad((weights * expected).sum(), parameters, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, rtol=2e-3, atol=3e-4)


@pytest.mark.parametrize("shares", [True, False])
def test_images_run_once_a_prompt(
    model: Any, mixed: list[Example], shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shares and not model.shares_prompts:
        pytest.skip("its completions can't share a prompt")
    monkeypatch.setattr(model, "shares_prompts", shares)
    seen = []
    original = model.decoder.get_image_features

    def counting(pixel_values: Any, *rest: Any, **options: Any) -> Any:
        seen.append(tuple(pixel_values.shape))
        return original(pixel_values, *rest, **options)

    monkeypatch.setattr(model.decoder, "get_image_features", counting)
    expected = tuple(model.encode(mixed[1:3]).images["pixel_values"].shape)
    tokens = torch.full((8, 4), 70)
    with torch.no_grad():
        model.logprobs(mixed[1:3], [0] * 4 + [1] * 4, tokens, torch.ones_like(tokens, dtype=torch.bool), 1.0)
    assert seen == [expected]
    seen.clear()
    sampled(model, mixed[1:3], group_size=6, max_tokens=2)
    assert seen == [expected]


@pytest.mark.parametrize("which", [1, 3], ids=["placed by a tag", "without a tag"])
def test_another_picture_gives_other_logprobs(model: Any, mixed: list[Example], which: int) -> None:
    example = mixed[which]
    changed = dataclasses.replace(example, images=(picture(99),))
    bare = dataclasses.replace(example, images=())
    tokens, mask = torch.tensor([[70, 71, 72]]), torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad():
        seen, other, blind = (model.logprobs([one], [0], tokens, mask, 1.0) for one in (example, changed, bare))
    assert (seen - other).abs().max() > 1e-4
    assert (seen - blind).abs().max() > 1e-4


def test_the_order_of_two_pictures_counts(model: Any, mixed: list[Example]) -> None:
    swapped = dataclasses.replace(mixed[2], images=mixed[2].images[::-1])
    tokens, mask = torch.tensor([[70, 71, 72]]), torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad():
        seen, other = (model.logprobs([one], [0], tokens, mask, 1.0) for one in (mixed[2], swapped))
    assert (seen - other).abs().max() > 1e-4


def test_no_mark_of_an_image_or_a_video_is_ever_sampled(qwen_policy: Policy, mixed: list[Example]) -> None:
    marks = qwen_policy.tokenizer.convert_tokens_to_ids(MARKS[:2])
    assert qwen_policy.banned[marks].all()
    assert qwen_policy.banned[len(qwen_policy.tokenizer) :].all()
    hot = sampled(qwen_policy, mixed, temperature=10.0, group_size=8, max_tokens=24)
    assert not qwen_policy.banned[hot.tokens[hot.mask]].any()


@pytest.mark.parametrize("mark", MARKS)
def test_a_text_that_contains_the_models_own_marks_is_refused(
    qwen_policy: Policy, mixed: list[Example], mark: Any
) -> None:
    spoilt = dataclasses.replace(mixed[1], question=f"What is {mark}?")
    with pytest.raises(DataError, match=r"contains <\|\w+\|>, which the model reserves for images"):
        qwen_policy.encode([spoilt])


def test_models_whose_completions_share_a_prompt(
    policy: Policy, qwen_policy: Policy, llava_policy: Policy, gemma_policy: Policy
) -> None:
    assert [one.shares_prompts for one in (policy, qwen_policy, llava_policy, gemma_policy)] == [
        True,
        True,
        True,
        False,
    ]


def test_greedy_completions_with_images_are_those_of_generate(model: Any, mixed: list[Example]) -> None:
    ours = sampled(model, mixed, group_size=1, temperature=0, max_tokens=10)
    for row, example in enumerate(mixed):
        encoded = {k: v for k, v in model.encoder.encode_one(example).items() if k != "position_ids"}
        theirs = model.model.generate(
            **encoded,
            max_new_tokens=10,
            do_sample=False,
            suppress_tokens=model.banned.nonzero().flatten().tolist(),
            pad_token_id=model.pad_id,
        )[0, encoded["input_ids"].shape[1] :]
        assert ours.tokens[row][ours.mask[row]].tolist() == theirs[: int(ours.mask[row].sum())].tolist()


def test_images_that_were_sampled_from_do_not_run_again_for_the_experts(
    model: Any, mixed: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within `kept` they run once, one at a time or together, and give what they gave without it."""
    if "mm_encoder_outputs" not in model._takes:
        pytest.skip("the model takes pixels only")
    seen = []
    original = model.decoder.get_image_features

    def counting(pixel_values: Any, *rest: Any, **options: Any) -> Any:
        seen.append(pixel_values.shape)
        return original(pixel_values, *rest, **options)

    tokens = torch.full((4, 4), 70)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    with torch.no_grad():
        expected = model.logprobs(mixed, range(4), tokens, mask, 1.0)
        monkeypatch.setattr(model.decoder, "get_image_features", counting)
        with model.images.cached():
            for place in (1, 2):
                sampled(model, [mixed[place]], group_size=2, max_tokens=2)
            before = len(seen)
            found = model.logprobs(mixed, range(4), tokens, mask, 1.0)
            again = model.logprobs(mixed, range(4), tokens, mask, 1.0)
        assert (before, len(seen)) == (2, 3)  # the one whose image was not shown before
        changed = model.logprobs(mixed[1:2], [0], tokens[:1], mask[:1], 1.0)
    assert len(seen) == 4  # what was kept is forgotten
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert torch.equal(found, again)
    torch.testing.assert_close(changed[0], expected[1], rtol=0, atol=2e-5)


def test_the_check_at_load_accepts_the_model(model: Any, mixed: list[Example]) -> None:
    check_model(model, mixed)
