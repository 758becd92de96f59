"""References of a spec: the jobs, models, datasets and files that it names, by field."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self
from uuid import UUID

from calibrl.schemas import (
    AnySpec,
    AuditSpec,
    BisectSpec,
    DataChoice,
    HubModel,
    JobCheckpoint,
    JobModel,
    KnownData,
    ModelChoice,
    TrainingParts,
    WhatIfSpec,
)
from calibrl_core.config import PathModel
from calibrl_core.data.files import RowsWithRatio
from calibrl_core.data.schema import FileData
from calibrl_core.verifiers.base import read_truth
from calibrl_core.verifiers.registry import Reward


@dataclass(frozen=True)
class NamedData:
    """A dataset of a spec, with what its job asks of its rows.

    `needs_experts`: the job needs experts. `ratios`: rows that need a pass ratio. `rewards`: must accept the answers.
    `needs_answers`: a reward compares with them. `drops_unearnable`: rows whose answers the rewards refuse are dropped.
    `drops`: rows can be dropped.
    """

    field: str
    source: DataChoice
    needs_experts: bool = False
    ratios: RowsWithRatio = "none"
    rewards: tuple[Reward, ...] = ()
    needs_answers: bool = True
    drops_unearnable: bool = False
    drops: bool = False


@dataclass(frozen=True)
class References:
    """References of one spec, found once. Models as (field, model)."""

    depends_on: tuple[UUID, ...]
    models: tuple[tuple[str, ModelChoice], ...]
    data: tuple[NamedData, ...]
    compared: tuple[tuple[str, JobCheckpoint], ...] = ()  # checkpoints that are no models

    @classmethod
    def of(cls, spec: AnySpec) -> Self:
        """Find the references of a spec."""
        if isinstance(spec, TrainingParts):
            data = tuple(_training_data(spec))
            return cls(spec.depends_on, (("model", spec.model),), data, tuple(_compared(spec)))
        if isinstance(spec, AuditSpec):
            audited = NamedData("data", spec.data, needs_experts=True, needs_answers=read_truth(spec.rewards))
            return cls(spec.depends_on, (("model", spec.model),), (audited,))
        models = tuple((f"models.{index}", model) for index, model in enumerate(spec.models))
        answers = read_truth(spec.rewards)
        evaluated = tuple(
            NamedData(f"data.{index}", source, needs_answers=answers) for index, source in enumerate(spec.data)
        )
        return cls(spec.depends_on, models, evaluated)

    @cached_property
    def job_models(self) -> tuple[tuple[str, JobCheckpoint], ...]:
        """Models and other inputs that are checkpoints of other jobs."""
        of_models = ((field, model) for field, model in self.models if isinstance(model, JobModel))
        return (*of_models, *self.compared)

    @cached_property
    def path_models(self) -> tuple[tuple[str, PathModel], ...]:
        """Models in folders or files of the server."""
        return tuple((field, model) for field, model in self.models if isinstance(model, PathModel))

    @cached_property
    def hub_models(self) -> tuple[tuple[str, HubModel], ...]:
        """Models of the hub."""
        return tuple((field, model) for field, model in self.models if isinstance(model, HubModel))

    @cached_property
    def files(self) -> tuple[FileData, ...]:
        """Data files of the server."""
        return tuple(one.source for one in self.data if isinstance(one.source, FileData))

    @cached_property
    def dependencies(self) -> frozenset[UUID]:
        """Jobs that must succeed first: those in `depends_on`, and those whose best or last checkpoint is used."""
        implied = (model.from_job for _, model in self.job_models if not isinstance(model.checkpoint, int))
        return frozenset((*self.depends_on, *implied))

    @cached_property
    def jobs(self) -> frozenset[UUID]:
        """All jobs that the spec names."""
        return frozenset((*self.depends_on, *(model.from_job for _, model in self.job_models)))

    @cached_property
    def datasets(self) -> frozenset[UUID]:
        """Datasets of the service."""
        return frozenset(one.source.dataset for one in self.data if isinstance(one.source, KnownData))


def _compared(spec: TrainingParts) -> Iterator[tuple[str, JobCheckpoint]]:
    if isinstance(spec, WhatIfSpec):
        yield "checkpoint", spec.checkpoint
    if isinstance(spec, BisectSpec):
        yield from ((f"kept.{index}", one) for index, one in enumerate(spec.kept))


def _training_data(spec: TrainingParts) -> Iterator[NamedData]:
    samples, drops_unearnable = spec.algorithm.samples, spec.unearnable == "drop"
    by_ratio: RowsWithRatio = "all" if samples else "experts"  # without samples, other rows are left out
    ratios: RowsWithRatio = by_ratio if spec.curriculum == "pass_ratio" else "none"
    needs_experts = spec.algorithm.needs_experts and len(spec.sources) == 1  # of several, one with experts is enough
    rewards = tuple(spec.rewards) if samples else ()
    drops = spec.prompts.too_long == "drop" or (samples and drops_unearnable)
    for index, source in enumerate(spec.sources):
        field = f"data.{index}" if isinstance(spec.data, tuple) else "data"
        yield NamedData(field, source, needs_experts, ratios, rewards, read_truth(rewards), drops_unearnable, drops)
    if spec.validation is not None:
        yield NamedData("validation.data", spec.validation.data, needs_answers=read_truth(spec.rewards))
