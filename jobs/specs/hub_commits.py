"""Models of the hub in a spec, by their commits: a job runs, resumes and is evaluated with the files of one moment."""

from contextlib import suppress
from typing import Any, TypeVar, cast

from calibrl.schemas import AnySpec, ModelChoice
from jobs.errors import FieldError, Invalid, ServiceError
from jobs.files import hub_models
from jobs.files.hub import HubRefusal
from jobs.specs import checks
from jobs.specs.references import References

Spec = TypeVar("Spec", bound=AnySpec)


def pinned(spec: Spec) -> Spec:
    """Return a spec with the commit of each model of the hub as its revision. Asks the hub: hold no transaction.

    Raises:
        Invalid: jobs cannot name a model, or the hub has no such model or revision, or the project has no access.
        HubUnavailable: the hub cannot be reached.
    """
    references = References.of(spec)
    if not references.hub_models:
        return spec
    commits: dict[str, ModelChoice] = {}
    problems = checks.hub_model_problems(references)
    for field, model in references.hub_models if not problems else ():
        try:
            commit = hub_models.resolve(model.hub, model.revision, spec.project)
        except HubRefusal as error:
            problems.append(FieldError(f"{field}.hub", error.detail))
            continue
        commits[field] = model.model_copy(update={"revision": commit})
    if problems:
        raise Invalid("The job was not accepted.", tuple(problems))
    change: dict[str, Any] = {**commits}
    if "model" not in commits:  # an evaluation
        change = {"models": tuple(commits.get(field, model) for field, model in references.models)}
    return cast(Spec, spec.model_copy(update=change))


def read_headers(spec: AnySpec) -> None:
    """Read the headers of the weights of a pinned spec's models of the hub, so that their memory can be estimated. A
    plan without them names the reason."""
    for _, model in References.of(spec).hub_models:
        with suppress(ServiceError):
            hub_models.read_headers(model.hub, str(model.revision), spec.project)
