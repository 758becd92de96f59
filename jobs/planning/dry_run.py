"""Dry run: checks a spec and predicts its execution, without adding anything to the database."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from sqlalchemy.orm import Session

from calibrl.schemas import (
    GIB,
    AnySpec,
    DataFacts,
    HubModel,
    JobPlan,
    JobStatus,
    KnownData,
    MemoryPlan,
    ModelChoice,
    ModelFacts,
    Notice,
    TrainSpec,
    job_spec_adapter,
)
from calibrl_core.config import BuiltinModel, PathModel
from calibrl_core.data.schema import BuiltinData, DataError, FileData
from jobs import lifecycle, models
from jobs.errors import FieldError, Invalid
from jobs.files import artifacts, hub_models
from jobs.lifecycle.requests import Checked
from jobs.planning import advice, memory, model_shapes
from jobs.planning.data_warnings import data_warnings, local_files
from jobs.planning.expert_lengths import expert_tokens
from jobs.planning.model_shapes import ModelShape, UnknownShape
from jobs.planning.model_warnings import model_warnings
from jobs.planning.remedies import remedies
from jobs.repository import checkpoints, events, jobs, workers
from jobs.specs import file_surveys
from jobs.specs.references import NamedData, References

MAX_ORIGINS = 32  # maximum jobs through which the origin of a model is followed


def dry_run(session: Session, spec: AnySpec, *, actor: str, visible_projects: frozenset[str] | None = None) -> JobPlan:
    """Check a spec as a submission would, and return the prediction.

    Raises:
        Invalid: fields that are not valid; each is named.
        QuotaExceeded: the project has reached its limit of waiting jobs.
    """
    checked = lifecycle.check(session, spec, visible_projects)
    job = lifecycle.new_job(checked, actor=actor)
    waits = checked.open_dependencies > 0
    job.status = JobStatus.WAITING if waits else JobStatus.QUEUED
    data = [_facts(one, checked.datasets) for one in checked.references.data]
    shapes, unknown = _shapes(session, checked)
    memory = _memory(session, spec, shapes)
    of_models = [notice for each in shapes for notice in model_warnings(spec, *each, data)]
    of_data = data_warnings(spec, checked.datasets) if isinstance(spec, TrainSpec) else ()
    return JobPlan(
        spec=job.spec,
        models=[_model_facts(session, spec.project, field, model) for field, model in checked.references.models],
        steps=_steps(spec, advice.together(spec, data)) if isinstance(spec, TrainSpec) else None,
        data=data,
        memory=memory,
        queue=lifecycle.queue_forecast(session, job, waits=waits),
        warnings=[*advice.warnings(spec, data, memory), *of_data, *of_models, *unknown],
    )


def read_files(spec: AnySpec, known: Mapping[UUID, models.Dataset]) -> None:
    """Read the files whose rows `dry_run` counts and looks at. This can take a while: hold no transaction meanwhile.
    `known`: the datasets of the spec."""
    references = References.of(spec)
    for source in references.files:
        with suppress(DataError):  # `dry_run` reports it
            file_surveys.count_rows(source)
    if isinstance(spec, TrainSpec):
        for named, source in local_files(references, known):
            rows = file_surveys.first_rows(source, answers=named.needs_answers)
            if spec.algorithm.needs_experts:
                expert_tokens(spec.model, spec.project, rows.expert_texts)  # kept for the warnings


def _model_facts(session: Session, project: str, field: str, model: ModelChoice) -> ModelFacts:
    event = events.last_check(session, project, model.model_dump(mode="json"))
    check = event.message if event else None
    if isinstance(model, HubModel):
        size = sum(hub_models.sizes(model.hub, str(model.revision)).values())
        return ModelFacts(field=field, name=model.hub, commit=model.revision, download_bytes=size or None, check=check)
    if isinstance(model, BuiltinModel):
        name: str = model.builtin
    else:
        name = model.path if isinstance(model, PathModel) else f"job {model.from_job}"
    return ModelFacts(field=field, name=name, commit=None, download_bytes=None, check=check)


def _facts(named: NamedData, datasets: Mapping[UUID, models.Dataset]) -> DataFacts:
    field, source = named.field, named.source
    if isinstance(source, KnownData):
        known = datasets[source.dataset]
        rows = known.rows if known.rows is None or source.rows is None else min(known.rows, source.rows)
        return DataFacts(field=field, name=known.name, rows=rows, checked=rows or 0, with_expert=None, with_images=None)
    if isinstance(source, BuiltinData):
        rows = source.row_count  # all rows have an image and an expert
        return DataFacts(field=field, name=source.name, rows=rows, checked=rows, with_expert=rows, with_images=rows)
    if not isinstance(source, FileData):
        return DataFacts(field=field, name=source.name, rows=None, checked=0, with_expert=None, with_images=None)
    survey = file_surveys.survey(source, answers=named.needs_answers)
    try:
        rows = file_surveys.count_rows(source)
    except DataError as error:  # it was readable a moment ago
        raise Invalid("The data cannot be read.", (FieldError(f"{field}.path", str(error)),)) from error
    return DataFacts(
        field=field,
        name=source.name,
        rows=rows,
        checked=survey.rows,
        with_expert=survey.with_expert,
        with_images=survey.with_images,
        row_format=survey.row_format,
        unused_columns=list(survey.unused_columns),
    )


def _steps(spec: TrainSpec, facts: DataFacts) -> int | None:
    """Return the number of steps; None if it depends on the rows and their number is unknown."""
    if spec.epochs is None:
        return spec.steps
    return None if facts.rows is None else spec.step_count(facts.rows)


def _shapes(session: Session, checked: Checked) -> tuple[list[tuple[str, ModelChoice, ModelShape]], list[Notice]]:
    """Return the shape of each model, with its field, and a notice for each model without a known shape."""
    shapes, unknown = list[tuple[str, ModelChoice, ModelShape]](), list[Notice]()
    for field, model in checked.references.models:
        try:
            shapes.append((field, model, _shape(session, model)))
        except UnknownShape as error:
            unknown.append(Notice(field=field, message=f"memory unknown: {error}"))
    return shapes, unknown


def _memory(
    session: Session, spec: AnySpec, shapes: Sequence[tuple[str, ModelChoice, ModelShape]]
) -> MemoryPlan | None:
    """Return the estimate for the largest model."""
    plans = [(memory.estimate(spec, shape, model), shape) for _, model, shape in shapes]
    if not plans:
        return None
    largest, shape = max(plans, key=lambda plan: plan[0].bytes)
    return _with_machines(largest, spec, shape, workers.page(session, limit=1000, silent_seconds=0))


def _shape(session: Session, model: ModelChoice) -> ModelShape:
    for _ in range(MAX_ORIGINS):
        if isinstance(model, BuiltinModel):
            return model_shapes.tiny_vlm()
        if isinstance(model, PathModel):
            return model_shapes.of_folder(Path(model.path))
        if isinstance(model, HubModel):
            return model_shapes.of_folder(hub_models.outline_path(model.hub, str(model.revision)))
        row = checkpoints.choose(session, model.from_job, model.checkpoint)
        folder = artifacts.find_checkpoint(row) if row else None
        if folder and (folder / "config.json").is_file():
            return model_shapes.of_folder(folder)
        model = _origin(session, model.from_job)  # no checkpoint yet, but it will have the same shape
    raise UnknownShape(f"its origin is more than {MAX_ORIGINS} jobs away")


def _origin(session: Session, job_id: UUID) -> ModelChoice:
    spec = job_spec_adapter.validate_python(jobs.get(session, job_id).spec)
    assert isinstance(spec, TrainSpec)
    return spec.model


def _with_machines(
    plan: MemoryPlan,
    spec: AnySpec,
    shape: ModelShape,
    machines: Sequence[tuple[models.Worker, bool, list[UUID]]],
) -> MemoryPlan:
    """Set `fits`: True if enough machines with the labels have enough GPUs of that size; else what makes it fit."""
    if plan.on == "host":
        text = f"about {plan.bytes / GIB:.1f} GiB of host memory; the memory of the machines is unknown"
        return plan.model_copy(update={"explanation": text})
    resources = spec.resources
    sizes = sorted(_sizes(machines, resources.labels, resources.gpus), reverse=True)
    most = sizes[resources.machines - 1] if len(sizes) >= resources.machines else 0
    phase = max(plan.phases, key=lambda phase: plan.phases[phase])
    text = (
        f"each process takes about {plan.bytes / GIB:.1f} GiB ({phase}); the available GPUs have {most / GIB:.1f} GiB"
    )
    found: list[str] = []
    if plan.bytes > most > 0 and isinstance(spec, TrainSpec):
        found = remedies(spec, lambda other: memory.estimate(other, shape, other.model).bytes <= most)
        text += f"; it would fit with {', '.join(found)}" if found else "; no setting makes it fit: use more GPUs"
    return plan.model_copy(update={"fits": plan.bytes <= most, "explanation": text, "remedies": found})


def _sizes(
    machines: Sequence[tuple[models.Worker, bool, list[UUID]]], labels: dict[str, str], count: int
) -> Iterator[int]:
    """Yield, for each machine with the labels and enough GPUs, the bytes of the smallest of its `count` largest
    GPUs."""
    for worker, _, _ in machines:
        sizes = sorted((gpu.memory_total for gpu in worker.gpus), reverse=True)
        if len(sizes) >= count and all(worker.labels.get(key) == value for key, value in labels.items()):
            yield sizes[count - 1]
