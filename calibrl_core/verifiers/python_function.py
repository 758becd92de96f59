"""A function of the user's, in the form of OpenAI's python grader, that runs in a sandbox."""

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from calibrl_core.verifiers.base import Deferred, InputVerifier, Verifier, judges_of
from calibrl_core.verifiers.grader_source import MOST_SOURCE, check_source, needed_imports
from calibrl_core.verifiers.plugin import PluginError
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.sandbox import NO_PERMISSIONS, Sandbox, SandboxError, SandboxPolicy, importable
from calibrl_core.verifiers.templates import choices, output_text

MIB = 2**20
_TRUTH = re.compile(r"""["']truth["']|item(?:\[|\.get\()\s*["']answer["']""")  # sample["truth"], item.get("answer")


class PythonReward(InputVerifier):
    """Score of a function of the user's: `def grade(sample: dict, item: dict) -> float`, 0.0 to 1.0.

    `sample` has output_text (the last `<answer>`, or all behind `<think>`), output_json (None if that is not JSON),
    choices with the whole completion, question, truth; with `needs_group` group, and with `needs_images` images, each
    in base64.
    `item` has the row's columns, and the correct answer as `answer` if no column has this name.
    """

    policy: ClassVar[SandboxPolicy] = NO_PERMISSIONS  # a worker process sets it at its start

    type: Literal["python"] = "python"
    name: str = Field(
        "function",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$",
        max_length=100,
        description="Name of the function in metrics, after python-. Different for each function of a job.",
    )
    source: str = Field(
        max_length=MOST_SOURCE,
        description="Python source with def grade(sample, item) at its top level, at most 256 KiB. It can import the "
        "standard library, and the packages that the administrator allows. Each call runs it from its first line.",
    )
    needs_images: bool = Field(
        False, description="Also give it the images of the prompt. Calls about other images then differ."
    )
    memory_mib: int = Field(512, ge=128, le=2048, description="Maximum address space of a call in MiB.")

    @property
    def label(self) -> str:
        return f"python-{self.name}"

    @property
    def reads_truth(self) -> bool:
        return _TRUTH.search(self.source) is not None

    @field_validator("source")
    @classmethod
    def _compiles(cls, source: str) -> str:
        check_source(source)
        return source

    def settle(self, seen: RewardInput) -> float | Deferred:
        return super().settle(seen if self.needs_images else replace(seen, images=()))

    def judge_input(self, seen: RewardInput) -> float:
        return self._sandbox().grade(_sample(seen), {"answer": seen.truth, **seen.item})

    def prepare(self) -> None:
        self._sandbox()

    def _sandbox(self) -> Sandbox:
        return _started(self.source, self.memory_mib * MIB, self.time_limit_seconds, self.policy)


@cache
def _started(source: str, memory_bytes: int, seconds: float, policy: SandboxPolicy) -> Sandbox:
    confined = policy.confines()
    return Sandbox(source, memory_bytes=memory_bytes, seconds=seconds, packages=policy.packages, confined=confined)


def _sample(seen: RewardInput) -> dict[str, Any]:
    """Return a completion as OpenAI's graders see it."""
    text = output_text(seen.completion)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    sample = {
        "output_text": text,
        "output_json": value,
        "choices": choices(seen.completion),
        "question": seen.question,
        "truth": seen.truth,
    }
    group = {"group": list(seen.group)} if seen.group else {}
    images = {"images": [base64.b64encode(image).decode() for image in seen.images]} if seen.images else {}
    return sample | group | images


def python_rewards(rewards: Iterable[Verifier]) -> list[PythonReward]:
    """Return the functions among rewards and their parts."""
    return [judge for judge in judges_of(rewards) if isinstance(judge, PythonReward)]


def import_problem(reward: PythonReward, policy: SandboxPolicy) -> str | None:
    """Return why a function cannot run with the permissions of an administrator: it imports what the sandbox lacks."""
    names = importable(policy.packages)
    if names is None:
        return None
    missing = [(line, name) for name, line in needed_imports(reward.source).items() if name not in names]
    if not missing:
        return None
    line, name = min(missing)
    allowed = ", ".join(policy.packages)
    return (
        f"line {line}: the sandbox has no {name!r}: use the standard library{f' or {allowed}' if allowed else ''}, or "
        "let an administrator add the package to CALIBRL_SANDBOX_PACKAGES"
    )


def check_sandbox(rewards: Iterable[Verifier], policy: SandboxPolicy) -> None:
    """Check that the functions among rewards can run on this machine.

    Raises:
        PluginError: they cannot; the message has the remedy.
    """
    for reward in python_rewards(rewards):
        try:
            policy.confines()
        except SandboxError as error:
            raise PluginError(f"rewards: {reward.label} cannot run: {error}") from error
        if problem := import_problem(reward, policy):
            raise PluginError(f"rewards: {reward.label} cannot run: {problem}")
