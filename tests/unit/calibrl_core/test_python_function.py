"""Settings of functions of users."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from calibrl_core.verifiers import PythonReward
from calibrl_core.verifiers.base import Deferred
from calibrl_core.verifiers.plugin import PluginError
from calibrl_core.verifiers.python_function import check_sandbox, import_problem
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.sandbox import SandboxPolicy

SOURCE = "def grade(sample, item):\n    return 1.0"


def parsed(**settings: Any) -> Reward:
    return TypeAdapter[Reward](Reward).validate_python({"type": "python", "source": SOURCE, **settings})


def test_a_function_has_limits_and_a_name() -> None:
    found = parsed()
    assert isinstance(found, PythonReward)
    assert (found.label, found.time_limit_seconds, found.memory_mib) == ("python-function", 5.0, 512)
    assert parsed(name="brief").label == "python-brief"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"source": "def grade(sample, item):\n    return ("}, r"line 2: '\(' was never closed"),
        ({"source": "x = 1"}, "there is no function 'grade'"),
        ({"source": "#" * (256 * 1024 + 1)}, "at most 262144 characters"),
        ({"memory_mib": 127}, "greater than or equal to 128"),
        ({"memory_mib": 2049}, "less than or equal to 2048"),
        ({"name": "a b"}, "should match pattern"),
        ({"policy": {"plain_processes": True}}, "Extra inputs are not permitted"),
    ],
)
def test_invalid_settings_are_refused_with_the_reason(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        parsed(**settings)


IMPORTS = PythonReward(source=f"import json\nfrom numpy.linalg import norm\n{SOURCE}")


def test_an_import_that_the_sandbox_lacks_is_named_before_a_run() -> None:
    assert import_problem(IMPORTS, SandboxPolicy()) == (
        "line 2: the sandbox has no 'numpy': use the standard library, or let an administrator add the package to "
        "CALIBRL_SANDBOX_PACKAGES"
    )
    assert "the standard library or sympy, or" in str(import_problem(IMPORTS, SandboxPolicy(packages=("sympy",))))


@pytest.mark.parametrize("packages", [("numpy",), ("no-such-package",)])
def test_imports_that_are_allowed_or_unknown_pass(packages: tuple[str, ...]) -> None:
    assert import_problem(IMPORTS, SandboxPolicy(packages=packages)) is None


def test_a_scorer_does_not_start_without_the_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SandboxPolicy, "confines", lambda self: True)
    check_sandbox([IMPORTS], SandboxPolicy(packages=("numpy",)))
    with pytest.raises(PluginError, match="python-function cannot run: line 2"):
        check_sandbox([IMPORTS], SandboxPolicy())


class Recording:
    """A sandbox that keeps what it is given."""

    def __init__(self) -> None:
        self.sample: dict[str, Any] = {}

    def grade(self, sample: dict[str, Any], item: dict[str, Any]) -> float:
        self.sample = sample
        return 1.0


def test_a_function_sees_question_truth_and_the_images_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Recording()
    monkeypatch.setattr(PythonReward, "_sandbox", lambda self: sandbox)
    seen = RewardInput("8", "7", "3+4?", images=(b"picture",))
    for needs, images in ((True, ["cGljdHVyZQ=="]), (False, None)):
        reward = PythonReward(source=SOURCE, needs_images=needs)
        deferred = reward.settle(seen)
        assert isinstance(deferred, Deferred) and deferred.images == ((b"picture",) if needs else ())
        reward.judge_input(seen if needs else replace(seen, images=()))
        assert (sandbox.sample["question"], sandbox.sample["truth"]) == ("3+4?", "7")
        assert sandbox.sample.get("images") == images
