"""Checks of a spec: fields, files, plugins, and the jobs and datasets that it names."""

import json
import os.path
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from calibrl.schemas import (
    AnySpec,
    EvaluateSpec,
    JobCheckpoint,
    JobStatus,
    KnownData,
    ReplayRequest,
    TrainSpec,
)
from calibrl_core.config import NEEDS_GPU
from calibrl_core.data.files import RowProblem, Survey, format_problem, join_problems, survey_problems
from calibrl_core.data.schema import BuiltinData, DataSource, FileData, HubData
from calibrl_core.run.process_checks import process_problems
from calibrl_core.verifiers.base import judges_of
from calibrl_core.verifiers.plugin import PluginError, plugin_versions
from calibrl_core.verifiers.refusals import OR_DROP
from jobs.errors import FieldError
from jobs.files import datasets
from jobs.files.allowed_sources import data_problem, hub_model_problem, hub_problem, model_problem, path_problem
from jobs.models import Dataset, Job
from jobs.specs import file_surveys
from jobs.specs.chat_templates import template_fault
from jobs.specs.kind_names import KIND_NAMES
from jobs.specs.references import NamedData, References

MAX_SPEC_BYTES = 512_000  # of a spec as JSON, with all its defaults
_RELATIVE = "must be an absolute path: the worker runs in its own folder"


def size_problems(spec: AnySpec) -> list[FieldError]:
    """Return the largest field of a spec that is too large in all: each list of jobs and each plan reads specs."""
    sizes = {name: len(json.dumps(value)) for name, value in spec.model_dump(mode="json").items()}
    if (total := sum(sizes.values())) <= MAX_SPEC_BYTES:
        return []
    largest = max(sizes, key=lambda name: sizes[name])
    text = f"the spec has {total} bytes as JSON, at most {MAX_SPEC_BYTES}: this field has {sizes[largest]} of them"
    return [FieldError(largest, text)]


def text_problems(spec: AnySpec) -> list[FieldError]:
    """Return the fields with text that PostgreSQL cannot store. A silent change would make a path another path."""
    texts = _texts((), spec.model_dump())
    return [FieldError(field, "contains a NUL character") for field, text in texts if "\x00" in text]


def resource_problems(spec: AnySpec, references: References) -> list[FieldError]:
    """Return requested resources that have no effect or leave no GPU to the trainer, and settings that need others."""
    gpus, of_servers = spec.resources.gpus, spec.rollout.server_gpus or 0
    if of_servers and spec.resources.machines > 1:
        text = (
            "servers on GPUs of their own need all processes on one machine: remove it, or set resources.machines to 1"
        )
        return [FieldError("rollout.server_gpus", text)]
    if 0 < gpus <= of_servers:
        text = f"{of_servers} of {gpus} GPUs leave none to the trainer: lower it, or raise resources.gpus"
        return [FieldError("rollout.server_gpus", text)]
    problems = []
    if spec.limits.min_gpu_utilisation is not None and not gpus:
        text = "the job has no GPU: remove this limit, or set resources.gpus"
        problems.append(FieldError("limits.min_gpu_utilisation", text))
    for field, model in references.models:
        for name, kernels in model.kernels.items():
            if kernels in NEEDS_GPU and not gpus:
                text = f"{kernels} needs a GPU: set resources.gpus, or use auto"
                problems.append(FieldError(f"{field}.{name}", text))
    if isinstance(spec, TrainSpec):
        processes = spec.resources.machines * max(1, spec.rollout.trainer_gpus(gpus))
        problems += [FieldError(field, text) for field, text in process_problems(spec, processes)]
    return problems


