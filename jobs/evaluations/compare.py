"""What evaluations found, and how their models compare over the same prompts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from sqlalchemy.orm import Session

from calibrl.schemas import ComparedModel, Comparison, Evaluation, EvaluationResult, JobStatus, PairedDifference
from calibrl_core.bootstrap import differences
from jobs import models
from jobs.errors import Conflict, FieldError, Invalid
from jobs.repository import accuracies

MOST_MODELS = 16  # compared at once
MOST_PROMPTS = 50_000  # of all the data sets that are compared at once: some 20 seconds
BOUNDS = ("_low", "_high")
SETTINGS = ("rewards", "rollout")  # of a spec: beside its models and data, what an accuracy depends on


@dataclass(frozen=True)
class Entry:
    """One that is to be compared: an evaluation, with all its models or one of them."""

    job: models.Job
    model_index: int | None = None


@dataclass(frozen=True)
class Contender:
    """A model that an evaluation measured, and what is kept of it: the number of prompts by split."""

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
    """How each prompt of a split fared. `prompts`: a digest each."""

    prompts: list[str]
    values: NDArray[np.float64]

    def in_order_of(self, other: "PromptAccuracies") -> NDArray[np.float64]:
        """The values in the order in which the other one has the same prompts; equal ones keep their order."""
        values = np.empty_like(self.values)
        values[np.argsort(other.prompts, kind="stable")] = self.values[np.argsort(self.prompts, kind="stable")]
        return values


def evaluation(job: models.Job) -> Evaluation:
    """What an evaluation that has succeeded found.

    Raises:
        Conflict: the job is none, or has not ended, or not well.
    """
    if job.kind != "evaluate":
        raise Conflict(f"Job {job.id} is a training: post a job of kind evaluate that names it under models.")
    if job.status is not JobStatus.SUCCEEDED:
        why = "ended without results" if job.status.final else "has not ended"
        raise Conflict(f"Job {job.id} {why}: it is {job.status}.")
    found = job.result or {}
    try:
        results = [EvaluationResult.model_validate(_result(job, row)) for row in found["results"]]
        return Evaluation.model_validate({"job_id": job.id, "results": results, "comparisons": found["comparisons"]})
    except (LookupError, ValidationError) as error:
        raise Conflict(f"Job {job.id} has left results of another form than is known here.") from error


@dataclass(frozen=True)
class Kept:
    """What is to be compared: models, and of each split what every one of them made of it."""

    contenders: list[Contender]
    splits: dict[str, list[PromptAccuracies]]


def kept(session: Session, entries: Sequence[Entry], split: str | None) -> Kept:
    """What is kept of the models that are to be compared, on one data set or on all that they share.

    Raises:
        Conflict: a job is no evaluation, has not ended well, or nothing is kept of its single prompts; or no data set
            is common to all.
        Invalid: fewer than two models, more than MOST_MODELS, one that a job has not, one that was not measured on the
            data set; or too many prompts.
    """
    chosen = _contenders(session, entries)
    return Kept(chosen, {name: _of_split(session, chosen, name) for name in _splits(chosen, split)})


def _contenders(session: Session, entries: Sequence[Entry]) -> list[Contender]:
    measured = _measured_models(session, {entry.job.id: entry.job for entry in entries})
    found: dict[tuple[UUID, int], Contender] = {}
    for job, index in ((entry.job, entry.model_index) for entry in entries):
        known = {key: one for key, one in measured.items() if key[0] == job.id and index in (None, key[1])}
        if not known:
            raise _refused("jobs", f"job {job.id} has no model {index}; its first is 0")
        if not all(one.sizes for one in known.values()):
            raise _nothing_kept(job.id)
        found |= known
    if not 2 <= len(found) <= MOST_MODELS:
        text = f"names {len(found)} models; 2 to {MOST_MODELS} can be compared: of two jobs, or of one that has several"
        raise _refused("jobs", text)
    return list(found.values())


def _measured_models(session: Session, jobs: Mapping[UUID, models.Job]) -> dict[tuple[UUID, int], Contender]:
    """All models of some evaluations, by job and index."""
    sizes = accuracies.sizes(session, jobs.keys())
    found: dict[tuple[UUID, int], Contender] = {}
    for job in jobs.values():
        for row in evaluation(job).results:
            key = job.id, row.model_index
            one = found.setdefault(key, Contender(job, row.model_index, row.model, {}))
            if (*key, row.split) in sizes:
                one.sizes[row.split] = sizes[*key, row.split]
    return found


def _splits(chosen: Sequence[Contender], split: str | None) -> list[str]:
    """This data set, or all that every model was measured on."""
    for one in chosen:
        if split is not None and split not in one.sizes:
            raise _refused("split", f"{one} was not measured on it, but on {', '.join(one.sizes)}")
    common = [name for name in chosen[0].sizes if all(name in one.sizes for one in chosen)]
    if not common:
        told = "; ".join(f"{one} on {', '.join(one.sizes)}" for one in chosen)
        raise Conflict(f"No data set is common to all: {told}.")
    wanted = common if split is None else [split]
    prompts = max(sum(one.sizes[name] for name in wanted) for one in chosen)
    if prompts > MOST_PROMPTS:
        more = ", on one data set at a time" if len(wanted) > 1 else ""
        raise _refused("split", f"{prompts} prompts in all; {MOST_PROMPTS} at most are compared at once{more}")
    return wanted


def _of_split(session: Session, chosen: Sequence[Contender], split: str) -> list[PromptAccuracies]:
    rows = accuracies.of(session, [(one.job.id, one.model_index, split) for one in chosen])
    found = []
    for one in chosen:
        row = rows.get((one.job.id, one.model_index, split))
        if row is None:  # the janitor was here
            raise _nothing_kept(one.job.id)
        found.append(PromptAccuracies(row.prompts, np.array(row.values, dtype=np.float64)))
    return found


def compare(found: Kept, seed: int) -> list[Comparison]:
    """How models compare, prompt by prompt, on each data set.

    Raises:
        Conflict: they were not asked the same prompts; says how many pair.
    """
    return [_compare(found.contenders, split, asked, seed) for split, asked in found.splits.items()]


def _compare(chosen: Sequence[Contender], split: str, found: Sequence[PromptAccuracies], seed: int) -> Comparison:
    first = found[0]
    for one, other in zip(chosen[1:], found[1:], strict=True):
        common = (Counter(first.prompts) & Counter(other.prompts)).total()
        if not common == len(first.prompts) == len(other.prompts):
            raise Conflict(
                f"On {split!r} {chosen[0]} was asked {len(first.prompts)} prompts and {one} {len(other.prompts)}, "
                f"of which {common} pair: only answers to the same prompts can be compared."
            )
    paired = [other.in_order_of(first) for other in found]
    return Comparison(
        split=split,
        prompts=len(first.prompts),
        seed=seed,
        models=[
            ComparedModel(
                job_id=one.job.id,
                job=one.job.name,
                model_index=one.model_index,
                model=one.model,
                chosen=one.chosen,
                accuracy=float(values.mean()),
            )
            for one, values in zip(chosen, paired, strict=True)
        ],
        pairs=[
            PairedDifference(**asdict(pair), distinguishable=pair.distinguishable) for pair in differences(paired, seed)
        ],
        settings_differ=[
            name for name in SETTINGS if any(one.job.spec.get(name) != chosen[0].job.spec.get(name) for one in chosen)
        ],
    )


def _result(job: models.Job, row: Mapping[str, Any]) -> dict[str, Any]:
    sources = {
        name: {"prompts": part["prompts"], "metrics": _measured(part["metrics"])}
        for name, part in row["sources"].items()
    }
    chosen = _chosen(job, row["model_index"])
    return {**row, "metrics": _measured(row["metrics"]), "sources": sources, "chosen": chosen}


def _measured(metrics: Mapping[str, float | str]) -> dict[str, dict[str, float | None]]:
    """Each metric with its bounds, which stand beside it as `name_low` and `name_high`; text where not finite."""
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
    return Invalid("These can't be compared.", (FieldError(field, text),))


def _nothing_kept(job_id: UUID) -> Conflict:
    return Conflict(
        f"Of job {job_id} it is not kept how single prompts fared: it ended before that was done, or its project keeps "
        f"it no longer. Its own models are compared in /v1/jobs/{job_id}/evaluation."
    )
