"""The verdict on an expert: use, rewrite or drop, with its reasons in words."""

from collections.abc import Sequence

from calibrl_core.auditing.facts import ExpertVerdict
from calibrl_core.auditing.settings import AuditSettings
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.scorer import Score

ACCEPTED = 0.5  # a reward below it refuses a text


def verdict_on(
    score: Score, tokens: int, nll_per_token: float, settings: AuditSettings
) -> tuple[ExpertVerdict, list[str]]:
    """Return the verdict on an expert, and its reasons.

    Args:
        score: of the expert by the rewards of the job.
        tokens: of the whole expert, with the end of its turn.
        nll_per_token: negative log-likelihood under the policy, nats per token.
    """
    if against := [*_refusals(score, settings.rewards, judging=True), *_cut(tokens, settings)]:
        return "drop", against
    far = [*_distance(nll_per_token, settings), *_refusals(score, settings.rewards, judging=False)]
    if far:
        return "rewrite", far
    return "use", [f"right, complete and near the policy: {nll_per_token:.2f} nats per token"]


def accepted(score: Score) -> bool:
    """Return if every reward accepts a text."""
    return not score.failed and all(value >= ACCEPTED for value in score.by_verifier.values())


def _refusals(score: Score, rewards: Sequence[Reward], *, judging: bool) -> list[str]:
    """Return why rewards refuse the expert: those that judge the answer, or the others."""
    labels = [reward.label for reward in rewards if reward.judges_answer == judging]
    refusing = [name for name in labels if score.by_verifier[name] < ACCEPTED and name not in score.failed]
    reasons = [f"the reward {name} refuses the expert" for name in refusing]
    if any(name in score.failed for name in labels):
        reasons.append(f"a reward gave no verdict ({score.failure})")
    return reasons


def _cut(tokens: int, settings: AuditSettings) -> list[str]:
    limit = settings.rollout.max_completion_tokens
    return [f"cut: {tokens:,} tokens, more than rollout.max_completion_tokens ({limit:,})"] if tokens > limit else []


def _distance(nll_per_token: float, settings: AuditSettings) -> list[str]:
    if nll_per_token <= settings.max_nll:
        return []
    return [f"far from the policy: {nll_per_token:.2f} nats per token, more than max_nll ({settings.max_nll:g})"]
