"""Settings of validation during training."""

from typing import Self

from pydantic import Field, model_validator

from calibrl_core.settings.base import StrictSettings
from calibrl_core.settings.image_changes import ImageChanges
from calibrl_core.settings.sampling import RolloutSettings, SamplingSettings, StopString

SAMPLING = tuple(SamplingSettings.model_fields)


class ValidationSettings(StrictSettings):
    """Validation during training, without its data."""

    every_steps: int = Field(20, ge=1, description="Steps between validations. The last step is always validated.")
    samples: int = Field(8, ge=1, le=256, description="Completions per prompt.")
    stop_at_accuracy: float | None = Field(
        None,
        gt=0,
        le=1,
        description="End the job successfully once validation/accuracy reaches this value. None: run all steps.",
    )
    before_training: bool = Field(
        False,
        description="Also validate before the first step, as step 0. It marks no checkpoint as best and ends no job.",
    )
    temperature: float | None = Field(
        None, ge=0, le=10, description="Replaces rollout.temperature. 0: greedy, with samples: 1. None: no change."
    )
    top_k: int | None = Field(None, ge=0, le=1_000_000, description="Replaces rollout.top_k. None: no change.")
    top_p: float | None = Field(None, gt=0, le=1, description="Replaces rollout.top_p. None: no change.")
    min_p: float | None = Field(None, ge=0, le=1, description="Replaces rollout.min_p. None: no change.")
    repetition_penalty: float | None = Field(
        None, gt=0, le=10, description="Replaces rollout.repetition_penalty. None: no change."
    )
    stop: tuple[StopString, ...] | None = Field(
        None, max_length=16, description="Replaces rollout.stop. Empty: no stop strings. None: no change."
    )
    max_completion_tokens: int | None = Field(
        None, ge=1, le=131072, description="Replaces rollout.max_completion_tokens. None: no change."
    )

    image_changes: ImageChanges = ()

    @model_validator(mode="after")
    def _one_greedy_sample(self) -> Self:
        if self.temperature == 0 and self.samples > 1:
            raise ValueError(
                f"samples is {self.samples}, but with temperature 0 all completions of a prompt are equal; "
                "set samples to 1"
            )
        return self

    def rollout(self, training: RolloutSettings) -> RolloutSettings:
        """Return how validation samples: as in training, except for what is set here. Temperature 0 is greedy."""
        given = {name: getattr(self, name) for name in ("temperature", "max_completion_tokens", *SAMPLING)}
        return training.model_copy(update={name: value for name, value in given.items() if value is not None})
