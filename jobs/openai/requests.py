"""Translates requests of OpenAI's client to specs, and errors in the spec to fields of the request."""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, get_args

from calibrl.schemas import Dataset
from calibrl.schemas.graders import Grader
from calibrl.schemas.openai import (
    Hyperparameters,
    NewFineTuningJob,
    ReinforcementHyperparameters,
    ReinforcementMethod,
)
from calibrl_core.algorithms import PolicyGradientSettings
from calibrl_core.algorithms.registry import ALGORITHMS
from calibrl_core.config import BuiltinModel, TrainSettings
from calibrl_core.settings.optimizer import OptimizerSettings
from calibrl_core.settings.sampling import RolloutSettings
from calibrl_core.verifiers.services import RewardServiceError
from jobs.errors import FieldError, Invalid
from jobs.openai.graders import is_exact, item_paths, placeholders, reward_of
from jobs.openai.names import origin
from jobs.specs.reward_services import services_of

PREFIX = "calibrl_"  # prefix of metadata keys that are settings
ALGORITHM, GPUS, TOKENS = "calibrl_algorithm", "calibrl_gpus", "calibrl_max_completion_tokens"
DEFAULT_EPOCHS = 3
MINI_BATCHES: int = PolicyGradientSettings.model_fields["mini_batches"].default
KEPT_CHECKPOINTS = 3  # kept checkpoints; one is written at the end of each epoch
TINY_TOKENS = 64  # tokens per completion of the built-in model, which has short positions
SFT_RATE = 1e-5  # usual rate for pretrained models; other algorithms use the default
GROUND_TRUTH = "reward_model.ground_truth"  # column of the answer in verl's format
BUILTIN: tuple[str, ...] = get_args(BuiltinModel.model_fields["builtin"].annotation)
GRADER = "method.reinforcement.grader"
# Field of the request per field of the spec. The place of the hyperparameters depends on the method.
_FIELDS = {
    "name": "suffix",
    "labels": "metadata",
    "resources.gpus": f"metadata.{GPUS}",
    "model": "model",
    "data": "training_file",
    "data.answer": f"{GRADER}.reference",
    "rewards": GRADER,
    "validation.data": "validation_file",
    "validation.data.answer": f"{GRADER}.reference",
    "algorithm": f"metadata.{ALGORITHM}",
    "rollout.max_completion_tokens": f"metadata.{TOKENS}",
    "project": "OpenAI-Project",
}
_SETTINGS = {
    "rollout.group_size": "compute_multiplier",
    "validation.every_steps": "eval_interval",
    "validation.samples": "eval_samples",
    "optimizer.lr": "learning_rate_multiplier",
    "prompts_per_step": "batch_size",
    "steps": "n_epochs",
    "checkpoints.every_steps": "batch_size",
}


