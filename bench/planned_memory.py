"""Memory of each phase of a training job: planned by `calibrl plan`, and allocated by torch on a CPU.

    python -m bench.planned_memory

It trains the small model of `bench.memory` in several configurations and writes docs/reference/memory.md. Times do not
matter, so other work can run on the machine.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Any, get_args
from unittest.mock import patch

from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from bench import memory, report
from calibrl.schemas import MemoryPhase, TrainSpec, job_spec_adapter
from calibrl_core import data
from calibrl_core.config import BuiltinModel, TrainConfig
from calibrl_core.data.schema import BuiltinData, Example
from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.models.policy import Policy, load_policy, make_reference
from calibrl_core.models.quantisation import quantised_layers
from calibrl_core.models.weights import sharding_of
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.run.checkpoint import Checkpoints, TrainerState
from calibrl_core.step.optimizer import GradientStep, make_optimizer
from calibrl_core.step.update import Updater
from jobs.planning.memory import BASE_BYTES, estimate
from jobs.planning.model_shapes import of_folder

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "memory.md"
PHASES = tuple(phase for phase in get_args(MemoryPhase) if phase != "reference")
SIZE = memory.Size(vocabulary=2000, tokens=96)
SPEC, PEAKS = "spec.json", "peaks.json"  # files of a measurement of two processes
LIMIT_SECONDS = 1200  # of such a measurement
PROMPT_TOKENS = 3  # of the benchmark's example
IMAGE_PROMPT_TOKENS = 32  # of a digit, its image included
LORA: dict[str, Any] = {"rank": 8}
# Changes of the spec, by what the page calls them. A built-in model: with an image in the prompt.
CASES: Mapping[str, dict[str, Any]] = {
    "all weights": {},
    "all weights, layers recomputed": {"model": {"gradient_checkpointing": True}},
    "all weights, KL divergence": {"algorithm": {"type": "grpo", "mini_batches": 1, "kl_coef": 0.1}},
    "all weights, bfloat16": {"precision": "bfloat16"},
    "all weights, a checkpoint waits": {"checkpoints": {"host_gigabytes": 1}},
    "LoRA": {"model": {"lora": LORA}},
    "LoRA, layers recomputed": {"model": {"lora": LORA, "gradient_checkpointing": True}},
    "LoRA of rank 64 on q_proj": {"model": {"lora": {"rank": 64, "targets": ["q_proj"]}}},
    "LoRA, dropout": {"model": {"lora": {**LORA, "dropout": 0.1}}},
    "LoRA, bfloat16": {"model": {"lora": LORA}, "precision": "bfloat16"},
    "DoRA": {"model": {"lora": {**LORA, "dora": True}}},
    "DoRA, layers recomputed": {"model": {"lora": {**LORA, "dora": True}, "gradient_checkpointing": True}},
    "LoRA on 4 bits": {"model": {"lora": LORA, "quantization": "nf4"}},
    "LoRA on 4 bits, bfloat16": {"model": {"lora": LORA, "quantization": "nf4"}, "precision": "bfloat16"},
    "FSDP": {"parallel": "fsdp", "resources": {"machines": 2}},
    "FSDP, weights on the host": {"parallel": "fsdp", "cpu_offload": True, "resources": {"machines": 2}},
    "image: FSDP": {"model": {"builtin": "tiny-vlm"}, "parallel": "fsdp", "resources": {"machines": 2}},
    "image: all weights": {"model": {"builtin": "tiny-vlm"}},
    "image: LoRA": {"model": {"builtin": "tiny-vlm", "lora": LORA}},
}
HEAD = """# Planned and measured memory

`calibrl plan` estimates the memory of a job ([Plan](../how-to/jobs.md#plan-a-dry-run)).
`make bench-plan` writes this page: it compares the plan with the memory that torch
allocates on a CPU, without the constant part of a process (Python and its libraries). The model is
a Llama with hidden size 256, 4 layers and a vocabulary of 2,000; a step has 8 completions of 96
tokens. In the rows `image` the model is the built-in `tiny-vlm`, and the prompt has an image. In
the row `a checkpoint waits`, its copy is still there in the next step. The rows `FSDP` are the
first of two processes with sharded weights; their peaks differ by a tenth and more from run to run,
because gathers of weights overlap or do not. In the row `weights on the host` (`cpu_offload`) host
and device have the same memory, so that it must be that of `FSDP`. No GPU was measured.

A cell has the planned and the measured peak in MB (10^6 bytes), and their ratio. `load`, `rollout`,
`update` and `save` are the phases of a process; only the largest decides whether a job fits.
"""


def main() -> None:
    console = Console()
    rows = [["Configuration", *PHASES]]
    for name, changes in CASES.items():
        if "4 bits" in name and find_spec("bitsandbytes") is None:
            raise SystemExit("bitsandbytes is not installed: pip install 'calibrl[quantization]'")
        with console.status(name), TemporaryDirectory() as folder:
            plan, found = compare(changes, Path(folder))
        rows.append([name, *(_cell(plan[phase], found[phase]) for phase in PHASES)])
        console.print(" | ".join(rows[-1]), markup=False, highlight=False, soft_wrap=True)
    versions = fill(report.circumstances(("torch", "transformers", "peft", "bitsandbytes")), 100)
    PAGE.write_text(f"{HEAD}\n{versions}.\n\n{report.aligned(rows)}\n")


def _cell(planned: int, measured: int) -> str:
    return f"{planned / 1e6:.1f} / {measured / 1e6:.1f} = {planned / measured:.2f}"


def compare(changes: dict[str, Any], folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Return the planned and the measured bytes of each phase. `folder`: for the model and a checkpoint."""
    options = changes.get("model", {})
    policy = load_policy(BuiltinModel(builtin=options["builtin"])) if "builtin" in options else memory.make_policy(SIZE)
    policy.save(folder)
    spec = _spec(folder, changes)
    plan = estimate(spec, of_folder(folder), spec.model)
    planned: dict[str, int] = {phase: size - BASE_BYTES[False] for phase, size in plan.phases.items()}
    found = measured(spec, folder / "run") if spec.parallel == "ddp" else _of_two_processes(spec, folder / "run")
    return {phase: planned[phase] for phase in found}, found


def _of_two_processes(spec: TrainSpec, folder: Path) -> dict[str, int]:
    """Return the peak in bytes of each phase of the first of two processes, which writes the checkpoint."""
    folder.mkdir()
    (folder / SPEC).write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*command, "-m", "bench.sharded_memory", str(folder)], check=True, timeout=LIMIT_SECONDS)
    found: dict[str, int] = json.loads((folder / PEAKS).read_text())
    return found


