"""Family exploration/: whether the policy still tries different answers."""

from collections import Counter

import numpy as np

from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.diagnostics.histograms import Histogram, histogram
from calibrl_core.verifiers.base import final_answer
from calibrl_core.verifiers.quantities import canonical_answer

TOP = 5  # entropy_top20 uses the fifth of the tokens with the highest entropy
ENTROPY_EDGES = np.linspace(0.0, 8.0, 65)  # nats; a uniform choice among 150,000 tokens would be 11.9


def exploration(batch: StepBatch) -> dict[str, float]:
    """Return entropy (nats), outcomes per group, the number of different answers, and the expected trend of the
    entropy.
    """
    solved = batch.passed.double().mean(-1)  # [P]
    return {
        **_entropy(batch),
        "exploration/pass_at_k": (solved > 0).double().mean().item(),
        "exploration/groups_none": (solved == 0).double().mean().item(),
        "exploration/groups_some": ((solved > 0) & (solved < 1)).double().mean().item(),
        "exploration/groups_all": (solved == 1).double().mean().item(),
        "exploration/active_groups": (batch.advantages != 0).any(-1).double().mean().item(),
        **_answers(batch),
        "exploration/logprob_advantage_cov": _covariance(batch),
    }


def entropy_histogram(batch: StepBatch) -> Histogram:
    """Return the histogram of the entropy of all rollout tokens, in nats."""
    return histogram(batch.rollouts.entropies[batch.rollouts.mask], ENTROPY_EDGES)


def _entropy(batch: StepBatch) -> dict[str, float]:
    """Return the mean entropy over rollout tokens, over the fifth with the highest entropy, where a completion takes
    its turns (arXiv 2506.01939), and over rollout and expert tokens together, as the published code logs it.
    """
    entropies = batch.rollouts.entropies[batch.rollouts.mask].double()  # [N]
    values = {
        "exploration/entropy": entropies.mean().item(),
        "exploration/entropy_top20": entropies.topk(max(1, len(entropies) // TOP)).values.mean().item(),
    }
    of_experts = batch.experts.entropies[batch.experts.mask].double()
    if len(of_experts):
        both = entropies.sum() + of_experts.sum()
        values["exploration/entropy_published"] = both.item() / (len(entropies) + len(of_experts))
    return values


def _answers(batch: StepBatch) -> dict[str, float]:
    """Return the different answers per group, and how much its wrong completions agree.

    Answers are equal as far as plain text can decide (0.50, 1/2); a missing answer does not count. Agreement needs at
    least two wrong completions in a group.
    """
    size = batch.rollouts.group_size
    found = [final_answer(text, batch.form) for text in batch.rollouts.texts]
    answers = [None if text is None else canonical_answer(text) for text in found]
    distinct = agreeing = wrong = 0
    for prompt, passed in enumerate(batch.passed.tolist()):
        group = answers[prompt * size : (prompt + 1) * size]
        distinct += len(set(group) - {None})
        failed = [answer for answer, right in zip(group, passed, strict=True) if not right]
        if len(failed) > 1:
            agreeing += max(Counter(answer for answer in failed if answer is not None).values(), default=0)
            wrong += len(failed)
    values = {"exploration/distinct_answers": distinct / len(batch.passed)}
    return values | ({"exploration/common_wrong_share": agreeing / wrong} if wrong else {})


def _covariance(batch: StepBatch) -> float:
    """Return the covariance of log-probability and advantage over rollout tokens.

    In a policy-gradient step the entropy falls by about this amount (arXiv 2505.22617, theorem 1): if positive, likely
    tokens become more likely.
    """
    mask = batch.rollouts.mask
    logprobs = batch.rollouts.logprobs[mask].double()  # [N]
    advantages = batch.advantages.flatten()[:, None].expand_as(mask)[mask]  # [N]
    return ((logprobs - logprobs.mean()) * (advantages - advantages.mean())).mean().item()
