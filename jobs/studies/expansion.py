"""Expansion of a study into its jobs: a pure function with deterministic names, labels and digests."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import product
from typing import Any, Literal
from uuid import UUID

from pydantic import ValidationError

from calibrl.schemas.jobs import MAX_LABELS
from calibrl.schemas.recorded_runs import DIGEST as DIGEST
from calibrl.schemas.spec_paths import set_fields
from calibrl.schemas.specs import EvaluateSpec, TrainSpec
from calibrl.schemas.studies import MAX_ARM_NAME, MAX_ARMS, MAX_STUDY_RUNS, AxisRange, StudySpec, WarmUp, faults
from jobs.errors import FieldError, Invalid

Part = Literal["warm-up", "training", "evaluation"]
NO_JOB = UUID(int=0)  # placeholder of a job that is not submitted yet
STUDY, ARM, SEED, PART, RETRIES = (
    "study",
    "study-arm",
    "study-seed",
    "study-part",
    "study-retries",
)  # keys of labels
OUTSIDE_DIGEST = frozenset({"name", "project", "priority", "labels", "resources", "limits", "depends_on"})
MODEL_SOURCE = frozenset({"builtin", "seed", "path", "hub", "revision", "from_job", "checkpoint"})
MAX_SHOWN_VALUE = 12  # characters of a value in the name of an arm


@dataclass(frozen=True)
class NamedArm:
    """An arm with its changes of the base spec by path."""

    name: str
    changes: dict[str, Any]


@dataclass(frozen=True)
class StudyJob:
    """A job of a study. `digest` identifies its settings, with those of the job that it starts from: `needs` is the
    digest of that one.
    """

    part: Part
    arm: str | None
    seed: int | None
    digest: str
    needs: str | None
    spec: dict[str, Any]

    def spec_from(self, job_id: UUID | None) -> dict[str, Any]:
        """Return the spec with the id of the job that it starts from."""
        spec = deepcopy(self.spec)
        for model in (*spec.get("models", ()), *([spec["model"]] if "model" in spec else ())):
            if model.get("from_job") == str(NO_JOB):
                model["from_job"] = str(job_id)
        return spec


@dataclass(frozen=True)
class Expansion:
    """All jobs of a study: warm-ups, then per seed the training and the evaluation of each arm, in the order of the
    file.
    """

    arms: tuple[NamedArm, ...]
    jobs: tuple[StudyJob, ...]

    @property
    def project(self) -> str:
        """Return the project of the jobs."""
        return str(self.jobs[0].spec.get("project", "default"))

    @cached_property
    def by_digest(self) -> dict[str, StudyJob]:
        """Return the jobs by digest."""
        return {job.digest: job for job in self.jobs}

    def of(self, part: Part, *, arm: str | None = None, seed: int | None = None) -> Iterator[StudyJob]:
        """Yield the jobs of a part, of an arm and a seed if these are given."""
        for job in self.jobs:
            if job.part == part and arm in (None, job.arm) and seed in (None, job.seed):
                yield job


Points = Mapping[str, Sequence[Mapping[str, float]]]  # values of ranges by path, of each point of each arm
NO_POINTS: Points = {}


def expand(study: StudySpec, points: Points = NO_POINTS) -> Expansion:
    """Return all jobs of a study. `points`: those that the sampler has chosen so far.

    Raises:
        Invalid: the spec of a job is invalid, there are too many jobs, or the baseline is no arm.
    """
    found = arms(study, points)
    if len(found) * len(study.seeds) > MAX_STUDY_RUNS:
        raise refused(
            "seeds",
            f"the study has {len(found)} arms x {len(study.seeds)} seeds, {len(found) * len(study.seeds)} runs; "
            f"at most {MAX_STUDY_RUNS} are allowed: remove arms, values of axes, or seeds",
        )
    if study.baseline is not None and study.baseline not in (arm.name for arm in found):
        raise refused("baseline", f"there is no arm {study.baseline!r}; arms: {', '.join(arm.name for arm in found)}")
    warm_ups = _warm_ups(study, study.warm_up) if study.warm_up else {}
    jobs = list({one.digest: one for one in warm_ups.values()}.values())
    for seed in study.seeds:
        for arm in found:
            training = _training(study, arm, seed, warm_ups.get(seed))
            jobs += [training, _evaluation(study, training)]
    _distinct_runs(jobs)
    return Expansion(tuple(found), tuple(jobs))


def arms(study: StudySpec, points: Points = NO_POINTS) -> list[NamedArm]:
    """Return the arms of a study: each named arm with every combination of the values of the axes, and if axes are
    ranges with each of its points.

    Raises:
        Invalid: the names of two arms are equal, a name is too long, or there are too many arms.
    """
    found = groups(study)
    names = [arm.name for arm in found]
    longest = [point_name(name, study.search.points) for name in names] if study.search else names
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise refused("arms", f"two arms have the name {twice!r}; name arms in place of axes")
    if long := next((name for name in longest if len(name) > MAX_ARM_NAME), None):
        raise refused("arms", f"{long!r} has more than {MAX_ARM_NAME} characters; name arms in place of axes")
    count = len(found) * (study.search.points if study.search else 1)
    if count > MAX_ARMS:
        raise refused("axes", f"the study has {count} arms; at most {MAX_ARMS} are allowed: remove values or points")
    if study.search is None:
        return found
    return [
        NamedArm(point_name(arm.name, number), arm.changes | dict(point))
        for arm in found
        for number, point in enumerate(points.get(arm.name, ()), 1)
    ]


def groups(study: StudySpec) -> list[NamedArm]:
    """Return each named arm with every combination of the listed values of the axes."""
    axes = {path: values for path, values in study.axes.items() if not isinstance(values, AxisRange)}
    found: list[NamedArm] = []
    for name, changes in (dict(study.arms) or {"base": {}}).items():
        for values in product(*(enumerate(values) for values in axes.values())):
            parts = [_shown(path, *value) for path, value in zip(axes, values, strict=True)]
            own = dict(zip(axes, (value for _, value in values), strict=True))
            found.append(NamedArm("-".join([name, *parts]), changes | own))
    return found


def ranges(study: StudySpec) -> dict[str, AxisRange]:
    """Return the ranges of a study by path."""
    return {path: axis for path, axis in study.axes.items() if isinstance(axis, AxisRange)}


def point_name(arm: str, number: int) -> str:
    """Return the name of a point of an arm. `number`: from 1."""
    return f"{arm}-point-{number}"


def _shown(path: str, place: int, value: Any) -> str:
    """Return a value of an axis for the name of an arm; a long one, a list or a mapping by its number."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{value:g}" if isinstance(value, float) else str(value))
    if isinstance(value, dict | list) or len(text) > MAX_SHOWN_VALUE:
        text = f"{place + 1}"
    return f"{path.rpartition('.')[2]}-{text}"


