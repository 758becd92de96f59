"""Contract of every rollout engine. A new engine is one more entry in ENGINES.

vLLM has its own environment: `make test-vllm`. Elsewhere its part is skipped.
"""

import dataclasses
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, Qwen2Config

from calibrl_core.config import BuiltinModel, LoraSettings
from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.rollout.adapter_files import AdapterFiles
from calibrl_core.rollout.base import RolloutEngine, SamplingRequest
from calibrl_core.rollout.served import ServedEngine
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.settings.optimizer import OptimizerSettings
from calibrl_core.settings.sampling import EngineSettings
from calibrl_core.step.optimizer import make_optimizer

PLENTY = 10_000  # tokens, more than all prompts here need
MAX_TOKENS = 16
# Heads of 32; and not too wide a range of logits, which float32 would round more coarsely, in either engine.
WIDE = {"hidden_size": 128, "max_position_embeddings": 512, "initializer_range": 0.06}


def served(policy: Policy, batch_tokens: int) -> ServedEngine:
    return ServedEngine(policy, EngineSettings(engine="vllm_server", batch_tokens=batch_tokens))


ENGINES: dict[str, Callable[[Policy, int], RolloutEngine]] = {
    "shared-prefill": SharedPrefillEngine,
    "vllm-server": served,
}


