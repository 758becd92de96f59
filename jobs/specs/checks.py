"""Checks of a spec: fields, files, plugins, and the jobs and datasets that it names."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from calibrl.schemas import (
    DataChoice,
    EvaluateSpec,
    JobModel,
    JobSettings,
    JobStatus,
    KnownData,
    ModelChoice,
    Reason,
    ReplayRequest,
    TrainSpec,
    job_spec_adapter,
)
from calibrl_core.config import EvaluateConfig, ModelOptions, PathModel, TrainConfig
from calibrl_core.data.files import form_problem, what_is_wrong
from calibrl_core.data.schema import DataSource, FileData, HubData
from calibrl_core.verifiers.plugin import PluginError, plugin_versions
from jobs.errors import FieldError
from jobs.files import datasets
from jobs.files.allowed_sources import hub_problem, model_problem, path_problem
from jobs.models import Dataset, Job
from jobs.specs import file_surveys

_RELATIVE = "must be an absolute path: the worker runs in its own folder"


class Unusable(Exception):
    """A spec that was accepted once but from which no config can be made now."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def dependencies(spec: TrainSpec | EvaluateSpec) -> set[UUID]:
    """The jobs that must succeed first, named or implied by a model."""
    implied = {model.from_job for _, model in job_models(spec) if not isinstance(model.checkpoint, int)}
    return implied.union(spec.depends_on)


def known_data(spec: TrainSpec | EvaluateSpec) -> set[UUID]:
    """The data sets of the service that a spec names."""
    return {source.dataset for _, source, _ in sources(spec) if isinstance(source, KnownData)}


def job_models(spec: TrainSpec | EvaluateSpec) -> list[tuple[str, JobModel]]:
    """The models that are other jobs' checkpoints, each with its field."""
    return [(field, model) for field, model in _models(spec) if isinstance(model, JobModel)]


def text_problems(spec: TrainSpec | EvaluateSpec) -> list[FieldError]:
    """Return the fields with text that PostgreSQL cannot store. A silent change would make a path another path."""
    texts = _texts((), spec.model_dump())
    return [FieldError(field, "contains a NUL character") for field, text in texts if "\x00" in text]


def resource_problems(spec: TrainSpec | EvaluateSpec) -> list[FieldError]:
    """Return requested resources that have no effect."""
    found = []
    if isinstance(spec, EvaluateSpec) and spec.resources.gpus > 1:
        found.append(FieldError("resources.gpus", "an evaluation runs in one process: use at most 1"))
    if spec.limits.min_gpu_utilisation is not None and not spec.resources.gpus:
        found.append(
            FieldError("limits.min_gpu_utilisation", "the job has no GPU: remove this limit, or set resources.gpus")
        )
    return found


def file_problems(spec: TrainSpec | EvaluateSpec) -> list[FieldError]:
    """Return errors in the files that a spec names. Reads the files, which can take a while: hold no lock meanwhile."""
    found = []
    for field, model in _models(spec):
        if isinstance(model, PathModel):
            found += [FieldError(f"{field}.path", text) for text in _model_problems(Path(model.path))]
    for field, source, needs_experts in sources(spec):
        if isinstance(source, FileData):
            found += [FieldError(f"{field}.path", text) for text in _file_problems(source, needs_experts)]
        if isinstance(source, HubData) and (text := hub_problem(source.hub)):
            found.append(FieldError(f"{field}.hub", text))
    return found


def plugin_problems(spec: TrainSpec | EvaluateSpec | ReplayRequest) -> list[FieldError]:
    """Return the verifiers that are not installed here. Reads package metadata only and runs no code of them."""
    found = []
    for index, reward in enumerate(spec.rewards):
        try:
            plugin_versions([reward])
        except PluginError as error:
            found.append(FieldError(f"rewards.{index}", str(error)))
    return found


def job_problems(spec: TrainSpec | EvaluateSpec, known: Mapping[UUID, Job]) -> list[FieldError]:
    """What is wrong with the jobs that a spec names. `known`: those of them that exist."""
    found = []
    for index, id in enumerate(spec.depends_on):
        found += [FieldError(f"depends_on.{index}", text) for text in _dependency_problems(id, known)]
    for field, model in job_models(spec):
        found += [FieldError(f"{field}.from_job", text) for text in _origin_problems(model, known)]
    return found


def checkpoint_problems(spec: TrainSpec | EvaluateSpec, steps: Mapping[UUID, Collection[int]]) -> list[FieldError]:
    """Which models name a step of which a job has no checkpoint. `steps`: of which it has one, for the jobs that exist
    and leave any."""
    found = []
    for field, model in job_models(spec):
        have = steps.get(model.from_job)
        if isinstance(model.checkpoint, int) and have is not None and model.checkpoint not in have:
            found.append(FieldError(f"{field}.checkpoint", no_checkpoint(model, have)))
    return found


def no_checkpoint(model: JobModel, have: Collection[int]) -> str:
    """That there is no such checkpoint, and which there are."""
    what = f"of step {model.checkpoint}" if isinstance(model.checkpoint, int) else "yet"
    instead = f"available steps: {', '.join(map(str, sorted(have)))}" if have else "it has no checkpoint"
    return f"job {model.from_job} has no checkpoint {what}: {instead}"


