"""Models in the form of OpenAI's API: the built-in one, and the results of training jobs."""

from typing import Annotated

from fastapi import APIRouter, Path

from api import openai
from api.deps import CurrentCaller, Db
from api.openai import listed
from calibrl.schemas.openai import ModelObject, OpenAIList
from jobs.errors import NotFound
from jobs.openai.names import origin
from jobs.openai.objects import BUILTIN_MODEL, model_object
from jobs.repository import openai_jobs

MOST_MODELS = 1000  # the newest: OpenAI's client reads one page
router = APIRouter(prefix="/models", tags=["OpenAI"], responses=openai.RESPONSES)


@router.get("")
def list_models(session: Db, caller: CurrentCaller, project: openai.Project = None) -> OpenAIList[ModelObject]:
    """List the built-in model, and the results of the newest training jobs that have succeeded, at most 1000."""
    slug = openai.visible(session, caller, project)
    found = openai_jobs.succeeded(session, visible_projects=caller.projects, project=slug, limit=MOST_MODELS + 1)
    models = [BUILTIN_MODEL, *map(model_object, found[:MOST_MODELS])]
    return listed(models, len(found) > MOST_MODELS)


@router.get("/{model:path}")
def read_model(
    model: Annotated[str, Path(max_length=1200, description="Name of the model.")], session: Db, caller: CurrentCaller
) -> ModelObject:
    """Return one model. A checkpoint, `ft:...:step-40`, is the model of its job."""
    if model == BUILTIN_MODEL.id:
        return BUILTIN_MODEL
    named = origin(model)
    job = openai_jobs.trained(session, named[0], caller.projects) if named else None
    if job is None:
        raise NotFound(f"There is no model {model!r}.")
    return model_object(job)
