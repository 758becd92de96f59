"""Families exploration/ and length/: does the policy still try different things?"""

from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.verifiers.base import extract_answer


def exploration(batch: StepBatch) -> dict[str, float]:
    """Entropy (nats) over rollout tokens only, how groups divide, and how many answers they try."""
    entropies = batch.rollouts.entropies[batch.rollouts.mask]
    top = entropies.topk(max(1, len(entropies) // 5)).values
    solved = batch.passed.float().mean(-1)  # [P]
    group_size = batch.passed.shape[1]
    answers = [extract_answer(text) for text in batch.rollouts.texts]
    groups = [answers[start : start + group_size] for start in range(0, len(answers), group_size)]
    return {
        "exploration/entropy": entropies.double().mean().item(),
        "exploration/entropy_top20": top.double().mean().item(),
        "exploration/pass_at_k": (solved > 0).double().mean().item(),
        "exploration/groups_none": (solved == 0).double().mean().item(),
        "exploration/groups_some": ((solved > 0) & (solved < 1)).double().mean().item(),
        "exploration/groups_all": (solved == 1).double().mean().item(),
        "exploration/active_groups": (batch.advantages != 0).any(-1).double().mean().item(),
        "exploration/distinct_answers": sum(len(set(group)) for group in groups) / len(groups),
    }


def length(batch: StepBatch) -> dict[str, float]:
    """Tokens a completion, and the share that was cut at the limit."""
    lengths = batch.rollouts.mask.sum(-1).double()
    return {
        "length/mean": lengths.mean().item(),
        "length/max": lengths.max().item(),
        "length/truncated_share": batch.rollouts.truncated.double().mean().item(),
    }
