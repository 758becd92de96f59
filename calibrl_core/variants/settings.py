"""Settings of a what-if: `WhatIfConfig`. StrictSettings, bounded, and importable without torch."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, TypeAdapter, model_validator

from calibrl_core.algorithms import AlgorithmSettings
from calibrl_core.algorithms.registry import ALGORITHMS, Algorithm
from calibrl_core.config import PathModel, TrainConfig, TrainSettings
from calibrl_core.settings.base import StrictSettings

MOST_VARIANTS = 12
_ALGORITHM: TypeAdapter[AlgorithmSettings] = TypeAdapter(Algorithm)


class Variant(StrictSettings):
    """An algorithm with its settings, whose update is compared."""

    name: str = Field(min_length=1, max_length=100, description="Name of the variant in results.")
    algorithm: Algorithm


class WhatIfSettings(StrictSettings):
    """The compared update and its variants, without the run."""

    variants: tuple[Variant, ...] = Field(min_length=1, max_length=MOST_VARIANTS)
    update: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Number of the compared update in its step, from 0. The updates of the run before it are made "
        "first.",
    )

    def check_variants(self, training: TrainSettings) -> None:
        """Check the variants against the run.

        Raises:
            ValueError: the run or a variant samples nothing, a variant does not fit the run, or two have one name.
        """
        if not training.algorithm.samples:
            raise ValueError(f"algorithm: {training.algorithm.type} samples nothing, so there is no step to compare")
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError(f"variants: two have one name ({', '.join(names)}); results are kept by name")
        for place, variant in enumerate(self.variants):
            if not variant.algorithm.samples:
                raise ValueError(f"variants.{place}: {variant.algorithm.type} does not learn from rollouts; remove it")
            try:
                variant.algorithm.check(training)
            except ValueError as error:
                raise ValueError(f"variants.{place}: {error}") from error


class WhatIfConfig(WhatIfSettings, TrainConfig):
    """The complete configuration of `what_if`: that of the training, a checkpoint of it, and the variants."""

    checkpoint: PathModel = Field(description="Folder of a checkpoint of the training.")

    @model_validator(mode="after")
    def _variants_fit(self) -> Self:
        self.check_variants(self)
        return self


def changed_algorithm(own: Mapping[str, Any], changes: Mapping[str, Any]) -> AlgorithmSettings:
    """Return an algorithm with changed settings. With another `type` it takes over the settings that both have.

    Raises:
        ValueError: an unknown type, or settings that are not valid (a pydantic.ValidationError).
    """
    kind = changes.get("type", own["type"])
    if kind not in ALGORITHMS:
        raise ValueError(f"type: there is no algorithm {kind!r}; choose one of {', '.join(sorted(ALGORITHMS))}")
    kept = {name: value for name, value in own.items() if name in ALGORITHMS[kind].model_fields}
    return _ALGORITHM.validate_python({**kept, **changes, "type": kind})
