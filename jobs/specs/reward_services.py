"""Things that the rewards of a project can use: services, endpoints of judges, packages of functions."""

from collections.abc import Sequence

from calibrl_core.verifiers.base import judges_of
from calibrl_core.verifiers.python_function import import_problem, python_rewards
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.remote import RemoteVerifier
from calibrl_core.verifiers.services import RewardServiceError, Services
from jobs.errors import FieldError
from jobs.settings import get_settings

EVERY = "*"  # project in the settings


def services_of(project: str) -> Services:
    """Return the services that an administrator has configured for a project."""
    settings = get_settings()
    hosts = ",".join(settings.reward_hosts.get(name, "") for name in (EVERY, project))
    return Services(
        hosts=tuple(host.strip() for host in hosts.split(",") if host.strip()),
        secret=settings.reward_secrets.get(project, settings.reward_secrets.get(EVERY)),
        endpoints=settings.reward_endpoints.get(EVERY, {}) | settings.reward_endpoints.get(project, {}),
    )


def uses_services(rewards: Sequence[Reward]) -> bool:
    """Return if a reward asks a service."""
    return any(isinstance(judge, RemoteVerifier) for judge in judges_of(rewards))


def service_problems(rewards: Sequence[Reward], project: str) -> list[FieldError]:
    """Return the services that rewards name and a project cannot use."""
    problems, services = [], services_of(project)
    for index, reward in enumerate(rewards):
        for judge in judges_of([reward]):
            try:
                if isinstance(judge, RemoteVerifier):
                    judge.check_allowed(services)
            except RewardServiceError as error:
                problems.append(FieldError(f"rewards.{index}", str(error)))
    return problems


def function_problems(rewards: Sequence[Reward]) -> list[FieldError]:
    """Return the functions of users that import what the sandbox lacks. Reads package metadata only."""
    policy = get_settings().sandbox
    found = ((i, import_problem(one, policy)) for i, reward in enumerate(rewards) for one in python_rewards([reward]))
    return [FieldError(f"rewards.{index}.source", problem) for index, problem in found if problem]
