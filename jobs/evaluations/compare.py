"""Results of evaluations, and paired comparison of their models on the same prompts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from sqlalchemy.orm import Session

from calibrl.schemas import (
    ComparedModel,
    Comparison,
    Evaluation,
    EvaluationResult,
    JobStatus,
    PairedDifference,
    SplitAccuracies,
)
from calibrl_core.config import EvaluateSettings
from calibrl_core.evaluation.bootstrap import paired_differences
from jobs import models
from jobs.errors import Conflict, FieldError, Invalid
from jobs.repository import accuracies, jobs
from jobs.specs.kind_names import KIND_NAMES

MAX_MODELS = 16  # maximum models per comparison
MAX_PROMPTS = 50_000  # maximum prompts per comparison, over all datasets: about 20 seconds
BOUNDS = ("_low", "_high")
# Fields of a spec that accuracies depend on, besides models and data.
COMPARED_SETTINGS = ("rewards", "prompts", "rollout", "precision")
# They change the speed only.
NOT_COMPARED = ("rollout.batch_tokens", "rollout.server_gpus", "rollout.tensor_parallel")


@dataclass(frozen=True)
class Selection:
    """An evaluation to compare, with all its models or one of them."""

    job: models.Job
    model_index: int | None = None


@dataclass(frozen=True)
class MeasuredModel:
    """A model that an evaluation measured. `sizes`: number of stored prompts by split."""

    job: models.Job
    model_index: int
    model: str
    sizes: dict[str, int]

    @property
    def chosen(self) -> dict[str, Any]:
        return _chosen(self.job, self.model_index)

    def __str__(self) -> str:
        return f"model {self.model_index} of job {self.job.id}"


@dataclass(frozen=True)
class PromptAccuracies:
    """Accuracy per prompt of a split. `prompts`: a digest of each prompt."""

    prompts: list[str]
    values: NDArray[np.float64]

    def in_order_of(self, other: "PromptAccuracies") -> NDArray[np.float64]:
        """Return the values in the order in which `other` has the same prompts; equal prompts keep their order."""
        values = np.empty_like(self.values)
        values[np.argsort(other.prompts, kind="stable")] = self.values[np.argsort(self.prompts, kind="stable")]
        return values


def evaluation(job: models.Job) -> Evaluation:
    """Return the results of a succeeded evaluation.

    Raises:
        Conflict: the job is not an evaluation, or has not succeeded.
    """
    if job.kind != "evaluate":
        raise Conflict(
            f"Job {job.id} is {KIND_NAMES[job.kind]}. Submit a job of kind evaluate with the models to measure."
        )
    if job.status is not JobStatus.SUCCEEDED:
        why = "ended without results" if job.status.final else "has not ended"
        raise Conflict(f"Job {job.id} {why}: it is {job.status}.")
    result = job.result or {}
    try:
        results = [EvaluationResult.model_validate(_result(job, row)) for row in result["results"]]
        shown = {"rollout": result.get("rollout"), "results": results, "comparisons": result["comparisons"]}
        return Evaluation.model_validate({"job_id": job.id, **shown})
    except (LookupError, TypeError, AttributeError, ValidationError) as error:
        raise Conflict(f"Job {job.id} has results in a format that this version does not know.") from error


def add_job_names(
    session: Session, rows: Sequence[EvaluationResult | ComparedModel], projects: frozenset[str] | None
) -> None:
    """Set `chosen_name` of the models that are checkpoints of jobs in these projects (None: in any)."""
    origins = [UUID(row.chosen["from_job"]) if "from_job" in row.chosen else None for row in rows]
    found = jobs.existing(session, {origin for origin in origins if origin})
    names = {job.id: job.name for job in found if projects is None or job.project in projects}
    for row, origin in zip(rows, origins, strict=True):
        row.chosen_name = names.get(origin) if origin else None


def split_accuracies(session: Session, job: models.Job, split: str | None) -> list[SplitAccuracies]:
    """Return the accuracy of each prompt, per model and dataset of a succeeded evaluation.

    Raises:
        Conflict: the job is not a succeeded evaluation, or its accuracies per prompt are not stored.
        Invalid: there is no such dataset, or there are too many prompts.
    """
    evaluation(job)
    sizes = accuracies.sizes(session, [job.id])
    if not sizes:
        raise _nothing_kept(job.id)
    keys = [key for key in sorted(sizes) if split in (None, key[2])]
    if not keys:
        raise _refused("split", f"the evaluation has no dataset {split!r}, only {_names(sizes)}")
    if (prompts := sum(sizes[key] for key in keys)) > MAX_PROMPTS:
        raise _refused("split", f"{prompts} prompts; at most {MAX_PROMPTS} are returned: ask for one dataset at a time")
    rows = accuracies.load(session, keys)
    return [
        SplitAccuracies(model_index=key[1], split=key[2], prompts=row.prompts, values=row.values)
        for key in keys
        if (row := rows.get(key)) is not None
    ]


def _names(sizes: Mapping[tuple[UUID, int, str], int]) -> str:
    return ", ".join(dict.fromkeys(split for _, _, split in sizes))


@dataclass(frozen=True)
class StoredAccuracies:
    """Models to compare, and for each split the accuracies of each model."""

    contenders: list[MeasuredModel]
    splits: dict[str, list[PromptAccuracies]]


def load_accuracies(session: Session, entries: Sequence[Selection], split: str | None) -> StoredAccuracies:
    """Load the accuracies of the models to compare, on one dataset or on all that they share.

    Raises:
        Conflict: a job is not a succeeded evaluation, its accuracies per prompt are not stored, or the models share no
            dataset.
        Invalid: fewer than two or more than MOST_MODELS models, an unknown model, a model without this dataset, or
            too many prompts.
    """
    chosen = _selected_models(session, entries)
    return StoredAccuracies(chosen, {name: _of_split(session, chosen, name) for name in _splits(chosen, split)})


def _selected_models(session: Session, entries: Sequence[Selection]) -> list[MeasuredModel]:
    measured = _measured_models(session, {entry.job.id: entry.job for entry in entries})
    models_by_key: dict[tuple[UUID, int], MeasuredModel] = {}
    for job, index in ((entry.job, entry.model_index) for entry in entries):
        known = {key: one for key, one in measured.items() if key[0] == job.id and index in (None, key[1])}
        if not known:
            raise _refused("jobs", f"job {job.id} has no model {index}; the first index is 0")
        if not all(one.sizes for one in known.values()):
            raise _nothing_kept(job.id)
        models_by_key |= known
    if not 2 <= len(models_by_key) <= MAX_MODELS:
        text = (
            f"names {len(models_by_key)} models; a comparison needs 2 to {MAX_MODELS}, from one or several evaluations"
        )
        raise _refused("jobs", text)
    return list(models_by_key.values())


def _measured_models(session: Session, evaluations: Mapping[UUID, models.Job]) -> dict[tuple[UUID, int], MeasuredModel]:
    """Return all models of some evaluations, by job and index."""
    sizes = accuracies.sizes(session, evaluations.keys())
    models_by_key: dict[tuple[UUID, int], MeasuredModel] = {}
    for job in evaluations.values():
        for row in evaluation(job).results:
            key = job.id, row.model_index
            one = models_by_key.setdefault(key, MeasuredModel(job, row.model_index, row.model, {}))
            if (*key, row.split) in sizes:
                one.sizes[row.split] = sizes[*key, row.split]
    return models_by_key


def _splits(contenders: Sequence[MeasuredModel], split: str | None) -> list[str]:
    """Return this split, or all splits on which each model was measured."""
    for contender in contenders:
        if split is not None and split not in contender.sizes:
            sizes = ", ".join(contender.sizes)
            raise _refused("split", f"{contender} was not measured on this dataset, only on {sizes}")
    common = [name for name in contenders[0].sizes if all(name in contender.sizes for contender in contenders)]
    if not common:
        measured = "; ".join(f"{contender} on {', '.join(contender.sizes)}" for contender in contenders)
        raise Conflict(f"The models share no dataset: {measured}.")
    splits = common if split is None else [split]
    prompts = max(sum(contender.sizes[name] for name in splits) for contender in contenders)
    if prompts > MAX_PROMPTS:
        more = ": compare one dataset at a time" if len(splits) > 1 else ""
        raise _refused("split", f"{prompts} prompts; a comparison can have at most {MAX_PROMPTS}{more}")
    return splits


def _of_split(session: Session, contenders: Sequence[MeasuredModel], split: str) -> list[PromptAccuracies]:
    rows = accuracies.load(session, [(contender.job.id, contender.model_index, split) for contender in contenders])
    measured = []
    for contender in contenders:
        row = rows.get((contender.job.id, contender.model_index, split))
        if row is None:  # the janitor has deleted it
            raise _nothing_kept(contender.job.id)
        measured.append(PromptAccuracies(row.prompts, np.array(row.values, dtype=np.float64)))
    return measured


def compare(stored: StoredAccuracies, seed: int) -> list[Comparison]:
    """Compare models prompt by prompt, on each dataset.

    Raises:
        Conflict: the models were not measured on the same prompts; the message has the number of pairs.
    """
    return [_compare(stored.contenders, split, measured, seed) for split, measured in stored.splits.items()]


def _compare(
    contenders: Sequence[MeasuredModel], split: str, measured: Sequence[PromptAccuracies], seed: int
) -> Comparison:
    first = measured[0]
    for contender, other in zip(contenders[1:], measured[1:], strict=True):
        common = (Counter(first.prompts) & Counter(other.prompts)).total()
        if not common == len(first.prompts) == len(other.prompts):
            raise Conflict(
                f"On {split!r} {contenders[0]} has {len(first.prompts)} prompts and {contender} has "
                f"{len(other.prompts)}, of which {common} are the same. Only answers to the same prompts can be "
                "compared."
            )
    paired = [other.in_order_of(first) for other in measured]
    settings = [_compared_settings(contender.job.spec) for contender in contenders]
    return Comparison(
        split=split,
        prompts=len(first.prompts),
        seed=seed,
        models=[
            ComparedModel(
                job_id=contender.job.id,
                job=contender.job.name,
                model_index=contender.model_index,
                model=contender.model,
                chosen=contender.chosen,
                accuracy=float(values.mean()),
            )
            for contender, values in zip(contenders, paired, strict=True)
        ],
        pairs=[
            PairedDifference(**asdict(pair), distinguishable=pair.distinguishable)
            for pair in paired_differences(paired, seed)
        ],
        settings_differ=_different(settings),
    )


def _different(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of settings that differ, such as `rollout.top_p`."""
    fields = [_fields(one) for one in settings]
    names = dict.fromkeys(name for one in fields for name in one)
    return [
        name
        for name in names
        if name not in NOT_COMPARED and any(one.get(name) != fields[0].get(name) for one in fields)
    ]


