"""One verdict on one input, with the scores of the parts: for people who try a reward."""

import time
from typing import NamedTuple

from calibrl_core.verifiers.base import Verdict
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.sandbox import NO_PERMISSIONS, SandboxPolicy
from calibrl_core.verifiers.scorer import NO_SERVICES, Scorer
from calibrl_core.verifiers.services import Services


class Trial(NamedTuple):
    """The verdict of a reward, in the reward's own range, and those of its parts by name."""

    verdict: Verdict
    parts: dict[str, Verdict]
    seconds: float


def try_reward(
    reward: Reward, seen: RewardInput, sandbox: SandboxPolicy = NO_PERMISSIONS, services: Services = NO_SERVICES
) -> Trial:
    """Return the verdict of a reward. Takes at most the time limits of its parts, and the start of a process.

    Raises:
        PluginError, RewardServiceError: this machine or the settings cannot run it.
        RuntimeError: the worker process cannot be started.
    """
    began = time.monotonic()
    with Scorer([reward], 1, sandbox, services) as scorer:
        ((verdict, judged),) = scorer.verdicts([seen])
    parts = dict(zip(reward.parts, judged, strict=True)) if reward.parts else {}
    return Trial(verdict[0], parts, time.monotonic() - began)
