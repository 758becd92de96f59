"""A step's batch that is written out, so that its metrics can be derived by hand."""

import torch
from torch import Tensor

from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.base import Experts, StepBatch
from calibrl_core.rollout.base import Rollouts
from calibrl_core.verifiers.scorer import Score

# Two prompts, three rollouts each. The first prompt has an expert of two tokens, the second has none.
#
#            tokens  logprobs            entropies        says  passed  strict  reward  A
#   prompt 0   2     -0.5  -1.5          0.4  0.8         4     yes     yes     1.1      0.72
#              3     -1.0  -3.0  -0.1    1.0  2.0  0.0    5     no      no      0.1     -0.31
#              1     -2.0                0.6              5     no      no      0.0     -0.41
#   prompt 1   1     -0.2                0.2              7     no      no      0.0      0
#              2     -0.4  -0.6          0.2  0.4         -     no      no      0.0      0
#              1     -1.2                0.4              8     no      no      0.0      0
LOGPROBS = [
    [-0.5, -1.5, 0.0],
    [-1.0, -3.0, -0.1],
    [-2.0, 0.0, 0.0],
    [-0.2, 0.0, 0.0],
    [-0.4, -0.6, 0.0],
    [-1.2, 0.0, 0.0],
]
ENTROPIES = [[0.4, 0.8, 0.0], [1.0, 2.0, 0.0], [0.6, 0.0, 0.0], [0.2, 0.0, 0.0], [0.2, 0.4, 0.0], [0.4, 0.0, 0.0]]
LENGTHS = [2, 3, 1, 1, 2, 1]
SAYS = ["4", "5", "5", "7", None, "8"]
PASSED = [[True, False, False], [False, False, False]]
ADVANTAGES = [[0.72, -0.31, -0.41], [0.0, 0.0, 0.0]]
# The expert's tokens: logprobs -1.0 and -2.0, entropies 0.5 and 1.5.
# Gaps: row 0: 0.5, 0.5 (passed); row 1: 0, -1.0 (its third token has none); row 2: -1.0.


def ragged(lengths: list[int]) -> Tensor:
    return torch.arange(3) < torch.tensor(lengths)[:, None]


def make_batch(experts: bool = True) -> StepBatch:
    rewards = torch.tensor([[1.1, 0.1, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    right = [one for group in PASSED for one in group]
    nothing = torch.zeros((2, 0))
    return StepBatch(
        examples=[Example("a", "?", "4"), Example("b", "?", "9")],
        rollouts=Rollouts(
            tokens=torch.ones((6, 3), dtype=torch.long),
            mask=ragged(LENGTHS),
            logprobs=torch.tensor(LOGPROBS),
            sampler_logprobs=torch.tensor(LOGPROBS),
            entropies=torch.tensor(ENTROPIES),
            truncated=torch.tensor([False, False, False, False, True, False]),
            texts=["no answer" if text is None else f"<answer>{text}</answer>" for text in SAYS],
            group_size=3,
        ),
        scores=[
            Score({"math": float(one), "format": form}, float(reward), one, one and form == 1.0)
            for one, form, reward in zip(right, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0], rewards.flatten(), strict=True)
        ],
        rewards=rewards,
        passed=torch.tensor(PASSED),
        advantages=torch.tensor(ADVANTAGES, dtype=torch.float64),
        experts=Experts(
            tokens=torch.tensor([[5, 6], [0, 0]]),
            mask=torch.tensor([[True, True], [False, False]]),
            logprobs=torch.tensor([[-1.0, -2.0], [0.0, 0.0]]),
            entropies=torch.tensor([[0.5, 1.5], [0.0, 0.0]]),
        )
        if experts
        else Experts(nothing.long(), nothing.bool(), nothing, nothing),
    )
