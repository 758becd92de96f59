"""Content of a what-if: the updates that were compared, and completions with the change of each token."""

from pydantic import BaseModel, ConfigDict, Field

from calibrl_core.metrics.expert import Quadrant


class _WhatIfFacts(BaseModel):
    model_config = ConfigDict(frozen=True)


class ComparedUpdate(_WhatIfFacts):
    """One update, from the same weights, optimizer state and rollouts as the others."""

    name: str = Field(description="Name of the variant; own: the settings of the run.")
    changes: dict[str, object] = Field(description="Settings that differ from those of the run, by name.")
    applied: bool = Field(description="False: the gradient was not finite, so that no weight changed.")
    gradient_norm: float | None = Field(description="L2 norm of the gradient before clipping. None: not finite.")
    gradient_cosine: float | None = Field(description="Cosine between the gradient and that of own. None: one is 0.")
    update_norm: float = Field(description="L2 norm of the change of the weights.")
    update_cosine: float | None = Field(description="Cosine between the change of the weights and that of own.")
    change: float = Field(description="Mean change of the log-probability of a rollout token, in nats.")
    change_correct: float | None = Field(description="The same over tokens of correct rollouts. None: there are none.")
    change_wrong: float | None = Field(description="The same over tokens of wrong rollouts. None: there are none.")
    quadrants: dict[Quadrant, float] = Field(description="The same over the tokens of each quadrant, in nats.")


class ChangedCompletion(_WhatIfFacts):
    """A rollout with the change of the log-probability of each of its tokens by every update."""

    prompt_id: str
    prompt: str = Field(description="Text of the prompt, shortened in the middle.")
    passed: bool
    advantage: float = Field(description="Advantage by the settings of the run.")
    tokens: list[str] = Field(description="The first tokens, as text.")
    left_out: int = Field(description="Number of the tokens behind them.")
    gaps: list[float | None] = Field(description="Gap to the expert per token, in nats.")
    changes: list[list[float]] = Field(description="Nats per update, in the order of the updates, and per token.")


class WhatIf(_WhatIfFacts):
    """The compared updates of one mini-batch."""

    step: int = Field(description="The step, from 1, that follows the checkpoint.")
    update: int = Field(description="Number of the update in the step, from 0.")
    learning_rate: float
    rollouts: int = Field(description="Number of rollouts in the mini-batch.")
    tokens: int = Field(description="Number of their tokens.")
    quadrant_tokens: dict[Quadrant, int] = Field(description="Number of their tokens with a gap, by quadrant.")
    updates: list[ComparedUpdate] = Field(description="The update of the run first, then those of the variants.")
    completions: list[ChangedCompletion] = Field(
        description="Up to 8 rollouts: those with the largest advantages, correct and wrong."
    )
