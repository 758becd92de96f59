"""Runs whose rollouts are sampled while the step before updates: which weights sample what, and in which order."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from calibrl_core import train as train_module
from calibrl_core.data.schema import Example
from calibrl_core.evaluation.validation import _SEED
from calibrl_core.models.policy import Policy
from calibrl_core.report import EventFile
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.train import train
from tests.support.training import DIGITS, config, of_type

ROLLOUT = {"group_size": 2, "max_completion_tokens": 6, "engine": "vllm_server"}
AHEAD = {**ROLLOUT, "max_staleness": 1}
DAPO = {"type": "dapo", "mini_batches": 1, "max_resamples": 2}


class RecordingEngine(SharedPrefillEngine):
    """Samples at `begin`, and records what each `generate` returned: seed, weights, prompts."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.version = -1
        self.begun: list[tuple[SamplingRequest, int, Any]] = []
        self.begins = 0
        self.used: list[tuple[list[int], int, list[str]]] = []

    @contextmanager
    def sampling(self, version: int) -> Iterator[None]:
        self.version = version
        with super().sampling(version):
            yield

    def begin(self, examples: Sequence[Example], request: SamplingRequest) -> None:
        self.begins += 1
        self.begun.append((request, self.version, super().generate(examples, request)))

    def generate(self, examples: Sequence[Example], request: SamplingRequest) -> Any:
        ready = [one for one in self.begun if one[0] == request]
        _, version, rollouts = ready[0] if ready else (request, self.version, super().generate(examples, request))
        self.begun = [one for one in self.begun if one[0] != request]
        self.used.append((list(request.seed[1:]), version, [example.id for example in examples]))
        return rollouts

    def steps(self) -> list[tuple[int, int]]:
        """Return the step, from 0, and the weights of what was sampled for training."""
        return [(seed[0], version) for seed, version, _ in self.used if seed[0] != _SEED]

    def prompts(self) -> list[list[str]]:
        return [ids for seed, _, ids in self.used if seed[0] != _SEED]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch, rewarding: None) -> list[RecordingEngine]:
    """Return the engine of each run that the test starts."""
    made: list[RecordingEngine] = []

    def make(_: Any, policy: Policy, *__: Any) -> RecordingEngine:
        made.append(RecordingEngine(policy))
        return made[-1]

    monkeypatch.setattr(train_module, "make_engine", make)
    return made


def run(folder: Path, stop_after: int = 100, **changes: Any) -> Any:
    report = EventFile(folder)

    def should_stop() -> bool:
        return len(of_type(folder, "metrics")) >= stop_after

    outcome = train(config(**{"rollout": AHEAD, **changes}), report, should_stop)
    report.close()
    return outcome


def test_each_step_learns_from_weights_one_step_before(tmp_path: Path, engines: list[RecordingEngine]) -> None:
    run(tmp_path / "ahead")
    run(tmp_path / "in-turns", rollout=ROLLOUT)
    ahead, plain = engines
    assert ahead.steps() == [(0, 0), (1, 0), (2, 1), (3, 2)]
    assert plain.steps() == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert ahead.prompts() == plain.prompts()
    assert (ahead.begins, plain.begins) == (3, 0)  # nothing behind the last step


def test_a_validation_samples_with_the_weights_of_the_moment(tmp_path: Path, engines: list[RecordingEngine]) -> None:
    validation = {"data": DIGITS, "every_steps": 2, "samples": 1, "before_training": True}
    run(tmp_path, validation=validation)
    (engine,) = engines
    validated = [(seed[1], version) for seed, version, _ in engine.used if seed[0] == _SEED]
    assert validated == [(0, 0), (2, 2), (4, 4)]
    assert engine.steps() == [(0, 0), (1, 0), (2, 1), (3, 2)]


def test_the_first_step_after_a_resume_has_its_own_weights(tmp_path: Path, engines: list[RecordingEngine]) -> None:
    whole = run(tmp_path / "whole")
    stopped = run(tmp_path / "halves", stop_after=2)
    assert (stopped["status"], stopped["step"]) == ("stopped", 2)
    ended = run(tmp_path / "halves")
    assert ended["status"] == whole["status"] == "succeeded"
    one, first, second = engines
    assert first.steps() == [(0, 0), (1, 0)]
    assert second.steps() == [(2, 2), (3, 2)]
    assert one.prompts() == first.prompts() + second.prompts()  # what was begun in between is in no checkpoint


def test_dynamic_sampling_uses_the_weights_of_the_moment(tmp_path: Path, engines: list[RecordingEngine]) -> None:
    """More prompts of a step are taken before those of the next step, as without sampling ahead."""
    run(tmp_path, algorithm=DAPO, data={**DIGITS, "rows": 40})
    (engine,) = engines
    first = [(seed[0], version) for seed, version, _ in engine.used if seed[1] == 0]
    more = [(seed[0], version) for seed, version, _ in engine.used if seed[1] > 0]
    assert first == [(0, 0), (1, 0), (2, 1), (3, 2)]
    assert more
    assert all(version == step for step, version in more)
    used = [one for ids in engine.prompts() for one in ids]
    assert len(used) == len(set(used))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollout": {**AHEAD, "engine": "shared_prefill"}}, "max_staleness: only the engine vllm_server"),
        ({"rollout": {**AHEAD, "importance_correction": "none"}}, "max_staleness: .*set importance_correction"),
        ({"algorithm": {"type": "sft"}}, r"rollout\.max_staleness: sft samples no rollouts"),
        ({"curriculum": "measured"}, r"rollout\.max_staleness: .*use curriculum: pass_ratio"),
    ],
)
def test_what_cannot_be_sampled_ahead_is_refused(changes: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**{"rollout": AHEAD, **changes})
