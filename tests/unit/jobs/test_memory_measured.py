"""The planned memory of rollouts and updates against what torch allocates, in float32 on a CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from bench import memory as bench
from calibrl.schemas import TrainSpec, job_spec_adapter
from calibrl_core.config import PathModel
from calibrl_core.models.adapters import prepare_model
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.step.optimizer import GradientStep, make_optimizer
from calibrl_core.step.update import Updater
from jobs.planning.memory import BASE_BYTES, estimate
from jobs.planning.model_shapes import of_folder

SIZE = bench.Size(vocabulary=2000, tokens=96)
PROMPT_TOKENS = 3  # of the benchmark's example


def growth(work: Callable[[], Any]) -> int:
    """Return by how many bytes torch's memory grows at most during `work()`."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        work()
    held = highest = 0
    for event in sorted(measured.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest


def spec_of(folder: Path, options: dict[str, Any]) -> TrainSpec:
    spec = job_spec_adapter.validate_python(
        {
            "kind": "train",
            "name": "measured",
            "model": {"path": str(folder), **options},
            "data": {"builtin": "digits"},
            "algorithm": {"type": "grpo", "mini_batches": 1},
            "rollout": {"group_size": bench.ROWS, "max_completion_tokens": SIZE.tokens},
            "prompts": {"max_tokens": PROMPT_TOKENS},
            "prompts_per_step": 1,
            "micro_batch_rows": bench.ROWS // 2,  # so that the first gradient is there when the second is computed
            "steps": 1,
        }
    )
    assert isinstance(spec, TrainSpec)
    return spec


@pytest.mark.parametrize(
    "options",
    [
        {},
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in ({"gradient_checkpointing": True}, {"lora": {"rank": 8}})
        ),
    ],
    ids=str,
)
def test_the_plan_is_within_a_tenth_of_the_measured_peaks(tmp_path: Path, options: dict[str, Any]) -> None:
    made = bench.make_policy(SIZE)
    made.save(tmp_path)
    spec = spec_of(tmp_path, options)
    plan = estimate(spec, of_folder(tmp_path), spec.model)
    prepare_model(made.model, PathModel(path=str(tmp_path), **options))
    policy = Policy(made.model, made.processor, torch.device("cpu"))
    config = bench._config(SIZE).model_copy(update={"micro_batch_rows": bench.ROWS // 2})
    gradient = GradientStep(policy, make_optimizer(policy, config.optimizer), config.optimizer)
    updater = Updater(policy, gradient, config)
    updater.update(bench.make_batch(policy, config, 8, SIZE.vocabulary), step=0)  # creates the moments
    gradient.clear()
    trained = sum(parameter.numel() for parameter in policy.trained.values())
    kept = 4 * policy.parameter_count + 8 * trained
    batch = bench.make_batch(policy, config, SIZE.tokens, SIZE.vocabulary)
    update = kept + growth(lambda: updater.update(batch, step=0))
    request = SamplingRequest(group_size=bench.ROWS, temperature=1.0, max_tokens=SIZE.tokens, seed=[5])
    engine = SharedPrefillEngine(policy, spec.rollout.batch_tokens)
    rollout = kept + 4 * trained + growth(lambda: engine.generate([bench.EXAMPLE], request))
    planned = {phase: size - BASE_BYTES[False] for phase, size in plan.phases.items()}
    assert planned["update"] == pytest.approx(update, rel=0.1)
    assert planned["rollout"] == pytest.approx(rollout, rel=0.1)
