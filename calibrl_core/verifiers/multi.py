"""Reward that a formula computes from the scores of others."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from calibrl_core.verifiers.base import Verifier
from calibrl_core.verifiers.formula import LONGEST, check, value_of
from calibrl_core.verifiers.judges import Judge
from calibrl_core.verifiers.remote import RemoteVerifier

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]
OWN_SETTINGS = ("weight", "on_failure")  # those of a part would have no effect
_OF_SERVICES = frozenset(one.model_fields["type"].default for one in get_args(Judge) if issubclass(one, RemoteVerifier))


class MultiReward(Verifier):
    """Value of a formula over the scores of its parts, such as `0.8 * right + 0.2 * brief`. A value outside `range` is
    moved to its nearer end. The score is missing if that of a part is, or if the formula has no value. With a part
    that a service gives (`http`, `judge`, `embedding`), `on_failure` is `drop_group` unless it is set.
    """

    type: Literal["multi"] = "multi"
    name: str = Field("multi", pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$", max_length=100, description="Name in metrics.")
    formula: str = Field(
        min_length=1,
        max_length=LONGEST,
        description="Numbers, names of `rewards`, + - * / ^, and min, max, abs, floor, ceil, exp, log, sqrt.",
    )
    rewards: dict[Name, Annotated[Judge, Field(discriminator="type")]] = Field(
        min_length=1, max_length=16, description="Verifiers by the name that the formula uses."
    )
    range: tuple[float, float] = Field(
        (0.0, 1.0), description="Lowest and highest value of the formula. The run scales it to 0 to 1."
    )

    @model_validator(mode="before")
    @classmethod
    def _policy_of_services(cls, values: Any) -> Any:
        """Drop the group if a service gave no score: 0 would say that the completion is wrong."""
        parts = values.get("rewards") if isinstance(values, dict) and "on_failure" not in values else None
        kinds = [_kind(part) for part in parts.values()] if isinstance(parts, dict) else []
        return {**values, "on_failure": "drop_group"} if _OF_SERVICES.intersection(kinds) else values

    @model_validator(mode="after")
    def _usable(self) -> Self:
        check(self.formula, self.rewards)
        if self.range[0] >= self.range[1]:
            raise ValueError("range: the first number must be below the second one")
        for name, part in self.rewards.items():
            for field in OWN_SETTINGS:
                if getattr(part, field) != type(part).model_fields[field].default:
                    raise ValueError(f"rewards.{name}.{field}: has no effect in a formula; set it beside the formula")
        return self

    @property
    def label(self) -> str:
        return self.name

    @property
    def parts(self) -> Mapping[str, Verifier]:
        return self.rewards

    @property
    def bounds(self) -> tuple[float, float]:
        return self.range

    def combine(self, values: Mapping[str, float]) -> float:
        low, high = self.range
        return min(high, max(low, value_of(self.formula, values)))


def _kind(part: Any) -> str:
    """Return the type of a part, which can be settings that are not checked yet."""
    return str(part.get("type") if isinstance(part, dict) else getattr(part, "type", ""))
