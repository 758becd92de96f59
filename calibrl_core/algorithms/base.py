"""Base classes of the algorithms. Everything outside this folder asks these hooks and knows no single algorithm.

To add an algorithm: derive from `PolicyGradientSettings` (or `SupervisedSettings`), set `type`, override what differs.
Hooks with tensors run in the trainer only; import torch inside them, because the service imports this module too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import Field

from calibrl_core.algorithms.clipping import clipped_policy_loss
from calibrl_core.algorithms.loss_batch import LossBatch, TokenLosses
from calibrl_core.settings.base import StrictSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from calibrl_core.config import TrainSettings
    from calibrl_core.data.schema import Example
    from calibrl_core.rollout.base import Rollouts
    from calibrl_core.step.learners import Learner

Advantages = Literal["group", "leave_one_out", "batch", "group_batch"]
Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]


class LearnerFactory(Protocol):
    """Builds the learner of a run: one method per kind of algorithm. The trainer provides it."""

    def supervised(self, algorithm: SupervisedSettings) -> Learner:
        """Return a learner that imitates the data's experts."""

    def reinforcement(self, algorithm: PolicyGradientSettings) -> Learner:
        """Return a learner that samples rollouts and scores them."""


class AlgorithmSettings(StrictSettings):
    """Settings of an algorithm, and the questions that config, plan and trainer ask about any algorithm.

    A subclass sets `type: Literal["name"] = "name"`, the value by which a spec names the algorithm. Its name for
    people is the JSON schema's title: `model_config = ConfigDict(title="My algorithm")`.
    """

    samples: ClassVar[bool]  # True: learns from sampled rollouts; False: learns from the data's experts only
    needs_experts: ClassVar[bool] = False  # data without any expert is refused
    clips_sequences: ClassVar[bool] = False  # True: one ratio per rollout is clipped; False: one per token
    has_guidance: ClassVar[bool] = False  # `token_losses` returns a second loss beside the policy's

    type: str

    def check(self, config: TrainSettings) -> None:
        """Check these settings against the rest of the config. Default: accept.

        Called in every validation of a spec or config: by the client, the service and the trainer, without torch.

        Raises:
            ValueError: what does not fit; the message names the field and the remedy.
        """

    def make_learner(self, factory: LearnerFactory) -> Learner:
        """Return the learner of a run with this algorithm. The two kinds of algorithms define it."""
        raise NotImplementedError

    @property
    def needs_reference(self) -> bool:
        """True if the loss uses a frozen copy of the policy that the run began with. Default: False.

        Read by the memory plan and at the start of a run.
        """
        return False

    @property
    def default_variants(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the changes of these settings that a what-if compares if it names none, by name of the variant. A
        change of `type` is another algorithm. Default: CalibRL and GRPO.
        """
        return {name: {"type": name} for name in ("calibrl", "grpo") if name != self.type}

    def max_abs_advantage(self, group_size: int, reward_span: float) -> float:
        """Return the largest |A| possible: the upper edge of the histogram of |A|. Default: `reward_span`.

        `reward_span`: the sum of the verifiers' weights, that is the best minus the worst reward of a group.
        """
        return reward_span


class SupervisedSettings(AlgorithmSettings):
    """Base of the algorithms that learn from experts' tokens and sample nothing."""

    samples: ClassVar[bool] = False
    needs_experts: ClassVar[bool] = True

    def make_learner(self, factory: LearnerFactory) -> Learner:
        """Return a supervised learner."""
        return factory.supervised(self)

    def loss(self, logprobs: Tensor, mask: Tensor, *, count: int) -> Tensor:
        """Return the share of a micro-batch in the loss of its batch, a scalar with gradient.

        logprobs `[B, T]` float (nats), mask `[B, T]` bool (True = the token counts); `count`: tokens of the whole
        batch. Called once per micro-batch.
        """
        raise NotImplementedError


class PolicyGradientSettings(AlgorithmSettings):
    """Base of the clipped policy-gradient algorithms: shared settings and hooks. The loss is GRPO's by default.

    The defaults of the settings are those of the paper's run (arXiv 2602.20197).
    """

    samples: ClassVar[bool] = True
    learns_from_experts: ClassVar[bool] = False  # expert rows are in the update, beside the rollouts
    averages_experts_apart: ClassVar[bool] = (
        False  # True: `aggregation` reduces rollouts and expert rows each by itself
    )

    clip_low: float = Field(
        0.2, ge=0, le=1, description="The gradient stops once the ratio falls below 1 - clip_low. 1: no limit."
    )
    clip_high: float = Field(0.2, ge=0, description="The gradient stops once the ratio rises above 1 + clip_high.")
    dual_clip: float | None = Field(
        3.0, gt=1, description="For a negative advantage A the loss never exceeds -dual_clip * A. None: no limit."
    )
    advantages: Advantages = Field(
        "group",
        description="Advantage of a rollout from its reward r. group: r - mean of its group (GRPO). leave_one_out: "
        "r - mean of the other rollouts of its group (RLOO). batch: (r - mean of the step) / standard deviation of "
        "the step (REINFORCE++). group_batch: (r - mean of its group) / standard deviation of these differences in "
        "the step (REINFORCE++-baseline). With batch and group_batch normalise_by_std has no effect.",
    )
    normalise_by_std: bool = Field(
        False, description="Divide advantages by the group's unbiased standard deviation + 1e-6."
    )
    aggregation: Aggregation = Field("token-mean", description="Reduction of token losses to one number.")
    kl_coef: float = Field(0.0, ge=0, description="Weight of the KL divergence from the initial policy of the run.")
    kl_estimator: Literal["k1", "k3"] = Field("k3", description="Estimator of the KL divergence from sampled tokens.")
    entropy_coef: float = Field(
        0.0, ge=0, description="Weight of the entropy (nats), which is subtracted from the loss."
    )
    mask_truncated: bool = Field(
        False,
        description="Leave completions that reached rollout.max_completion_tokens out of the loss. Their rewards "
        "still count in the advantages of their group.",
    )
    epochs_per_step: int = Field(
        1,
        ge=1,
        le=100,
        description="Passes over the rollouts of a step. Each pass makes the updates of all mini-batches; the ratios "
        "compare with the policy before the first.",
    )
    mini_batches: int = Field(
        4,
        ge=1,
        description="Optimizer updates per pass over the step's rollouts. Each mini-batch contains whole groups.",
    )
    mini_batch_rows: int | None = Field(
        None,
        ge=1,
        description="Replaces mini_batches: rows (rollouts, then the expert of the group) per mini-batch and "
        "process, as in the published script. Groups can be cut, and the last mini-batch can be "
        "shorter. None: use mini_batches.",
    )
    micro_batch_mean: bool = Field(
        False,
        description="Average each micro-batch of micro_batch_rows by itself, with equal weight per micro-batch, as "
        "in the published script. A short last mini-batch counts less.",
    )

    def check(self, config: TrainSettings) -> None:
        """Check that the step's prompts and rows divide into mini-batches and micro-batches.

        Raises:
            ValueError: they do not.
        """
        if self.mini_batch_rows is None and self.mini_batches > config.prompts_per_step:
            raise ValueError(
                f"algorithm.mini_batches ({self.mini_batches}) must not exceed prompts_per_step "
                f"({config.prompts_per_step}): a mini-batch holds whole groups"
            )
        if self.micro_batch_mean and config.micro_batch_rows is None:
            raise ValueError("algorithm.micro_batch_mean needs micro_batch_rows: the rows that are averaged together")
        if self.micro_batch_mean and (self.mini_batch_rows or 0) % (config.micro_batch_rows or 1):
            raise ValueError(
                f"algorithm.mini_batch_rows ({self.mini_batch_rows}) must be a multiple of micro_batch_rows "
                f"({config.micro_batch_rows}), or a mini-batch has no whole number of micro-batches to average"
            )

    def make_learner(self, factory: LearnerFactory) -> Learner:
        """Return a reinforcement learner."""
        return factory.reinforcement(self)

    @property
    def needs_reference(self) -> bool:
        """True if the loss has a KL term."""
        return self.kl_coef > 0

    def max_abs_advantage(self, group_size: int, reward_span: float) -> float:
        """Return `reward_span`, or with a division by the standard deviation the |A| of one rollout against all others.

        With the standard deviation of the whole step, rarer outcomes have a larger |A|.
        """
        if self.normalise_by_std or self.advantages in ("batch", "group_batch"):
            return float((group_size - 1) / group_size**0.5)  # by the unbiased standard deviation
        return reward_span

    def extra_reward(self, rollouts: Rollouts, max_tokens: int) -> Tensor | None:
        """Return a reward term of the algorithm's own, `[B]` float64, on the rollouts' device. Default: None, no term.

        Called once for all rollouts (`[B, T]`) that a step samples, before advantages. Added to the verifiers' reward;
        it does not change which rollouts passed. `max_tokens`: rollout.max_completion_tokens. If the term can widen
        the rewards of a group, override `max_abs_advantage` too.
        """
        return None

    def resample_limit(self) -> int:
        """Return how often a step can sample other prompts for the groups that `keeps_groups` refuses. Default: 0.

        Read once per step; with 0, `keeps_groups` is never called.
        """
        return 0

    def keeps_groups(self, passed: Tensor, rewards: Tensor) -> Tensor:
        """Return which groups the step learns from, `[P]` bool. Default: all.

        passed `[P, G]` bool, rewards `[P, G]` float64 (with `extra_reward`). Called after each sampling. Refused
        groups are replaced by groups of other prompts, up to `resample_limit` times; then refused groups fill up. If
        more groups than needed are kept, the step learns from all of them.
        """
        return passed.new_ones(len(passed))

    def choose_experts(self, examples: Sequence[Example], chances: NDArray[np.float64]) -> list[int]:
        """Return the indices of the examples (all `P` of this process) whose expert joins the update. Default: none.

        Called once per step if `learns_from_experts`. chances `[P]`: a random number in [0, 1) per example, which
        depends on seed, step and the example's place only. An example without an expert must not be chosen.
        """
        return []

    def policy_weight(self, step: int) -> float:
        """Return the factor of `TokenLosses.policy` in the loss of `step` (from 0). Default: 1."""
        return 1.0

    def guidance_weight(self, step: int) -> float:
        """Return the factor of `TokenLosses.guidance` in the loss of `step` (from 0). Default: 0."""
        return 0.0

    @property
    def moving(self) -> tuple[str, ...]:
        """Return the names of the numeric settings that `moved` changes during a run. Default: none.

        Each is reported as the metric `algorithm/NAME`, and checkpoints hold its value.
        """
        return ()

    def moved(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the values of the settings in `moving` for the steps after `step` (from 0). Default: all stay.

        Called after each step, in one process for all, with the metrics of the step.
        """
        return {}

    def needs_all_rows(self, step: int) -> bool:
        """True if a row with A = 0 can change a weight in `step`. If not, the update skips such rows.

        Default: True if the loss has a KL or an entropy term.
        """
        return self.kl_coef > 0 or self.entropy_coef > 0

    def token_losses(self, batch: LossBatch) -> TokenLosses:
        """Return the losses per token, `[B, T]`, before mask and average. Default: GRPO's clipped loss, no guidance.

        Called once per micro-batch of every update.
        """
        return clipped_policy_loss(self, batch)