def data_problems(spec: TrainSpec | EvaluateSpec, known: Mapping[UUID, Dataset]) -> list[FieldError]:
    """What is wrong with the service's data sets that a spec names. `known`: those of its `known_data` that exist."""
    found, names = [], set[str]()
    for field, choice, needs_experts in sources(spec):
        source: DataSource
        if isinstance(choice, KnownData):
            dataset = known.get(choice.dataset)
            if dataset is None or dataset.project != spec.project:
                text = f"dataset {choice.dataset} does not exist in project {spec.project!r}"
                found.append(FieldError(f"{field}.dataset", text))
                continue
            if needs_experts and dataset.has_experts is False:
                text = "no row has an expert, but the algorithm needs experts; use {type: grpo}, or other data"
                found.append(FieldError(f"{field}.dataset", text))
            if choice.answer is not None and (wrong := _answer_problem(dataset, choice)):
                found.append(FieldError(f"{field}.answer", wrong))
            source = datasets.source(dataset, choice)
        else:
            source = choice
        if isinstance(spec, EvaluateSpec) and source.name in names:
            found.append(
                FieldError(field, f"another dataset is also named {source.name!r}, but results are stored by name")
            )
        names.add(source.name)
    return found


def core_config(
    spec: Mapping[str, Any],
    resolve: Callable[[JobModel], Path],
    find_data: Callable[[KnownData], FileData | HubData],
) -> dict[str, Any]:
    """The core's TrainConfig or EvaluateConfig as JSON, from a stored spec.

    `resolve` finds another job's checkpoint, `find_data` a data set of the service on this machine.

    Raises:
        Unusable: this version of the core does not take the spec any more, or this machine not its paths.
    """

    def source(model: ModelChoice) -> dict[str, Any]:
        if not isinstance(model, JobModel):
            return model.model_dump(mode="json")
        options = model.model_dump(mode="json", include={*ModelOptions.model_fields})
        return {"path": str(resolve(model)), **options}

    def data(choice: DataChoice) -> dict[str, Any]:
        return (find_data(choice) if isinstance(choice, KnownData) else choice).model_dump(mode="json")

    try:
        parsed = job_spec_adapter.validate_python(spec)
        _check_paths(parsed)
        settings = parsed.model_dump(mode="json", exclude={*JobSettings.model_fields, "kind", "model", "models"})
        if isinstance(parsed, EvaluateSpec):
            settings |= {"models": [*map(source, parsed.models)], "data": [*map(data, parsed.data)]}
            return EvaluateConfig.model_validate(settings).model_dump(mode="json")
        settings |= {"model": source(parsed.model), "data": data(parsed.data)}
        if parsed.validation is not None:
            settings["validation"] = {**settings["validation"], "data": data(parsed.validation.data)}
        return TrainConfig.model_validate(settings).model_dump(mode="json")
    except ValidationError as error:
        raise Unusable(Reason.BAD_SPEC, f"this version does not accept the spec: {error}") from error


def _check_paths(spec: TrainSpec | EvaluateSpec) -> None:
    """Once more, where they are read: a link may lead elsewhere by now."""
    found = [model_problem(Path(model.path)) for _, model in _models(spec) if isinstance(model, PathModel)]
    found += [path_problem(Path(source.path)) for _, source, _ in sources(spec) if isinstance(source, FileData)]
    for refused in found:
        if refused:
            raise Unusable(Reason.BAD_SPEC, refused)


def _answer_problem(dataset: Dataset, choice: KnownData) -> str | None:
    """What is against taking answers from the column that a choice names, where the data set's columns are known."""
    known = dataset.has_columns
    if known is None:
        return None
    if choice.answer not in known:
        return f"the dataset has no column {choice.answer!r}; its columns are {', '.join(map(repr, known))}"
    return form_problem(known, datasets.columns_of(dataset, choice))


def _texts(at: tuple[str, ...], value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield ".".join(at), value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts((*at, str(key)), item)


def _models(spec: TrainSpec | EvaluateSpec) -> Iterator[tuple[str, ModelChoice]]:
    if isinstance(spec, TrainSpec):
        yield "model", spec.model
    else:
        yield from ((f"models.{index}", model) for index, model in enumerate(spec.models))


def sources(spec: TrainSpec | EvaluateSpec) -> Iterator[tuple[str, DataChoice, bool]]:
    """Every data set: its field, its settings, and whether its rows must have experts."""
    if isinstance(spec, TrainSpec):
        yield "data", spec.data, spec.algorithm.needs_experts
        if spec.validation is not None:
            yield "validation.data", spec.validation.data, False
    else:
        yield from ((f"data.{index}", source, False) for index, source in enumerate(spec.data))


def _dependency_problems(id: UUID, known: Mapping[UUID, Job]) -> list[str]:
    job = known.get(id)
    if job is None:
        return [f"job {id} does not exist"]
    if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        return [f"job {id} is {job.status} and cannot succeed any more"]
    return []


def _origin_problems(model: JobModel, known: Mapping[UUID, Job]) -> list[str]:
    id = model.from_job
    if id in known and known[id].kind != "train":
        return [f"job {id} is an evaluation, which writes no checkpoints"]
    if id in known and isinstance(model.checkpoint, int):
        return []  # `checkpoint_problems` checks that it exists
    return _dependency_problems(id, known)


def _model_problems(path: Path) -> list[str]:
    if not path.is_absolute():
        return [_RELATIVE]
    if refused := path_problem(path):
        return [refused]
    if path.suffix == ".gguf":
        if not _is_file(path):
            return [f"there is no file {path} on the server"]
    elif not _is_file(path / "config.json"):
        return [f"{path} is not the folder of a saved model: it has no config.json"]
    refused = model_problem(path)
    return [refused] if refused else []


def _file_problems(source: FileData, needs_experts: bool) -> list[str]:
    path = Path(source.path)
    if not path.is_absolute():
        return [_RELATIVE]
    if refused := path_problem(path):
        return [refused]
    if not _is_file(path):
        return [f"there is no file {path} on the server"]
    return what_is_wrong(source, file_surveys.survey(source), needs_experts=needs_experts)


def _is_file(path: Path) -> bool:
    # A name that the file system refuses, too long or with a NUL, names no file either.
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