def spec_of(
    new: NewFineTuningJob, training: Dataset, validation: Dataset | None, begins_with: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the spec of a training job, to be checked like any other.

    Args:
        begins_with: spec of the job whose model is used, or None.

    Raises:
        Invalid: the request is contradictory or asks for something unknown; the error names a field of the request.
    """
    learning, settings = _method(new), _settings(new)
    algorithm = _algorithm(new, training)
    rows = training.rows or 1
    batch = settings.batch_size or min(TrainSettings.model_fields["prompts_per_step"].default, rows)
    epoch = math.ceil(rows / batch)
    model = _model(new.model)
    metadata = new.metadata or {}
    spec: dict[str, Any] = {
        "kind": "train",
        "name": _default_name(new.model, algorithm) if new.suffix is None else new.suffix,
        "project": training.project,
        "labels": metadata,
        "resources": {"gpus": _number(metadata, GPUS) or 0},
        "model": model,
        "data": _data(training, learning, f"{GRADER}.reference"),
        "algorithm": {"type": algorithm}
        | ({} if supervised(algorithm) else {"mini_batches": min(MINI_BATCHES, batch)}),
        "rollout": _rollout(model, settings, metadata, begins_with),
        "optimizer": {"lr": base_rate(algorithm) * (settings.learning_rate_multiplier or 1)},
        "prompts_per_step": batch,
        "steps": math.ceil(rows * (settings.n_epochs or DEFAULT_EPOCHS) / batch),
        "seed": new.seed or 0,
        "checkpoints": {"every_steps": epoch, "keep_last": KEPT_CHECKPOINTS},
    }
    if learning is not None:
        spec["rewards"] = [_reward(learning.grader, training.project)]
    return spec | _validation(new, settings, validation, learning)


def supervised(algorithm: str) -> bool:
    """Return True if the algorithm samples nothing. False for one whose package is no longer installed."""
    kind = ALGORITHMS.get(algorithm)
    return kind is not None and not kind.samples


def base_rate(algorithm: str) -> float:
    """Return the learning rate that the multiplier of a request refers to."""
    rate: float = OptimizerSettings.model_fields["lr"].default
    return SFT_RATE if supervised(algorithm) else rate


def base_group() -> int:
    """Return the rollouts per prompt that the multiplier of a request refers to."""
    size: int = RolloutSettings.model_fields["group_size"].default
    return size


def in_request(new: NewFineTuningJob, errors: Iterable[FieldError]) -> tuple[FieldError, ...]:
    """Return the errors of a spec with the fields of the request that they come from."""
    fields = _FIELDS | {field: f"{_place(new)}.{name}" for field, name in _SETTINGS.items()}
    return tuple(FieldError(_field(error.field, fields), error.message) for error in errors)


def _field(field: str, fields: Mapping[str, str]) -> str:
    parts = field.split(".")
    for length in range(len(parts), 0, -1):
        if (known := fields.get(".".join(parts[:length]))) is not None:
            return known
    return field


def _method(new: NewFineTuningJob) -> ReinforcementMethod | None:
    """Return the reinforcement method, or None for supervised fine-tuning."""
    method = new.method
    if method is None:
        return None
    if new.hyperparameters is not None:
        raise _refused("hyperparameters", f"set them in method.{method.type}, or leave out method")
    if method.type == "supervised":
        if method.reinforcement is not None:
            raise _refused("method.reinforcement", "must be absent if method.type is supervised")
        return None
    if method.supervised is not None:
        raise _refused("method.supervised", "must be absent if method.type is reinforcement")
    if method.reinforcement is None:
        raise _refused("method.reinforcement", "Field required: it contains the grader")
    return method.reinforcement


def _settings(new: NewFineTuningJob) -> ReinforcementHyperparameters:
    """Return the hyperparameters from the place where the request has them."""
    method = new.method
    hyperparameters: Hyperparameters | None = new.hyperparameters
    if method is not None:
        part = method.supervised if method.type == "supervised" else method.reinforcement
        hyperparameters = part.hyperparameters if part is not None else None
    return ReinforcementHyperparameters(**({} if hyperparameters is None else hyperparameters.model_dump()))


def _place(new: NewFineTuningJob) -> str:
    """Return the field of the request that has the hyperparameters."""
    return "hyperparameters" if new.method is None else f"method.{new.method.type}.hyperparameters"


def _algorithm(new: NewFineTuningJob, training: Dataset) -> str:
    imitates = new.method is None or new.method.type == "supervised"
    metadata = new.metadata or {}
    for name in metadata:
        if name.startswith(PREFIX) and name not in (ALGORITHM, GPUS, TOKENS):
            raise _refused(f"metadata.{name}", f"unknown setting; available are {ALGORITHM}, {GPUS} and {TOKENS}")
    possible = tuple(name for name in ALGORITHMS if supervised(name) == imitates)
    automatic = "sft" if imitates else "calibrl" if training.has_experts else "grpo"
    chosen = metadata.get(ALGORITHM, automatic)
    if chosen not in possible:
        kind = "supervised" if imitates else "reinforcement"
        raise _refused(f"metadata.{ALGORITHM}", f"{kind} fine-tuning supports {', '.join(possible)}")
    return chosen


def _model(name: str) -> dict[str, Any]:
    if (source := origin(name)) is not None:
        return {"from_job": str(source[0]), "checkpoint": source[1]}
    if name in BUILTIN:
        return {"builtin": name}
    if name.startswith("/"):
        return {"path": name}
    if "/" in name:
        return {"hub": name}
    text = f"unknown model {name!r}: use {', '.join(BUILTIN)}, a name on the Hugging Face hub (org/name), the path of a"
    raise _refused("model", f"{text} saved model on the server, a job (ftjob-...) or a fine-tuned model (ft:...)")


def _data(dataset: Dataset, learning: ReinforcementMethod | None, field: str) -> dict[str, Any]:
    """Return the data of a job with the answer column of its grader."""
    answer = None if learning is None else _answer(dataset, learning.grader, field)
    return {"dataset": str(dataset.id)} | ({} if answer is None else {"answer": answer})


def _reward(grader: Grader, project: str) -> dict[str, Any]:
    if is_exact(grader):
        return {"type": "exact"}
    try:
        return reward_of(grader, services_of(project))
    except RewardServiceError as error:
        raise _refused(GRADER, str(error)) from None


def _answer(dataset: Dataset, grader: Grader, field: str) -> str | None:
    """Return the first column that the grader reads, or None if it is the default one."""
    columns = dataset.has_columns or []
    paths = item_paths(grader)
    if GROUND_TRUTH in paths and "reward_model" in columns:
        return None
    for path in paths:
        if path.partition(".")[0] not in columns:
            has = ", ".join(map(repr, columns))
            raise _refused(field, f"no row has a column {path!r}; available are {has}")
    answers = [path for path in paths if "." not in path]
    if dataset.columns.answer in [*answers, *(() if answers else columns)] or (not answers and dataset.has_experts):
        return None
    if not answers and "truth" not in placeholders(grader):
        return None
    if not answers:
        text = "the rows have no answer: name the column that holds it in the grader, as {{ item.reference_answer }}"
        raise _refused(field, text)
    return answers[0]


def _rollout(
    model: Mapping[str, Any],
    settings: ReinforcementHyperparameters,
    metadata: Mapping[str, str],
    begins_with: Mapping[str, Any] | None,
) -> dict[str, Any]:
    tokens = _number(metadata, TOKENS)
    if tokens is None and begins_with is not None:
        tokens = begins_with["rollout"]["max_completion_tokens"]
    if tokens is None and "builtin" in model:
        tokens = TINY_TOKENS
    rollout = {} if tokens is None else {"max_completion_tokens": tokens}
    if settings.compute_multiplier is not None:
        rollout["group_size"] = round(base_group() * settings.compute_multiplier)
    return rollout


def _validation(
    new: NewFineTuningJob,
    settings: ReinforcementHyperparameters,
    dataset: Dataset | None,
    learning: ReinforcementMethod | None,
) -> dict[str, Any]:
    fields = {"every_steps": settings.eval_interval, "samples": settings.eval_samples}
    chosen = {name: value for name, value in fields.items() if value is not None}
    if dataset is not None:
        return {"validation": {"data": _data(dataset, learning, "validation_file"), **chosen}}
    for name in chosen:
        raise _refused(f"{_place(new)}.{_SETTINGS[f'validation.{name}']}", "needs a validation_file")
    return {}


def _number(metadata: Mapping[str, str], name: str) -> int | None:
    text = metadata.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise _refused(f"metadata.{name}", "must be a whole number as text")
    return int(text)


def _default_name(model: str, algorithm: str) -> str:
    base = "ft" if origin(model) else re.sub(r"[^A-Za-z0-9._-]+", "-", PurePath(model).name).lstrip("._-")[:60]
    return f"{base or 'model'}-{algorithm}"


def _refused(field: str, text: str) -> Invalid:
    return Invalid("The job was not accepted.", (FieldError(field, text),))
