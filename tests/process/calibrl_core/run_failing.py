"""The trainer, of which the second process runs out of memory in its second step."""

from collections.abc import Sequence

from torch import distributed

from calibrl_core.config import TrainConfig
from calibrl_core.run.process import run_process
from calibrl_core.train import train
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.scorer import Score, Scorer

scored = 0


def score(self: Scorer, inputs: Sequence[RewardInput]) -> list[Score]:
    global scored
    scored += 1
    if scored == 2 and distributed.get_rank() == 1:
        raise MemoryError("as told")
    return [Score({"math": 0.0}, 0.0, False, False) for _ in inputs]


if __name__ == "__main__":
    Scorer.grade = score  # type: ignore[method-assign]
    run_process(TrainConfig, train)