def file_problems(references: References) -> list[FieldError]:
    """Return errors in the files that a spec names. Reads the files, which can take a while: hold no lock meanwhile."""
    problems = []
    for field, model in references.path_models:
        problems += [FieldError(f"{field}.path", text) for text in _model_problems(Path(model.path))]
    problems += hub_model_problems(references)
    for one in references.data:
        if isinstance(one.source, FileData):
            problems += [FieldError(f"{one.field}.path", text) for text in _file_problems(one.source, one)]
        if isinstance(one.source, BuiltinData) and one.ratios != "none":
            missing = f"rows of {one.source.builtin} have no pass_ratio: choose another curriculum"
            problems.append(FieldError("curriculum", missing))
        if isinstance(one.source, HubData) and (text := hub_problem(one.source.hub)):
            problems.append(FieldError(f"{one.field}.hub", text))
    return problems


def hub_model_problems(references: References) -> list[FieldError]:
    """Return the models of the hub that jobs cannot name."""
    named = ((field, hub_model_problem(model.hub)) for field, model in references.hub_models)
    return [FieldError(f"{field}.hub", text) for field, text in named if text]


def plugin_problems(spec: AnySpec | ReplayRequest) -> list[FieldError]:
    """Return the verifiers that are not installed here. Reads package metadata only and runs no code of them."""
    problems = []
    for index, reward in enumerate(spec.rewards):
        try:
            plugin_versions(judges_of([reward]))
        except PluginError as error:
            problems.append(FieldError(f"rewards.{index}", str(error)))
    return problems


def prompt_problems(spec: AnySpec) -> list[FieldError]:
    """Return a chat template that cannot be compiled."""
    template = spec.prompts.chat_template
    fault = template_fault(template) if template else None
    return [FieldError("prompts.chat_template", f"{fault}: correct it")] if fault else []


def job_problems(references: References, existing: Mapping[UUID, Job]) -> list[FieldError]:
    """Return errors in the jobs that a spec names. `existing`: those of them that exist."""
    problems = []
    for index, id in enumerate(references.depends_on):
        problems += [FieldError(f"depends_on.{index}", text) for text in _dependency_problems(id, existing)]
    for field, model in references.job_models:
        problems += [FieldError(f"{field}.from_job", text) for text in _origin_problems(model, existing)]
    return problems


def checkpoint_problems(references: References, steps: Mapping[UUID, Collection[int]]) -> list[FieldError]:
    """Return the models that name a missing checkpoint. `steps`: steps with a checkpoint, by training job."""
    problems = []
    for field, model in references.job_models:
        have = steps.get(model.from_job)
        if isinstance(model.checkpoint, int) and have is not None and model.checkpoint not in have:
            problems.append(FieldError(f"{field}.checkpoint", no_checkpoint(model, have)))
    return problems


def no_checkpoint(model: JobCheckpoint, have: Collection[int]) -> str:
    """Return the message that a job has no such checkpoint, with the available steps."""
    what = f"of step {model.checkpoint}" if isinstance(model.checkpoint, int) else "yet"
    instead = f"available steps: {', '.join(map(str, sorted(have)))}" if have else "it has no checkpoint"
    return f"job {model.from_job} has no checkpoint {what}: {instead}"


def data_problems(spec: AnySpec, references: References, existing: Mapping[UUID, Dataset]) -> list[FieldError]:
    """Return errors in the datasets that a spec names. `existing`: those of the service that exist."""
    problems, names = [], set[str]()
    for named in references.data:
        source: DataSource
        if isinstance(named.source, KnownData):
            dataset = existing.get(named.source.dataset)
            if dataset is None or dataset.project != spec.project:
                text = f"dataset {named.source.dataset} does not exist in project {spec.project!r}"
                problems.append(FieldError(f"{named.field}.dataset", text))
                continue
            problems += _dataset_problems(named, named.source, dataset)
            source = datasets.source(dataset, named.source)
        else:
            source = named.source
        if isinstance(spec, EvaluateSpec) and source.name in names:
            text = f"another dataset is also named {source.name!r}, but results are stored by name"
            problems.append(FieldError(named.field, text))
        names.add(source.name)
    return problems


