"""The ids of a tokenizer: gaps, rows without a token, ids beyond the matrix."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine

END, ROWS = 292, 296
WORDS = {"?": 0, "one": 1, "two": 2, "three": 5, "<pad>": 7}  # no token has the ids 3, 4, 6, 8 to 291, 293 to 295


def policy_of(text_policy: Callable[..., Any], vocabulary: dict[str, int]) -> Policy:
    """A policy of 296 rows whose tokenizer knows words only; all others are `?`."""
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?", eos_token="</s>", pad_token="<pad>")
    model = text_policy(LlamaConfig, vocab_size=ROWS, eos_token_id=END).model
    return Policy(model, tokenizer, torch.device("cpu"))


def test_ids_without_a_token_are_banned_and_stop_ids_are_not(
    text_policy: Callable[..., Any], text_examples: list[Example]
) -> None:
    policy = policy_of(text_policy, WORDS | {"</s>": END})
    assert (~policy.banned).nonzero().flatten().tolist() == [0, 1, 2, 5, END]
    with torch.no_grad():
        policy.head.weight.zero_()  # all five are equally likely
    request = SamplingRequest(group_size=8, temperature=1.0, max_tokens=200, seed=[1])
    rollouts = SharedPrefillEngine(policy).generate(text_examples, request)
    assert rollouts.mask.sum(-1).max() < 100  # 0.8 ** 100 is 2e-10
    assert (rollouts.tokens[rollouts.mask] == END).sum() == 8 * len(text_examples)


def test_a_stop_id_without_a_token_is_not_banned(text_policy: Callable[..., Any]) -> None:
    """From the generation config: the tokenizer ends at 292."""
    model = text_policy(LlamaConfig, vocab_size=ROWS).model
    model.generation_config.eos_token_id = [END, 294]
    policy = Policy(model, policy_of(text_policy, WORDS | {"</s>": END}).processor, torch.device("cpu"))
    assert policy.stop_ids == {END, 294}
    assert not policy.banned[[END, 294]].any()


@pytest.mark.parametrize(("token", "name"), [("</s>", "eos_token"), ("<pad>", "pad_token")])
def test_an_id_that_the_model_has_no_row_for_is_refused(text_policy: Callable[..., Any], token: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} of its tokenizer has the id 296, but .* only 296 rows"):
        policy_of(text_policy, WORDS | {"</s>": END} | {token: ROWS})
