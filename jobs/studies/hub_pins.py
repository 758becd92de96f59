"""Models of the hub in a study, by their commits: all its runs use the files of one moment."""

from collections.abc import Iterator
from typing import Any

from calibrl.schemas import StudySpec
from jobs.db import session_scope
from jobs.files import hub_models
from jobs.files.allowed_sources import hub_model_problem
from jobs.files.hub import COMMIT, HubRefusal
from jobs.repository import studies
from jobs.studies.expansion import refused

AXES = frozenset({"model", "model.hub", "model.revision"})
Named = tuple[str, str | None]  # model of the hub, and its revision


def pinned(study: StudySpec, project: str) -> StudySpec:
    """Return a study with the commit of each model of the hub as its revision. A model without a revision keeps the
    commit that the study of this name has in the project. If an axis has the models, each job asks for its commit.
    Asks the hub: hold no transaction.

    Raises:
        Invalid: jobs cannot name a model, or the hub has no such model or revision, or the project has no access.
        HubUnavailable: the hub cannot be reached.
    """
    spec = study.model_dump(mode="json", exclude_unset=True)
    places = [*_places(spec)]
    if not places or AXES & study.axes.keys():
        return study
    with session_scope() as session:
        row = studies.named(session, project, study.name)
        before = {place: named for place, _, named in _places(row.spec)} if row is not None else {}
    for place, changes, named in places:
        commit = _commit(place, named, before.get(place), project)
        if isinstance(model := changes.get("model"), dict):
            model["revision"] = commit
        else:
            changes["model.revision"] = commit
    return StudySpec.model_validate(spec)


def _places(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Named]]:
    """Yield the parts of a study that name a model of the hub, or another revision of that of the base."""
    base = spec.get("base", {})
    parts = {"base": base} | {f"arms.{arm}": changes for arm, changes in spec.get("arms", {}).items()}
    if warm_up := spec.get("warm_up"):
        parts["warm_up.changes"] = warm_up["changes"]
    shared = base["model"].get("hub") if isinstance(base.get("model"), dict) else None
    for place, changes in parts.items():
        if isinstance(model := changes.get("model"), dict):
            hub, revision = model.get("hub"), model.get("revision")
        else:
            hub, revision = changes.get("model.hub"), changes.get("model.revision")
            hub = shared if hub is None and revision is not None else hub
        if hub is not None:
            yield place, changes, (hub, revision)


def _commit(place: str, named: Named, before: Named | None, project: str) -> str:
    model, revision = named
    if revision is None and before is not None and before[0] == model:
        revision = before[1]
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    try:
        if problem := hub_model_problem(model):
            raise HubRefusal(problem)
        return hub_models.resolve(model, revision, project)
    except HubRefusal as error:
        raise refused(f"{place}.model.hub", error.detail) from error