def _dataset_problems(named: NamedData, choice: KnownData, dataset: Dataset) -> Iterator[FieldError]:
    if named.needs_experts and dataset.has_experts is False:
        text = "no row has an expert, but the job needs experts: use other data; {type: grpo} trains without them"
        yield FieldError(f"{named.field}.dataset", text)
    needs_ratio = named.ratios == "all" or (named.ratios == "experts" and dataset.has_experts)
    if needs_ratio and dataset.has_columns is not None and "pass_ratio" not in dataset.has_columns:
        text = "the dataset has no column 'pass_ratio': add it, or choose another curriculum"
        yield FieldError(f"{named.field}.dataset", text)
    if (choice.answer is not None or named.needs_answers) and (problem := _answer_problem(dataset, choice)):
        yield FieldError(f"{named.field}.answer", problem)


def _answer_problem(dataset: Dataset, choice: KnownData) -> str | None:
    """Return why a choice cannot take answers from the column that it names, or from that of the format, or None.
    Needs the columns of the dataset.
    """
    known = dataset.has_columns
    if known is None:
        return None
    if choice.answer is not None and choice.answer not in known:
        return f"the dataset has no column {choice.answer!r}; its columns are {', '.join(map(repr, known))}"
    return format_problem(known, datasets.columns_of(dataset, choice), datasets.format_of(dataset, choice))


def _texts(at: tuple[str, ...], value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield ".".join(at), value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts((*at, str(key)), item)


def _dependency_problems(id: UUID, existing: Mapping[UUID, Job]) -> list[str]:
    job = existing.get(id)
    if job is None:
        return [f"job {id} does not exist"]
    if job.status in JobStatus.broken_ones():
        return [f"job {id} is {job.status} and cannot succeed any more"]
    return []


def _origin_problems(model: JobCheckpoint, existing: Mapping[UUID, Job]) -> list[str]:
    id = model.from_job
    if id in existing and existing[id].kind != "train":
        return [f"job {id} is {KIND_NAMES[existing[id].kind]}, which writes no checkpoints"]
    if id in existing and isinstance(model.checkpoint, int):
        return []  # `checkpoint_problems` checks that it exists
    return _dependency_problems(id, existing)


def _model_problems(path: Path) -> list[str]:
    if not path.is_absolute():
        return [_RELATIVE]
    if refused := path_problem(path):
        return [refused]
    if path.suffix == ".gguf":
        if not _is_file(path):
            return [f"there is no file {path} on the server"]
    elif not os.path.isdir(path):  # noqa: PTH112 - also False for a name that is too long
        return [f"there is no folder {path} on the server"]
    elif not _is_file(path / "config.json"):
        return [f"{path} is not the folder of a saved model: it has no config.json"]
    refused = model_problem(path)
    return [refused] if refused else []


def _file_problems(source: FileData, named: NamedData) -> list[str]:
    path = Path(source.path)
    if not path.is_absolute():
        return [_RELATIVE]
    if refused := data_problem(path):
        return [refused]
    if not (_is_file(path) or os.path.isdir(path)):  # noqa: PTH112 - also False for a name that is too long
        return [f"there is no file {path} on the server"]
    survey = file_surveys.survey(source, answers=named.needs_answers)
    problems = survey_problems(
        source, survey, needs_experts=named.needs_experts, ratios=named.ratios, drops=named.drops
    )
    return problems or _answer_faults(source, survey, named)


def _answer_faults(source: FileData, survey: Survey, named: NamedData) -> list[str]:
    """Return the answers in the first rows that no completion can earn, in one text, if the trainer refuses them. It
    checks all rows.
    """
    rows, faults = dict(survey.answers), file_surveys.answer_faults(survey, named.rewards)
    problems = [str(RowProblem(source.label, rows[answer][0], fault)) for answer, fault in faults.items()]
    if not named.drops_unearnable:
        return [join_problems([f"{problem}{OR_DROP}" for problem in problems])] if problems else []
    dropped = sum(len(rows[answer]) for answer in faults)
    return [f"all {dropped} rows would be dropped: {problems[0]}"] if survey.complete and dropped == survey.rows else []


def _is_file(path: Path) -> bool:
    # A name that the file system refuses, too long or with a NUL, names no file either.
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
