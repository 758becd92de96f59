"""Runs of a grader on one output of a model: the score, and the reason if there is none."""

import threading
from collections import Counter

from pydantic import TypeAdapter

from calibrl.schemas.graders import Grader, GraderErrors, GraderMetadata, GraderRun, GraderToRun
from calibrl_core.data.image_decoding import viewed_image
from calibrl_core.data.images import read_images
from calibrl_core.data.schema import DataError
from calibrl_core.verifiers.base import judges_of
from calibrl_core.verifiers.judge import JudgeReward
from calibrl_core.verifiers.plugin import PluginError
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.services import RewardServiceError
from calibrl_core.verifiers.single import Trial, try_reward
from jobs.errors import Busy, FieldError, Invalid
from jobs.openai.graders import OF_MODELS, grader_of, image_columns, reward_of
from jobs.settings import get_settings
from jobs.specs.reward_services import function_problems, service_problems, services_of

MOST_AT_ONCE = 4  # each run can have a worker process
WAIT_SECONDS = 30.0
_free = threading.BoundedSemaphore(MOST_AT_ONCE)
_REWARD = TypeAdapter[Reward](Reward)


def checked(grader: Grader, project: str) -> Reward:
    """Return the reward of a grader that the project's jobs can use.

    Raises:
        Invalid: they cannot.
    """
    try:
        reward = _REWARD.validate_python(reward_of(grader, services_of(project)))
    except ValueError as error:  # of the settings, or a model without an endpoint
        reasons = [str(one["msg"]) for one in error.errors()] if hasattr(error, "errors") else [str(error)]
        raise Invalid("The grader was not accepted.", (FieldError("grader", "; ".join(reasons)),)) from None
    if problems := service_problems([reward], project) + function_problems([reward]):
        raise Invalid("The grader was not accepted.", tuple(FieldError("grader", one.message) for one in problems))
    return reward


def shown(reward: Reward) -> dict[str, object]:
    """Return a checked grader as OpenAI shows it."""
    grader = grader_of(reward.model_dump(mode="json"))
    assert grader is not None  # it was made from one
    return grader


def run(given: GraderToRun, project: str) -> GraderRun:
    """Return the score of a grader for an output. Takes at most its time limits and the start of a process.

    Raises:
        Busy: too many graders run at this moment.
        Invalid: the grader cannot be used.
    """
    reward = checked(given.grader, project)
    if not _free.acquire(timeout=WAIT_SECONDS):
        raise Busy(f"{MOST_AT_ONCE} graders run already: repeat this request later")
    try:
        seen = _input(given)
        trial = try_reward(reward, seen, get_settings().sandbox, services_of(project))
    except (PluginError, RewardServiceError) as error:
        raise Invalid("The grader was not accepted.", (FieldError("grader", str(error)),)) from None
    finally:
        _free.release()
    return _result(given.grader, reward, trial)


def _input(given: GraderToRun) -> RewardInput:
    """Return what the grader sees, with the images of the columns that it shows to its model, as in a job.

    Raises:
        Invalid: a column has no images.
    """
    columns = image_columns(given.grader)
    try:
        images = [viewed_image(image) for name in columns for image in read_images(given.item.get(name), None)]
    except DataError as error:
        raise Invalid("The item was not accepted.", (FieldError("item", f"{', '.join(columns)}: {error}"),)) from None
    if columns and not images:
        reason = f"there are no images in {', '.join(columns)}: give them as base64 or data URLs"
        raise Invalid("The item was not accepted.", (FieldError("item", reason),))
    others = {name: value for name, value in given.item.items() if name not in columns}
    return RewardInput(given.model_sample, "", images=tuple(images), item=others)


def _result(grader: Grader, reward: Reward, trial: Trial) -> GraderRun:
    scores = {name: verdict.value for name, verdict in trial.parts.items()} or {grader.name: trial.verdict.value}
    kinds = {name: part.type for name, part in reward.parts.items()} or {grader.name: reward.type}
    failed = trial.parts or {grader.name: trial.verdict}
    errors = GraderErrors()
    for name, verdict in failed.items():
        if verdict.failure is not None:
            errors = errors.model_copy(update=_flags(kinds[name], verdict.failure, refused=verdict.refused))
    if trial.verdict.failure is not None and errors == GraderErrors():
        errors = GraderErrors(other_error=True)  # the formula has no value
    tokens = _tokens(reward, trial)
    return GraderRun(
        reward=trial.verdict.value,
        sub_rewards={name: verdict.value for name, verdict in trial.parts.items()},
        metadata=GraderMetadata(
            name=grader.name,
            type=grader.type,
            errors=errors,
            execution_time=round(trial.seconds, 3),
            scores=scores,
            token_usage=sum(tokens.values()) or None,
        ),
        model_grader_token_usage_per_model={model: {"total_tokens": count} for model, count in tokens.items()},
    )


def _tokens(reward: Reward, trial: Trial) -> dict[str, int]:
    """Return the tokens of each model that judged, by its name."""
    verdicts = [trial.parts[name] for name in reward.parts] or [trial.verdict]
    found = Counter[str]()
    for judge, verdict in zip(judges_of([reward]), verdicts, strict=True):
        if isinstance(judge, JudgeReward) and verdict.tokens:
            found[judge.model] += verdict.tokens
    return dict(found)


def _flags(kind: str, failure: str, *, refused: bool) -> dict[str, bool | str]:
    """Return the fields of `GraderErrors` for a missing verdict of a verifier."""
    failure = failure.encode(errors="replace").decode()  # a row can hold half a surrogate pair
    if "the output is not JSON" in failure:
        return {"sample_parse_error": True}
    if ": there is no " in failure:
        return {"invalid_variable_error": True}
    if kind == "python":
        return {"python_grader_runtime_error": True, "python_grader_runtime_error_details": failure}
    if refused:
        return {"model_grader_refusal_error": True}
    if kind == "judge" and "the judge" in failure:
        return {"model_grader_parse_error": True, "model_grader_server_error_details": failure}
    if kind in OF_MODELS:
        return {"model_grader_server_error": True, "model_grader_server_error_details": failure}
    return {"other_error": True}
