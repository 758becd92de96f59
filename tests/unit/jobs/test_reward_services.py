"""Services of rewards: those of a project, what a submission says of others, and the file of the trainer."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import TypeAdapter

from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.services import Services
from jobs.lifecycle import Claim
from jobs.settings import get_settings
from jobs.specs.reward_services import service_problems, services_of
from worker import trainer_process

HTTP = {"type": "http", "url": "https://rewards.example.org/grade"}
MATH = {"type": "math"}


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    given = {
        "REWARD_HOSTS": {"*": "*.example.com", "vision": "rewards.example.org, 10.0.0.7:8080"},
        "REWARD_SECRETS": {"vision": "whsec_dmlzaW9u", "*": "whsec_b3RoZXJz"},
        "REWARD_ENDPOINTS": {"*": {"local": {"url": "http://judge:8000/v1", "key": "sk-1"}}, "vision": {}},
    }
    for name, value in given.items():
        monkeypatch.setenv(f"CALIBRL_{name}", json.dumps(value))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def rewards(*each: Any) -> Any:
    return TypeAdapter(tuple[Reward, ...]).validate_python(each)


def test_a_project_has_its_own_services_and_those_of_all() -> None:
    own, other = services_of("vision"), services_of("text")
    assert own.hosts == ("*.example.com", "rewards.example.org", "10.0.0.7:8080")
    assert other.hosts == ("*.example.com",)
    assert [one.secret.get_secret_value() for one in (own, other) if one.secret] == ["whsec_dmlzaW9u", "whsec_b3RoZXJz"]
    assert own.endpoint("local").url == "http://judge:8000/v1"


def test_a_submission_names_what_the_project_cannot_use() -> None:
    inner = {"type": "multi", "formula": "a", "rewards": {"a": HTTP}}
    assert service_problems(rewards(MATH, HTTP, inner), "vision") == []
    found = service_problems(rewards(MATH, HTTP, inner), "text")
    assert [problem.field for problem in found] == ["rewards.1", "rewards.2"]
    assert found[0].message == (
        "the host rewards.example.org is not allowed here: an administrator lists it in reward_hosts"
    )


def test_a_trainer_gets_services_in_a_private_file(tmp_path: Path) -> None:
    config = {"rewards": [HTTP]}
    claim = Claim(uuid4(), 1, uuid4(), "train", config, project="vision")
    _, arguments = trainer_process.command_line(claim, get_settings(), tmp_path / "config.json")
    file = tmp_path / "services.json"
    assert f"--services={file}" in arguments
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Services.read(file) == services_of("vision")


def test_a_trainer_without_such_rewards_gets_none(tmp_path: Path) -> None:
    claim = Claim(uuid4(), 1, uuid4(), "train", {"rewards": [MATH]}, project="vision")
    _, arguments = trainer_process.command_line(claim, get_settings(), tmp_path / "config.json")
    assert not any(argument.startswith("--services") for argument in arguments)
    assert list(tmp_path.iterdir()) == []
