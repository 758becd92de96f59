"""Parts that rollout engines share: row numbers, drawing, batches, the cache; and removal of finished rows."""

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy
from calibrl_core.rollout import sampling, shared_prefill
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.cache import SPARE_TOKENS, GrowingLayer
from calibrl_core.rollout.sampling import BLOCK, Uniforms, batches, draw
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine


def test_numbers_depend_on_seed_row_and_place_alone() -> None:
    two, alone = Uniforms([1, 2], [5, 9]), Uniforms([1, 2], [9])
    first, second = two.block(), two.block()
    assert first.shape == (BLOCK, 2)
    assert torch.equal(first[:, 1], alone.block()[:, 0])
    two.keep([1])
    alone.block()
    assert torch.equal(two.block(), alone.block())
    assert not torch.equal(first[:, 0], first[:, 1])
    assert not torch.equal(first, second)
    assert not torch.equal(Uniforms([1, 3], [5, 9]).block(), first)


def test_a_draw_inverts_the_cumulative_distribution() -> None:
    logits = torch.tensor([0.2, 0.3, 0.5]).log().repeat(5, 1)
    uniforms = torch.tensor([0.0, 0.19, 0.21, 0.499, 0.999], dtype=torch.float64)
    chosen, logprobs, _, entropies = draw(logits, 1.0, torch.zeros(3, dtype=torch.bool), uniforms)
    assert chosen.tolist() == [0, 0, 1, 1, 2]
    assert logprobs.exp().tolist() == pytest.approx([0.2, 0.2, 0.3, 0.3, 0.5])
    assert entropies.tolist() == pytest.approx([1.0296530] * 5)  # -0.2 ln 0.2 - 0.3 ln 0.3 - 0.5 ln 0.5


def test_a_draw_never_takes_a_token_of_probability_0() -> None:
    banned = torch.tensor([True, False, True, False, True])
    uniforms = torch.tensor([0.0, 0.4999, 0.5, 1 - 2**-53], dtype=torch.float64)
    chosen, logprobs, _, entropies = draw(torch.zeros(4, 5), 1.0, banned, uniforms)
    assert chosen.tolist() == [1, 1, 3, 3]
    assert logprobs.exp().tolist() == pytest.approx([0.5] * 4)
    assert entropies.tolist() == pytest.approx([0.6931472] * 4)


def test_a_draw_reaches_the_last_of_many_tokens() -> None:
    """In float32 the sum stops growing before the end of 2^25 equal shares; here of 150,000, with a heavy first."""
    logits = torch.zeros(1, 150_000)
    logits[0, 0] = 25.0  # each other has a probability of 1.4e-11
    uniforms = torch.tensor([1 - 1e-12], dtype=torch.float64)
    chosen, *_ = draw(logits, 1.0, torch.zeros(150_000, dtype=torch.bool), uniforms)
    assert 149_000 < chosen.item() < 150_000


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    chosen, logprobs, *_ = draw(logits, 0.0, torch.zeros(3, dtype=torch.bool), torch.tensor([0.99]).double())
    assert chosen.tolist() == [1]
    assert logprobs.item() == pytest.approx(logits.log_softmax(-1)[0, 1].item())


def test_drawing_in_parts_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, uniforms = torch.randn(7, 50, generator=generator), torch.rand(7, generator=generator).double()
    banned = torch.zeros(50, dtype=torch.bool)
    whole = draw(logits, 0.7, banned, uniforms)
    monkeypatch.setitem(sampling.DRAW_ELEMENTS, "cpu", 100)
    for one, other in zip(whole, draw(logits, 0.7, banned, uniforms), strict=True):
        assert torch.equal(one, other)


def test_batches_keep_within_the_budget() -> None:
    # 4 rows of 10 + 6 tokens are 64; the longest prompt counts for all that come with it.
    assert batches([10, 4, 10, 5], 4, 6, 10**6) == [([0, 2, 3, 1], 4)]
    assert batches([10, 4, 10, 5], 4, 6, 128) == [([0, 2], 4), ([3, 1], 4)]
    assert batches([10, 4, 10, 5], 4, 6, 64) == [([0], 4), ([2], 4), ([3], 4), ([1], 4)]
    assert batches([10, 4], 4, 6, 40) == [([0], 2), ([1], 4)]  # 2 rows of 16; 4 of 10
    assert batches([10], 4, 6, 1) == [([0], 1)]


def test_the_growing_cache_equals_that_of_transformers() -> None:
    generator = torch.Generator().manual_seed(0)
    theirs = DynamicLayer()
    theirs.update(*torch.randn(2, 3, 2, 5, 4, generator=generator))
    new_tokens = 2 * SPARE_TOKENS + 9
    assert theirs.keys is not None and theirs.values is not None
    ours = GrowingLayer(theirs.keys.clone(), theirs.values.clone(), limit=5 + new_tokens)
    for step in range(new_tokens):
        new = torch.randn(2, len(theirs.keys), 2, 1, 4, generator=generator)
        for one, other in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(one, other)
        assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)
        if step == 70:
            for layer in (ours, theirs):
                layer.reorder_cache(torch.tensor([0, 2]))  # type: ignore[arg-type]
    assert torch.equal(ours.keys, theirs.keys)
    assert ours.keys.untyped_storage().nbytes() == theirs.keys.untyped_storage().nbytes()  # filled to the limit


def test_rows_that_finish_leave_the_others_as_they_were(
    policy: Policy, engine: SharedPrefillEngine, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    # With one token in three a stop token, rows finish all the time and the batch shrinks at almost every step.
    monkeypatch.setattr(policy, "stop_ids", frozenset(range(0, 384, 3)))
    results = []
    for share, look in ((1.0, 1), (0.0, 1), (1.0, 5)):
        monkeypatch.setattr(shared_prefill, "DROP_BELOW", share)
        monkeypatch.setitem(shared_prefill.LOOK_EVERY, "cpu", look)
        results.append(
            engine.generate(examples, SamplingRequest(group_size=4, temperature=1.0, max_tokens=16, seed=[5]))
        )
    dropping, *others = results
    assert len(set(dropping.mask.sum(-1).tolist())) > 2
    for other in others:
        assert torch.equal(dropping.tokens, other.tokens)
        assert torch.equal(dropping.mask, other.mask)
        torch.testing.assert_close(dropping.logprobs, other.logprobs, rtol=0, atol=2e-5)