@pytest.fixture(params=ENGINES, scope="module")
def make_engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Makes an engine: policy, and how many tokens it may decode together. The first one stays for the same arguments;
    another is closed when the next is made.
    """
    if request.param == "vllm-server" and find_spec("vllm") is None:
        pytest.skip("vllm is not installed here: make test-vllm")
    made: dict[Any, Any] = {}

    def close(given: Any) -> None:
        engine = made.pop(given)
        if isinstance(engine, ServedEngine):
            engine.close()

    def make(*given: Any) -> Any:
        if given not in made:
            for other in list(made)[1:]:
                close(other)
            made[given] = ENGINES[request.param](*given)
        return made[given]

    yield make
    for given in list(made):
        close(given)


@pytest.fixture(scope="module")
def prompts(examples: list[Example]) -> Any:
    """Return prompts of different lengths, so that some are padded."""
    return [
        dataclasses.replace(examples[0], question="And now, once more: " + examples[0].question),
        examples[1],
        dataclasses.replace(examples[2], question="So: " + examples[2].question),
    ]


@pytest.fixture
def sample(make_engine: Callable[..., Any], policy: Policy, prompts: Any) -> Any:
    def run(*, batch_tokens: int = PLENTY, which: Any = slice(None), **changed: Any) -> Any:
        settings = {"group_size": 4, "temperature": 1.0, "max_tokens": MAX_TOKENS, "seed": [3], **changed}
        engine = make_engine(policy, batch_tokens)
        with engine.sampling(0):
            return engine.generate(prompts[which], SamplingRequest(**settings))

    return run


def test_a_group_is_contiguous_in_the_order_of_the_prompts(
    sample: Callable[..., Any], policy: Policy, prompts: Any
) -> None:
    rollouts = sample()
    assert rollouts.group_size == 4
    assert len(rollouts.texts) == len(rollouts.tokens) == 4 * len(prompts)
    owners = [row // 4 for row in range(4 * len(prompts))]
    with torch.no_grad():
        right = policy.logprobs(prompts, owners, rollouts.tokens, rollouts.mask, 1.0)
        wrong = policy.logprobs(prompts, [*owners[4:], *owners[:4]], rollouts.tokens, rollouts.mask, 1.0)
    assert (right - rollouts.logprobs).abs().max() < 1e-4 < (wrong - rollouts.logprobs).abs().max()


def test_the_same_seed_gives_the_same_completions_and_another_does_not(sample: Callable[..., Any]) -> None:
    first, again, other = (sample(seed=[*seed]) for seed in ([0, 7], [0, 7], [0, 8]))
    assert first.texts == again.texts != other.texts
    assert torch.equal(first.logprobs, again.logprobs)


@pytest.mark.parametrize("batch_tokens", [1, 130, 400], ids=["one row", "part of a group", "a group or two"])
def test_batches_change_no_completion(sample: Callable[..., Any], batch_tokens: int) -> None:
    whole, cut = sample(), sample(batch_tokens=batch_tokens)
    assert torch.equal(whole.tokens, cut.tokens)
    assert torch.equal(whole.mask, cut.mask)
    assert whole.texts == cut.texts
    torch.testing.assert_close(cut.logprobs, whole.logprobs, rtol=0, atol=2e-5)
    torch.testing.assert_close(cut.entropies, whole.entropies, rtol=0, atol=2e-5)


def test_a_rows_completion_depends_on_its_number_alone(sample: Callable[..., Any]) -> None:
    """Two processes that share the prompts therefore sample the same completions as one."""
    whole, rest = sample(), sample(which=slice(1, None), first_row=4)
    assert rest.texts == whole.texts[4:]
    assert sample(which=slice(1, None)).texts != rest.texts


def test_every_stop_token_ends_a_completion(
    sample: Callable[..., Any], policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With one token in three a stop token, rows finish all the time.
    stops = frozenset(range(0, 384, 3))
    monkeypatch.setattr(policy, "stop_ids", stops)
    rollouts = sample()
    lengths = rollouts.mask.sum(-1)
    assert len(set(lengths.tolist())) > 2
    for tokens, mask, truncated, text in zip(
        rollouts.tokens, rollouts.mask, rollouts.truncated, rollouts.texts, strict=True
    ):
        counted = tokens[mask].tolist()
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)
        assert not stops.intersection(counted[:-1])
        assert truncated.item() == (counted[-1] not in stops)
        assert text == policy.tokenizer.decode([token for token in counted if token not in stops])


def test_completions_cut_by_the_limit_are_truncated(sample: Callable[..., Any]) -> None:
    short = sample(max_tokens=2)
    assert short.tokens.shape[1] == 2
    assert short.truncated.all()


def test_masked_tokens_are_padding_and_have_no_effect(
    sample: Callable[..., Any], policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "stop_ids", frozenset(range(0, 384, 3)))
    rollouts = sample()
    assert (rollouts.tokens[~rollouts.mask] == policy.pad_id).all()
    assert (rollouts.logprobs[~rollouts.mask] == 0).all()
    assert (rollouts.entropies[~rollouts.mask] == 0).all()


def test_no_banned_token_is_sampled(
    sample: Callable[..., Any], policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    banned = torch.ones_like(policy.banned)
    banned[[70, 71, 72]] = False
    monkeypatch.setattr(policy, "banned", banned)
    rollouts = sample(temperature=2.0)
    assert set(rollouts.tokens[rollouts.mask].tolist()) == {70, 71, 72}


def test_logprobs_and_entropies_are_the_trainers(sample: Callable[..., Any], policy: Policy, prompts: Any) -> None:
    rollouts = sample(temperature=0.7)
    owners = [row // 4 for row in range(4 * len(prompts))]
    with torch.no_grad():
        again = policy.token_logprobs(prompts, owners, rollouts.tokens, rollouts.mask, 0.7, with_entropy=True)
    torch.testing.assert_close(again.logprobs, rollouts.logprobs, rtol=0, atol=2e-5)
    torch.testing.assert_close(again.entropies, rollouts.entropies, rtol=0, atol=2e-5)
    assert (rollouts.entropies[rollouts.mask] > 0).all()


def test_greedy_completions_are_those_of_generate(sample: Callable[..., Any], policy: Policy, prompts: Any) -> None:
    ours = sample(group_size=1, temperature=0)
    rows = policy.encode(prompts)
    theirs = policy.model.generate(
        input_ids=rows.input_ids,
        attention_mask=rows.attention_mask,
        **rows.images,
        max_new_tokens=MAX_TOKENS,
        do_sample=False,
        suppress_tokens=policy.banned.nonzero().flatten().tolist(),
        pad_token_id=policy.pad_id,
    )[:, rows.input_ids.shape[1] :]
    assert torch.equal(ours.tokens[ours.mask], theirs[:, : ours.tokens.shape[1]][ours.mask])


def test_frequencies_are_the_policys(
    make_engine: Callable[..., Any], policy: Policy, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """800 first tokens out of four: a share errs by 0.018 (one standard deviation) at most."""
    banned = torch.ones_like(policy.banned)
    banned[[70, 71, 72, 73]] = False
    monkeypatch.setattr(policy, "banned", banned)
    engine = make_engine(policy, PLENTY)
    with engine.sampling(0):
        request = SamplingRequest(group_size=800, temperature=0.5, max_tokens=1, seed=[11])
        rollouts = engine.generate(prompts[:1], request)
    tokens, total = rollouts.tokens[:, 0], 0.0
    for token in (70, 71, 72, 73):
        expected = rollouts.logprobs[tokens == token, 0][0].exp().item()
        assert (tokens == token).float().mean().item() == pytest.approx(expected, abs=0.06)
        total += expected
    assert total == pytest.approx(1, abs=1e-4)


def test_the_weights_of_the_moment_are_sampled_from(sample: Callable[..., Any], policy: Policy) -> None:
    before = sample().texts
    weight = policy.model.get_output_embeddings().weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.neg_()
        after = sample().texts
        weight.copy_(kept)
    assert before != after
    assert sample().texts == before


def test_the_weights_that_an_optimizer_has_just_written_are_sampled_from(
    sample: Callable[..., Any], policy: Policy, prompts: Any
) -> None:
    """A fused optimizer changes them without a change of torch's version counter."""
    kept = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    before = sample()
    optimizer = make_optimizer(policy, OptimizerSettings(lr=1e-2))
    for parameter in policy.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    after = sample()
    with torch.no_grad():
        again = policy.logprobs(prompts, [row // 4 for row in range(12)], after.tokens, after.mask, 1.0)
    policy.model.load_state_dict(kept)
    assert before.texts != after.texts
    torch.testing.assert_close(again, after.logprobs, rtol=0, atol=2e-5)
    torch.testing.assert_close(after.sampler_logprobs, after.logprobs, rtol=0, atol=2e-5)


def assert_samples_from(policy: Policy, engine: RolloutEngine, examples: list[Example]) -> Any:
    """The log-probabilities that the engine sampled by are those of the policy."""
    with engine.sampling(0):
        request = SamplingRequest(group_size=4, temperature=1.0, max_tokens=12, seed=[5])
        rollouts = engine.generate(examples, request)
    owners = [row // 4 for row in range(len(rollouts.tokens))]
    with torch.no_grad():
        expected = policy.logprobs(examples, owners, rollouts.tokens, rollouts.mask, 1.0)
    torch.testing.assert_close(rollouts.sampler_logprobs, expected, rtol=0, atol=2e-5)
    return rollouts


@pytest.mark.parametrize(
    ("config_class", "settings"),
    [(LlamaConfig, {}), (Qwen2Config, {"tie_word_embeddings": True})],
    ids=["llama", "qwen2, tied"],
)
def test_text_models(
    make_engine: Callable[..., Any],
    text_policy: Callable[..., Any],
    text_examples: list[Example],
    config_class: Any,
    settings: dict[str, Any],
) -> None:
    policy = text_policy(config_class, **WIDE, **settings)
    engine = make_engine(policy, PLENTY)
    before = assert_samples_from(policy, engine, text_examples)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.5)
    assert before.texts != assert_samples_from(policy, engine, text_examples).texts


def test_adapters_are_sampled_from(make_engine: Callable[..., Any], examples: list[Example]) -> None:
    policy = load_policy(BuiltinModel(builtin="tiny-vlm", lora=LoraSettings(rank=4, alpha=16, rslora=True)))
    engine = make_engine(policy, PLENTY)
    if isinstance(engine, ServedEngine):
        assert isinstance(engine._weights, AdapterFiles)  # not merged
    fresh = assert_samples_from(policy, engine, examples)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    assert assert_samples_from(policy, engine, examples).texts != fresh.texts


def test_another_image_changes_the_log_probabilities(
    policy: Policy, make_engine: Callable[..., Any], examples: list[Example]
) -> None:
    other = [dataclasses.replace(examples[0], images=examples[1].images)]
    assert examples[0].images != examples[1].images
    engine = make_engine(policy, PLENTY)
    one, two = (assert_samples_from(policy, engine, asked) for asked in (examples[:1], other))
    assert not torch.equal(one.logprobs, two.logprobs)
