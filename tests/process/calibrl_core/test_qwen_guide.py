"""The guide from Qwen2.5-VL-7B to 8 GPUs, on a tiny twin: same classes, processor and files; two processes on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.gpu import shapes
from calibrl.schemas import MemoryPlan, TrainSpec
from calibrl_core.config import PathModel, TrainConfig
from calibrl_core.models.policy import load_policy
from jobs.planning import memory
from tests.process.calibrl_core import run_ranks
from tests.support import ROOT
from tests.support.qwen_guide import PAGE, SPEC, join_traces, only_language_changed, write_data, write_twin
from tests.support.training import of_type
from tests.support.waiting import LIMIT_SECONDS

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def cut(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the config of the spec for the twin: sizes of seconds, everything else as in the file."""
    changed = {name: value for name, value in spec.items() if name not in ("kind", "name", "resources")}
    options = {name: value for name, value in spec["model"].items() if name != "hub"}
    # The real model recomputes activations, because of its size; `auto` means bfloat16 on its GPUs.
    changed["model"] = {**options, "path": str(folder / "model"), "gradient_checkpointing": True}
    changed["precision"] = "bfloat16"
    changed["data"] = spec["data"] | {"path": str(folder / "train.parquet")}
    of_validation = spec["validation"]["data"] | {"path": str(folder / "validation.parquet")}
    changed["validation"] = spec["validation"] | {"data": of_validation}
    changed["rollout"] = spec["rollout"] | {"group_size": 2, "max_completion_tokens": 6}
    return changed | {"prompts_per_step": 4, "steps": 2}


@pytest.mark.slow
@pytest.mark.timeout(3 * LIMIT_SECONDS)
def test_the_guide_trains_a_twin_in_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_twin(tmp_path / "model")
    write_data(tmp_path)
    join_traces(tmp_path)
    config = cut(yaml.safe_load(SPEC.read_text()), tmp_path)
    TrainConfig.model_validate(config)
    runs, run_dir = tmp_path / "runs.json", tmp_path / "run"
    runs.write_text(json.dumps([{"folder": str(run_dir), "config": config, "stop_after": None}]))
    command = [*TORCHRUN, str(Path(run_ranks.__file__)), str(runs)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2 * LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr[-3000:]
    values = [event["values"] for event in of_type(run_dir, "metrics")]
    assert [step["loss/skipped_updates"] for step in values if "loss/total" in step] == [0, 0]
    assert any(step.get("loss/guidance", 0) != 0 for step in values)
    assert all("expert/nll" in step for step in values if "loss/total" in step)
    assert any("validation/accuracy" in step for step in values)
    checkpoint = run_dir / "checkpoints/step-000002"
    assert type(load_policy(PathModel(path=str(checkpoint))).processor).__name__ == "Qwen2_5_VLProcessor"
    only_language_changed(tmp_path / "model", checkpoint)


def plan(**changed: Any) -> MemoryPlan:
    """Return the plan of the spec for the real model."""
    spec = TrainSpec.model_validate(yaml.safe_load(SPEC.read_text()) | changed)
    return memory.estimate(spec, shapes.tensor_shapes(shapes.QWEN_7B), spec.model)


def test_the_guide_states_the_memory_of_its_plan() -> None:
    text = " ".join((ROOT / PAGE).read_text().split())
    whole = plan()
    alone = plan(resources={"gpus": 1}, model={"path": "/x", "freeze_vision": True, "lora": {}})
    assert max(whole.phases, key=lambda phase: whole.phases[phase]) == "rollout"
    assert f"memory per GPU, by phase: at most {whole.bytes / 1e9:.0f} GB, in the rollout" in text
    assert f"the plan needs {alone.bytes / 1e9:.0f} GB of one GPU" in text
    rollout = yaml.safe_load(SPEC.read_text())["rollout"] | {"engine": "vllm_server"}
    beside, apart = (plan(rollout=rollout | more) for more in ({}, {"server_gpus": 4, "max_staleness": 1}))
    assert f"The plan needs {beside.bytes / 1e9:.0f} GB per GPU, in the rollout" in text
    assert f"the plan needs {apart.bytes / 1e9:.0f} GB of each" in text
    assert beside.bytes == beside.phases["rollout"]
    assert f"downloads {whole.parameters * 2 / 1e9:.1f} GB once" in text
