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
)
from calibrl_core.config import BuiltinModel, PathModel
from calibrl_core.data.files import Survey
from calibrl_core.data.schema import BuiltinData, DataError, FileData
from jobs import lifecycle, models
from jobs.errors import FieldError, Invalid
from jobs.files import hub_models, hub_rows
from jobs.lifecycle.requests import Checked
from jobs.planning import advice, memory, model_shapes
from jobs.planning.data_warnings import data_warnings
from jobs.planning.expert_lengths import expert_tokenizer, expert_tokens
from jobs.planning.local_rows import LocalRows, hub_sources, rows_of_plan
from jobs.planning.model_shapes import ModelShape, UnknownShape
from jobs.planning.model_warnings import image_warnings, model_warnings
from jobs.planning.origins import origin
from jobs.planning.remedies import remedies
from jobs.repository import events, workers
from jobs.specs import file_surveys
from jobs.specs.references import NamedData, References


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
    local = {rows.named.field: rows for rows in rows_of_plan(spec, checked.references, checked.datasets)}
    data = [_facts(one, checked.datasets, local.get(one.field)) for one in checked.references.data]
    steps = _steps(spec, advice.together(spec, data)) if isinstance(spec, TrainSpec) else None
    job.steps_total = steps
    shapes, unknown = _shapes(session, checked, data)
    memory = _memory(session, spec, shapes)
    of_models = [notice for each in shapes for notice in model_warnings(spec, *each, data)]
    tokenizer = expert_tokenizer(session, spec, visible_projects)
    of_data = data_warnings(spec, checked.datasets, tokenizer)
    return JobPlan(
        spec=job.spec,
        models=[_model_facts(session, spec.project, field, model) for field, model in checked.references.models],
        steps=steps,
        data=data,
        memory=memory,
        queue=lifecycle.queue_forecast(session, job, waits=waits),
        warnings=[
            *advice.warnings(spec, data, memory),
            *_of_labels(session, spec.resources.labels),
            *of_data,
            *of_models,
            *unknown,
        ],
    )


def _of_labels(session: Session, labels: dict[str, str]) -> Iterator[Notice]:
    """Yield a notice if no machine has the labels: the job waits for one, without limit."""
    known = [worker.labels for worker, _, _ in workers.page(session, limit=1000, silent_seconds=0)]
    if labels and not any(labels.items() <= of_machine.items() for of_machine in known):
        wanted = ", ".join(f"{key}={value}" for key, value in labels.items())
        text = f"no machine has the labels {wanted}: the job waits until one has them"
        yield Notice(field="resources.labels", message=text)


def read_files(spec: AnySpec, known: Mapping[UUID, models.Dataset], tokenizer: Path | None) -> None:
    """Read the files whose rows `dry_run` counts and looks at, and first rows of the hub. This can take a while: hold
    no transaction meanwhile.

    Args:
        known: the datasets of the spec.
        tokenizer: `expert_tokenizer` of the spec.
    """
    references = References.of(spec)
    for source in references.files:
        with suppress(DataError):  # `dry_run` reports it
            file_surveys.count_rows(source)
    hub_rows.read_samples(source for _, source in hub_sources(references.data, known))
    for rows in rows_of_plan(spec, references, known):
        found = rows.first()
        if tokenizer is not None and rows.named.field != "validation.data":
            expert_tokens(tokenizer, found.expert_texts)  # kept for the warnings


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


def _facts(named: NamedData, datasets: Mapping[UUID, models.Dataset], local: LocalRows | None) -> DataFacts:
    field, source = named.field, named.source
    if local is not None and local.of_hub:
        return _of_hub(local)
    if isinstance(source, KnownData):
        known = datasets[source.dataset]
        rows = known.rows if known.rows is None or source.rows is None else min(known.rows, source.rows)
        if local is not None:
            return _surveyed(field, known.name, rows, local.first().survey)
        experts = 0 if known.has_experts is False else None
        return DataFacts(
            field=field, name=known.name, rows=rows, checked=rows or 0, with_expert=experts, with_images=None
        )
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
    return _surveyed(field, source.name, rows, survey)


def _of_hub(local: LocalRows) -> DataFacts:
    survey = local.first().survey
    return _surveyed(local.named.field, local.file.name, survey.rows if survey.complete else None, survey)


def _surveyed(field: str, name: str, rows: int | None, survey: Survey) -> DataFacts:
    return DataFacts(
        field=field,
        name=name,
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


def _shapes(
    session: Session, checked: Checked, data: Sequence[DataFacts]
) -> tuple[list[tuple[str, ModelChoice, ModelShape]], list[Notice]]:
    """Return the shape of each model, with its field, and notices for each model without a known shape."""
    shapes, unknown = list[tuple[str, ModelChoice, ModelShape]](), list[Notice]()
    for field, model in checked.references.models:
        try:
            shapes.append((field, model, _shape(session, model)))
        except UnknownShape as error:
            unknown.append(Notice(field=field, message=f"memory unknown: {error}"))
            unknown += image_warnings(field, data) if error.text_model else ()
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
    found = origin(session, model)
    if isinstance(found, BuiltinModel):
        return model_shapes.tiny_vlm()
    if isinstance(found, HubModel):
        return model_shapes.of_folder(hub_models.outline_path(found.hub, str(found.revision)))
    return model_shapes.of_folder(Path(found.path) if isinstance(found, PathModel) else found)


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
