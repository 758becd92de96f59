"""The planned memory of each phase against what torch allocates on a CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.profiler import ProfilerActivity, profile

from bench import memory as bench
from calibrl.schemas import TrainSpec, job_spec_adapter
from calibrl_core.config import TrainConfig
from calibrl_core.models.policy import Policy, load_policy, make_reference
from calibrl_core.record_settings import CheckpointSettings
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.run.checkpoint import Checkpoints, TrainerState
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


def spec_of(folder: Path, changes: dict[str, Any]) -> TrainSpec:
    spec = job_spec_adapter.validate_python(
        {
            "kind": "train",
            "name": "measured",
            "data": {"builtin": "digits"},
            "algorithm": {"type": "grpo", "mini_batches": 1},
            "rollout": {"group_size": bench.ROWS, "max_completion_tokens": SIZE.tokens},
            "prompts": {"max_tokens": PROMPT_TOKENS},
            "prompts_per_step": 1,
            "micro_batch_rows": bench.ROWS // 2,  # so that the first gradient is there when the second is computed
            "steps": 1,
            **changes,
            "model": {"path": str(folder), **changes.get("model", {})},
        }
    )
    assert isinstance(spec, TrainSpec)
    return spec


def measured(spec: TrainSpec, folder: Path) -> dict[str, int]:
    """Return the peak in bytes of each phase: what is there before, and what is allocated beside it."""
    config = TrainConfig.model_validate(spec.model_dump(mode="json", include={*TrainConfig.model_fields}))
    policies: list[Policy] = []

    def load() -> None:
        policies.append(load_policy(config.model, config.precision))
        if config.algorithm.needs_reference:
            policies.append(make_reference(policies[0], config.model, config.precision))

    loaded = growth(load)
    policy, reference = policies[0], policies[-1] if len(policies) > 1 else None
    optimizer = make_optimizer(policy, config.optimizer)
    gradient = GradientStep(policy, optimizer, config.optimizer)
    updater = Updater(policy, gradient, config, reference)
    updater.update(bench.make_batch(policy, config, 8, SIZE.vocabulary), step=0)  # creates the moments
    gradient.clear()
    trained = sum(parameter.numel() for parameter in policy.trained.values())
    kept = 8 * trained + sum(parameter.nbytes for one in policies for parameter in one.model.parameters())
    batch = bench.make_batch(policy, config, SIZE.tokens, SIZE.vocabulary)
    update = kept + growth(lambda: updater.update(batch, step=0))
    kept += 4 * trained  # the gradients
    request = SamplingRequest(group_size=bench.ROWS, temperature=1.0, max_tokens=SIZE.tokens, seed=[5])
    engine = SharedPrefillEngine(policy, spec.rollout.batch_tokens)
    checkpoints = Checkpoints(folder, CheckpointSettings())
    return {
        "load": loaded,
        "update": update,
        "rollout": kept + growth(lambda: engine.generate([bench.EXAMPLE], request)),
        "save": kept + growth(lambda: checkpoints.save(policy, optimizer, TrainerState(step=1))),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in (
                {"model": {"gradient_checkpointing": True}},
                {"model": {"lora": {"rank": 8}}},
                {"model": {"lora": {"rank": 8}, "gradient_checkpointing": True}},
                {"model": {"lora": {"rank": 8, "dora": True}}},
                {"model": {"lora": {"rank": 8, "dora": True}, "gradient_checkpointing": True}},
                {"model": {"lora": {"rank": 8, "dropout": 0.1}}},
                {"model": {"lora": {"rank": 64, "targets": ["q_proj"]}}},
                {"algorithm": {"type": "grpo", "mini_batches": 1, "kl_coef": 0.1}},
                {"precision": "bfloat16"},
            )
        ),
    ],
    ids=str,
)
def test_the_plan_is_within_a_tenth_of_the_measured_peaks(tmp_path: Path, changes: dict[str, Any]) -> None:
    bench.make_policy(SIZE).save(tmp_path)
    spec = spec_of(tmp_path, changes)
    plan = estimate(spec, of_folder(tmp_path), spec.model)
    planned: dict[str, int] = {phase: size - BASE_BYTES[False] for phase, size in plan.phases.items()}
    found = measured(spec, tmp_path / "run")
    assert {phase: planned[phase] / size for phase, size in found.items()} == pytest.approx(
        dict.fromkeys(found, 1.0), abs=0.1
    )
