"""GRPO (arXiv 2402.03300, equation 3): the clipped policy loss of `calibrl_core.algorithms.clipping`."""

from typing import Literal

from calibrl_core.algorithms.base import PolicyGradientSettings


class GRPO(PolicyGradientSettings):
    """GRPO: the shared settings, nothing more. The paper also divides advantages by std: `normalise_by_std`."""

    type: Literal["grpo"] = "grpo"