def _warm_ups(study: StudySpec, warm_up: WarmUp) -> dict[int, StudyJob]:
    """Return the warm-up of each seed."""
    spec: dict[str, Any] = deepcopy(study.base)
    _change(spec, warm_up.changes, "warm_up.changes")
    if not warm_up.each_seed:
        return dict.fromkeys(study.seeds, _job(study, "warm-up", spec, where="warm_up"))
    return {seed: _job(study, "warm-up", spec | {"seed": seed}, seed=seed, where="warm_up") for seed in study.seeds}


def _training(study: StudySpec, arm: NamedArm, seed: int, warm_up: StudyJob | None) -> StudyJob:
    spec: dict[str, Any] = deepcopy(study.base)
    where = f"arms.{arm.name}"
    _change(spec, arm.changes, where)
    spec["seed"] = seed
    if warm_up is not None and study.warm_up is not None:
        options = {name: value for name, value in _model(spec).items() if name not in MODEL_SOURCE}
        spec["model"] = {"from_job": str(NO_JOB), "checkpoint": study.warm_up.checkpoint, **options}
    return _job(study, "training", spec, arm=arm.name, seed=seed, needs=warm_up, where=where)


def _evaluation(study: StudySpec, training: StudyJob) -> StudyJob:
    settings = study.evaluation.model_dump(mode="json", exclude_unset=True)
    model = {"from_job": str(NO_JOB), "checkpoint": settings.pop("checkpoint", "best")}
    shared: dict[str, Any] = {
        name: study.base[name] for name in ("project", "priority", "labels") if name in study.base
    }
    spec: dict[str, Any] = {**shared, **settings, "kind": "evaluate", "models": [model]}
    return _job(study, "evaluation", spec, arm=training.arm, seed=training.seed, needs=training, where="evaluation")


def _model(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    model = spec.get("model")
    return model if isinstance(model, dict) else {}


def _change(spec: dict[str, Any], changes: Mapping[str, Any], where: str) -> None:
    try:
        set_fields(spec, deepcopy(dict(changes)))
    except ValueError as error:
        raise refused(where, str(error)) from None


def _job(
    study: StudySpec,
    part: Part,
    spec: Mapping[str, Any],
    *,
    where: str,
    arm: str | None = None,
    seed: int | None = None,
    needs: StudyJob | None = None,
) -> StudyJob:
    """Return a job with its name, labels and digest.

    Raises:
        Invalid: the spec is invalid; the error is that of the field `where`.
    """
    name = " ".join(filter(None, (study.name, arm, None if seed is None else f"seed {seed}", part)))
    spec = {"kind": "train", **spec, "name": name}
    labels = spec.get("labels")
    checked = _checked({**spec, "labels": labels if isinstance(labels, dict) else {}}, where)
    settings = checked.model_dump(mode="json", exclude_unset=True, exclude=set(OUTSIDE_DIGEST))
    text = json.dumps([settings, needs and needs.digest], sort_keys=True)
    digest = sha256(text.encode()).hexdigest()[:16]
    values = {STUDY: study.name, PART: part, ARM: arm, SEED: seed, DIGEST: digest}
    own = {key: str(value) for key, value in values.items() if value is not None}
    if len(all_labels := checked.labels | own) > MAX_LABELS:
        raise refused("base.labels", f"at most {MAX_LABELS - len(own)}, because the study adds {len(own)}")
    whole = checked.model_dump(mode="json", exclude_unset=True) | {"labels": all_labels}
    return StudyJob(part, arm, seed, digest, needs.digest if needs else None, whole)


def _checked(spec: Mapping[str, Any], where: str) -> TrainSpec | EvaluateSpec:
    kind = EvaluateSpec if spec["kind"] == "evaluate" else TrainSpec
    try:
        return kind.model_validate(spec)
    except ValidationError as error:
        raise refused(where, faults(error)) from None


def refused(field: str, message: str) -> Invalid:
    """Return the error for a field of a study."""
    return Invalid("The study was not accepted.", (FieldError(field, message),))


def _distinct_runs(jobs: list[StudyJob]) -> None:
    known: dict[str, StudyJob] = {}
    for job in jobs:
        if job.digest in known:
            raise refused("arms", f"arms {known[job.digest].arm!r} and {job.arm!r} have the same settings; remove one")
        known[job.digest] = job
