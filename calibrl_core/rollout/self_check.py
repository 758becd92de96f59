"""Check of a loaded model: sampler, update and transformers compute the same log-probabilities.

A model whose attention or inputs the trainer handles wrongly would otherwise train without notice, or fail in the first
update. The check samples a few tokens for a prompt without images, one with an image and one with several, as far as
the data have them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from calibrl_core.data.schema import DataError, Example
from calibrl_core.models.encoding import TOKEN_TYPES
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts, SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine

COMPLETIONS = 2  # per prompt: two completions of a prompt are packed in the update
TOKENS = 8  # per completion
LARGEST_DIFFERENCE = 1e-3  # nats, per token, in float32; correct models differ by at most 1e-5
LARGEST_MEAN_DIFFERENCE = 16 * 2**-8  # nats, mean of the tokens, in bfloat16, whose steps are 2**-8; correct: 0.02


@torch.no_grad()
def check_model(policy: Policy, examples: Iterable[Example]) -> float:
    """Sample for one example per number of images (none, one, several), and compare the log-probabilities (nats) of the
    sampler, of the update with rows packed and one by one, and of transformers' own forward pass.

    Returns the largest difference: of a token in float32, of the mean over the tokens of an example in bfloat16.

    Raises:
        ModelError: the log-probabilities differ, or the model fails; the message names the model's kind.
        DataError: an example cannot be encoded.
        torch.OutOfMemoryError: memory.
    """
    kind, limit, worst = policy.model.config.model_type, limit_of(policy), 0.0
    for example in one_per_kind(examples):
        try:
            found = _log_probabilities(policy, example)
        except (DataError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # third-party code: a model can fail in any way
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise ModelError(
                f"model: the trainer cannot run {kind} on {example.id} ({_images(example)}): {problem}; "
                "choose a model of another kind"
            ) from error
        expected = found.pop("transformers")
        for name, actual in found.items():
            differences = (actual - expected).abs()
            largest = float(differences.mean() if policy.bfloat16 else differences.max())
            if not largest <= limit:  # NaN is refused too
                raise ModelError(
                    f"model: log-probabilities of {name} differ from those of transformers by {largest:.2g} for {kind} "
                    f"on {example.id} ({_images(example)}; at most {limit:.2g}): the trainer does not support this "
                    "kind of model; choose a model of another kind"
                )
            worst = max(worst, largest)
    return worst


def limit_of(policy: Policy) -> float:
    """Return the largest difference (nats) that `check_model` accepts in the precision of the policy."""
    return LARGEST_MEAN_DIFFERENCE if policy.bfloat16 else LARGEST_DIFFERENCE


def one_per_kind(examples: Iterable[Example]) -> Iterator[Example]:
    """Yield the first example without images, with one, and with several."""
    seen = set()
    for example in examples:
        images = min(len(example.images), 2)
        if images not in seen:
            seen.add(images)
            yield example
        if len(seen) == 3:
            return


def _images(example: Example) -> str:
    count = len(example.images)
    return f"{count} image{'' if count == 1 else 's'}"


def _log_probabilities(policy: Policy, example: Example) -> dict[str, Tensor]:
    """Return the log-probabilities of the same sampled tokens, `[N]` float32, by the part that computed them."""
    request = SamplingRequest(group_size=COMPLETIONS, temperature=1.0, max_tokens=TOKENS, seed=[0])
    rollouts = SharedPrefillEngine(policy).generate([example], request)
    owners = [0] * COMPLETIONS
    packed = policy.logprobs([example], owners, rollouts.tokens, rollouts.mask, 1.0)
    alone = [
        policy.logprobs([example], [0], rollouts.tokens[[row]], rollouts.mask[[row]], 1.0) for row in range(COMPLETIONS)
    ]
    return {
        "the sampler": rollouts.logprobs[rollouts.mask],
        "the update": packed[rollouts.mask],
        "the update without packing": torch.cat(alone)[rollouts.mask],
        "transformers": _by_transformers(policy, example, rollouts),
    }


def _by_transformers(policy: Policy, example: Example, rollouts: Rollouts) -> Tensor:
    """Return the log-probabilities `[N]` by the model's own forward pass of what its processor returns."""
    prompt = {name: value.to(policy.device) for name, value in policy.encoder.processed(example).items()}
    limits_logits = "logits_to_keep" in inspect.signature(policy.model.forward).parameters
    found = []
    for tokens, mask in zip(rollouts.tokens, rollouts.mask, strict=True):
        completion = tokens[mask]  # [T]
        inputs = {name: _with_completion(policy, name, value, completion) for name, value in prompt.items()}
        # Logits of a long prompt would need gigabytes.
        limit = {"logits_to_keep": len(completion) + 1} if limits_logits else {}
        with policy.forward_context():
            output = policy.model(**inputs, **limit, use_cache=False)
        logits = output.logits[0, -len(completion) - 1 : -1].float()  # [T, V]
        logits = logits.masked_fill(policy.banned, -torch.inf)
        found.append(logits.log_softmax(-1).gather(-1, completion[:, None]).squeeze(-1))
    return torch.cat(found)


def _with_completion(policy: Policy, name: str, value: Tensor, completion: Tensor) -> Tensor:
    """Extend an input of the prompt by the completion `[T]`. Inputs of images stay as they are."""
    count, added = len(completion), completion
    if name == "cross_attention_mask":  # [1, L, images, tiles]; the completion sees what the prompt's last token sees
        return torch.cat([value, value[:, -1:].expand(-1, count, -1, -1)], dim=1)
    if name not in ("input_ids", "attention_mask", *TOKEN_TYPES):
        return value
    if name == "attention_mask":
        added = torch.ones_like(completion)
    if name in TOKEN_TYPES:
        of_prompt = torch.zeros(count, dtype=torch.bool, device=completion.device)
        added = policy.encoder.completed_types(name, of_prompt.long(), of_prompt)
    return torch.cat([value, added[None].to(value.dtype)], dim=-1)
