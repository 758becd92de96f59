"""Settings of a bisection: `BisectConfig`. StrictSettings, bounded, and importable without torch."""

from typing import Self

from pydantic import Field, model_validator

from calibrl_core.config import PathModel, TrainConfig
from calibrl_core.health import RULES
from calibrl_core.health.settings import RuleName
from calibrl_core.settings.base import StrictSettings

MOST_KEPT = 1000
NO_UPDATE = tuple(rule.name for rule in RULES if not rule.caused_by_update)


class BisectSettings(StrictSettings):
    """The alert whose cause a bisection looks for, without the run."""

    rule: RuleName = Field(description="Health rule that fired.")
    fired_step: int = Field(ge=1, le=10_000_000, description="Step at which it fired.")

    def check_alert(self, *, validates: bool) -> None:
        """Check that a probe can find the cause of the alert. `validates`: the training has validation data.

        Raises:
            ValueError: it cannot.
        """
        if self.rule in NO_UPDATE:
            raise ValueError(f"rule: no update causes {self.rule}; the log has the reason of the first failure")
        if not validates:
            raise ValueError("validation: the training has no validation data, which the probe needs")


class BisectConfig(BisectSettings, TrainConfig):
    """The complete configuration of `bisect`: that of the training, its checkpoints, and the alert."""

    kept: tuple[PathModel, ...] = Field(
        min_length=2, max_length=MOST_KEPT, description="Folders of checkpoints of the training, by step."
    )

    @model_validator(mode="after")
    def _can_be_probed(self) -> Self:
        self.check_alert(validates=self.validation is not None)
        return self