def _example(policy: Policy) -> Example:
    """Return the prompt, with an image for a model that takes images."""
    if not policy.encoder.takes_images:
        return memory.EXAMPLE
    (example,) = data.load(BuiltinData(builtin="digits", split="train", rows=1))
    return example


def _spec(folder: Path, changes: dict[str, Any]) -> TrainSpec:
    options = dict(changes.get("model", {}))
    prompt_tokens = IMAGE_PROMPT_TOKENS if options.pop("builtin", None) else PROMPT_TOKENS
    spec = job_spec_adapter.validate_python(
        {
            "kind": "train",
            "name": "measured",
            "data": {"builtin": "digits"},
            "algorithm": {"type": "grpo", "mini_batches": 1},
            "rollout": {"group_size": memory.ROWS, "max_completion_tokens": SIZE.tokens},
            "prompts": {"max_tokens": prompt_tokens},
            "prompts_per_step": 1,
            "micro_batch_rows": memory.ROWS // 2,  # so that the first gradient is there when the second is computed
            "steps": 1,
            "checkpoints": {"host_gigabytes": 0},
            **changes,
            "model": {"path": str(folder), **options},
        }
    )
    assert isinstance(spec, TrainSpec)
    return spec


def measured(spec: TrainSpec, folder: Path, ranks: Ranks = ALONE) -> dict[str, int]:
    """Return the peak in bytes of each phase: what is there before, and what is allocated beside it."""
    config = TrainConfig.model_validate(spec.model_dump(mode="json", include={*TrainConfig.model_fields}))
    policies: list[Policy] = []

    def load() -> None:
        sharding = sharding_of(config, ranks.world)
        policies.append(load_policy(config.model, config.precision, sharding=sharding))
        if config.algorithm.needs_reference:
            policies.append(make_reference(policies[0], config.model, config.precision))

    # With quantisation or shards the files are mapped, which the profiler counts, and no weight stays a view of them.
    maps = config.model.quantization or config.parallel == "fsdp"
    mapped = {path.stat().st_size for path in folder.parent.glob("*.safetensors")} if maps else set()
    with patch.dict("os.environ", {"HF_DEACTIVATE_ASYNC_LOAD": "1"}):  # the profiler sees only this thread
        loaded = growth(load, mapped)
    policy, reference = policies[0], policies[-1] if len(policies) > 1 else None
    optimizer, example = make_optimizer(policy, config.optimizer), _example(policy)
    gradient = GradientStep(policy, optimizer, config.optimizer, ranks)
    updater = Updater(policy, gradient, config, reference, ranks)
    updater.update(memory.make_batch(policy, config, 8, SIZE.vocabulary, example), step=0)  # creates the moments
    gradient.clear()
    trained = sum(policy.weights.local_shard(one).numel() for one in policy.trained.values())
    kept = 8 * trained + sum(map(_weights, policies))
    batch = memory.make_batch(policy, config, SIZE.tokens, SIZE.vocabulary, example)
    update = kept + growth(lambda: updater.update(batch, step=0))
    kept += 4 * trained  # the gradients
    request = SamplingRequest(group_size=memory.ROWS, temperature=1.0, max_tokens=SIZE.tokens, seed=[5])
    engine = SharedPrefillEngine(policy, spec.rollout.batch_tokens)
    checkpoints = Checkpoints(folder, config.checkpoints, ranks)

    def sample() -> None:
        with engine.sampling(0):
            engine.generate([example], request)

    saving = growth(lambda: checkpoints.save(policy, optimizer, TrainerState(step=1)))
    waiting = saving if config.checkpoints.host_gigabytes else 0  # the copies, which another thread releases
    return {
        "load": loaded,
        "rollout": kept + waiting + growth(sample),
        "update": update + waiting,
        "save": kept + saving,
    }


def _weights(policy: Policy) -> int:
    """Return the bytes of the weights of a policy."""
    quantised = sum(layer.nbytes for layer in quantised_layers(policy.model).values())
    others: int = sum(policy.weights.local_shard(one).nbytes for one in policy.model.parameters())
    return quantised + others


def growth(work: Callable[[], Any], ignored: Collection[int] = ()) -> int:
    """Return by how many bytes torch's memory grows at most during `work()`, without allocations of the sizes
    `ignored`.
    """
    gc.collect()  # otherwise earlier models can be freed meanwhile
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        work()
    held = highest = 0
    for event in sorted(measured.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]" and abs(event.nbytes()) not in ignored:
            held += int(event.nbytes())
            highest = max(highest, held)
    return highest


if __name__ == "__main__":
    main()