def _fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of settings by name, those of `rollout` and `prompts` by dotted name."""
    found: dict[str, Any] = {}
    for name in COMPARED_SETTINGS:
        value = settings.get(name)
        found |= {f"{name}.{field}": one for field, one in value.items()} if isinstance(value, dict) else {name: value}
    return found


def _compared_settings(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return COMPARED_SETTINGS with their defaults, which a spec of an earlier version can lack."""
    given = {name: spec[name] for name in COMPARED_SETTINGS if name in spec}
    try:
        return EvaluateSettings.model_validate(given).model_dump(include=set(COMPARED_SETTINGS))
    except ValidationError:  # a spec that this version does not accept any more
        return given


def _result(job: models.Job, row: Mapping[str, Any]) -> dict[str, Any]:
    sources = {
        name: {"prompts": part["prompts"], "metrics": _measured(part["metrics"])}
        for name, part in row["sources"].items()
    }
    chosen = _chosen(job, row["model_index"])
    return {**row, "metrics": _measured(row["metrics"]), "sources": sources, "chosen": chosen}


def _measured(metrics: Mapping[str, float | str]) -> dict[str, dict[str, float | None]]:
    """Return each metric with its bounds, which are stored as `name_low` and `name_high`; None if not finite."""
    finite = {name: value if isinstance(value, int | float) else None for name, value in metrics.items()}
    bounds = {f"{name}{bound}" for name in metrics for bound in BOUNDS}
    return {
        name: {"value": value, "low": finite.get(f"{name}_low"), "high": finite.get(f"{name}_high")}
        for name, value in finite.items()
        if name not in bounds
    }


def _chosen(job: models.Job, index: int) -> dict[str, Any]:
    chosen: dict[str, Any] = job.spec["models"][index]
    return chosen


def _refused(field: str, text: str) -> Invalid:
    return Invalid("The models cannot be compared.", (FieldError(field, text),))


def _nothing_kept(job_id: UUID) -> Conflict:
    return Conflict(
        f"The accuracies per prompt of job {job_id} are not stored: the job is too old, or past the retention of its "
        f"project. /v1/jobs/{job_id}/evaluation compares its own models."
    )
