"""Configuration of a trainer, made from a stored spec."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from calibrl.schemas import (
    AnySpec,
    AuditSpec,
    BisectSpec,
    DataChoice,
    EvaluateSpec,
    HubModel,
    JobCheckpoint,
    JobModel,
    JobSettings,
    KnownData,
    ModelChoice,
    Reason,
    TrainSpec,
    WhatIfSpec,
    job_spec_adapter,
)
from calibrl_core.auditing.settings import AuditConfig
from calibrl_core.bisection.settings import BisectConfig
from calibrl_core.config import EvaluateConfig, ModelOptions, TrainConfig
from calibrl_core.data.schema import FileData, HubData
from calibrl_core.variants.settings import WhatIfConfig
from jobs.files.allowed_sources import data_problem, model_problem
from jobs.settings import get_settings
from jobs.specs.references import References


class SpecNoLongerValid(Exception):
    """A spec was accepted once, but no configuration can be made from it now. `reason`: why the job fails."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def trainer_config(
    spec: Mapping[str, Any],
    find_checkpoint: Callable[[JobCheckpoint], Path],
    find_data: Callable[[KnownData], FileData | HubData],
    find_hub_model: Callable[[HubModel], Path],
) -> dict[str, Any]:
    """Return the config of a stored spec as JSON: of `calibrl_core`, by the kind of the job.

    Args:
        find_checkpoint: returns the folder of another job's checkpoint.
        find_data: returns a dataset of the service as a source on this machine.
        find_hub_model: returns the folder of a model of the hub on this machine.

    Raises:
        SpecNoLongerValid: this version does not accept the spec any more, or this machine not its paths.
    """

    def model_source(model: ModelChoice) -> dict[str, Any]:
        if not isinstance(model, JobModel | HubModel):
            return model.model_dump(mode="json")
        options = model.model_dump(mode="json", include={*ModelOptions.model_fields})
        path = find_checkpoint(model) if isinstance(model, JobModel) else find_hub_model(model)
        return {"path": str(path), **options}

    def data_source(choice: DataChoice) -> dict[str, Any]:
        return (find_data(choice) if isinstance(choice, KnownData) else choice).model_dump(mode="json")

    try:
        parsed = job_spec_adapter.validate_python(spec)
        _check_paths(parsed)
        settings = parsed.model_dump(mode="json", exclude={*JobSettings.model_fields, "kind", "model", "models"})
        settings["sandbox"] = get_settings().sandbox.model_dump(mode="json")
        if isinstance(parsed, EvaluateSpec):
            settings |= {"models": [*map(model_source, parsed.models)], "data": [*map(data_source, parsed.data)]}
            return EvaluateConfig.model_validate(settings).model_dump(mode="json")
        if isinstance(parsed, AuditSpec):
            settings |= {"model": model_source(parsed.model), "data": data_source(parsed.data)}
            return AuditConfig.model_validate(settings).model_dump(mode="json")
        return _training(parsed, settings, model_source, data_source, find_checkpoint)
    except ValidationError as error:
        raise SpecNoLongerValid(Reason.BAD_SPEC, f"this version does not accept the spec: {error}") from error


def _training(
    spec: TrainSpec | WhatIfSpec | BisectSpec,
    settings: dict[str, Any],
    model_source: Callable[[ModelChoice], dict[str, Any]],
    data_source: Callable[[DataChoice], dict[str, Any]],
    find_checkpoint: Callable[[JobCheckpoint], Path],
) -> dict[str, Any]:
    """Return the config of a training, or of a job that takes steps of one again."""
    data = [*map(data_source, spec.sources)]
    settings |= {"model": model_source(spec.model), "data": data if isinstance(spec.data, tuple) else data[0]}
    if spec.validation is not None:
        settings["validation"] = {**settings["validation"], "data": data_source(spec.validation.data)}
    if isinstance(spec, WhatIfSpec):
        settings["checkpoint"] = {"path": str(find_checkpoint(spec.checkpoint))}
        return WhatIfConfig.model_validate(settings).model_dump(mode="json")
    if isinstance(spec, BisectSpec):
        settings["kept"] = [{"path": str(find_checkpoint(one))} for one in spec.kept]
        return BisectConfig.model_validate(settings).model_dump(mode="json")
    return TrainConfig.model_validate(settings).model_dump(mode="json")


def _check_paths(spec: AnySpec) -> None:
    """Check the paths again on the machine that reads them: a link can have a new target."""
    references = References.of(spec)
    problems = [model_problem(Path(model.path)) for _, model in references.path_models]
    problems += [data_problem(Path(source.path)) for source in references.files]
    for problem in problems:
        if problem:
            raise SpecNoLongerValid(Reason.BAD_SPEC, problem)
