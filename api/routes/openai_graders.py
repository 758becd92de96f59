"""Graders in the form of OpenAI's fine-tuning API: checked, and run on one output."""

from fastapi import APIRouter

from api import openai
from api.bodies import BoundedRoute
from api.deps import CurrentCaller
from calibrl.schemas import Role
from calibrl.schemas.graders import GraderRun, GraderToRun, GraderToValidate, ValidGrader
from jobs.openai import grader_runs

router = APIRouter(
    prefix="/fine_tuning/alpha/graders", tags=["OpenAI"], responses=openai.RESPONSES, route_class=BoundedRoute
)


@router.post("/validate")
def validate_grader(given: GraderToValidate, caller: CurrentCaller, project: openai.Project = None) -> ValidGrader:
    """Check a grader, also that the models that it names have an endpoint. Return it with its defaults."""
    slug = openai.chosen(caller, project)
    caller.need(slug, Role.VIEWER)
    return ValidGrader(grader=grader_runs.shown(grader_runs.checked(given.grader, slug)))


@router.post("/run")
def run_grader(given: GraderToRun, caller: CurrentCaller, project: openai.Project = None) -> GraderRun:
    """Run a grader on one output of a model. A missing score is a `reward` of 0, with the reason in
    `metadata.errors`.
    """
    slug = openai.chosen(caller, project)
    caller.need(slug, Role.MEMBER)
    return grader_runs.run(given, slug)
