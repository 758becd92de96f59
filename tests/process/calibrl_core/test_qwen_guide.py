"""The guide from Qwen2.5-VL-7B to 8 GPUs, on a tiny twin: same classes, processor and files; two processes on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from safetensors.torch import load_file

from bench.gpu import shapes
from calibrl.schemas import MemoryPlan, TrainSpec
from calibrl_core.config import PathModel, TrainConfig
from calibrl_core.models.policy import load_policy
from jobs.planning import memory
from tests.families.run import write_images
from tests.process.calibrl_core import run_ranks
from tests.support import ROOT, documents
from tests.support.training import of_type
from tests.support.waiting import LIMIT_SECONDS

PAGE = "docs/how-to/qwen-7b.md"
SPEC = documents.DOCS / "examples/qwen-7b.yaml"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ROWS = 6


def write_twin(folder: Path) -> None:
    """Write the twin with the files of the hub's repository: sharded weights, and the chat template as JSON."""
    config = shapes.make_config(shapes.SMALL, shapes.write_processor(folder))
    template = folder / "chat_template.jinja"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()
    shapes.make_model(config, "cpu", torch.bfloat16).save_pretrained(folder, max_shard_size="1MB")
    assert (folder / "model.safetensors.index.json").exists()


def write_data(folder: Path) -> None:
    """Write problems in the columns of Geometry3K, and traces for all but two of them."""
    pictures = [{"bytes": file.read_bytes(), "path": file.name} for file in write_images(folder)]
    problems = [{"images": [pictures[row % 3]], "problem": "<image>Find x.", "answer": str(row)} for row in range(ROWS)]
    for name in ("geometry3k", "validation"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(problems), folder / f"{name}.parquet")
    traces = [
        {"index": row, "solution": f"<think>x={row}.</think><answer>{row}</answer>"} for row in range(1, ROWS - 1)
    ]
    (folder / "traces.jsonl").write_text("\n".join(map(json.dumps, traces)) + "\n")


def join_traces(folder: Path) -> None:
    """Run the program of the page, which writes `train.parquet`."""
    (block,) = [block for block in documents.blocks("python") if block.path == PAGE]
    exec(compile(block.text, PAGE, "exec"), {"__name__": "__main__"})
    experts = pyarrow.parquet.read_table(folder / "train.parquet")["solution"].to_pylist()
    assert [expert is None for expert in experts] == [True, *[False] * (ROWS - 2), True]


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


def only_language_changed(before: Path, after: Path) -> None:
    """Check that training changed the language model, and left the vision tower as it was."""
    start, end = (
        {name: tensor for file in folder.glob("model*.safetensors") for name, tensor in load_file(file).items()}
        for folder in (before, after)
    )
    assert start.keys() == end.keys()
    changed = {name for name in start if not torch.equal(start[name].float(), end[name].float())}
    assert changed and not any("visual" in name for name in changed)


def plan(**changed: Any) -> MemoryPlan:
    """Return the plan of the spec for the real model."""
    spec = TrainSpec.model_validate(yaml.safe_load(SPEC.read_text()) | changed)
    return memory.estimate(spec, shapes.tensor_shapes(shapes.QWEN_7B), spec.model)


def test_the_guide_states_the_memory_of_its_plan() -> None:
    text = " ".join((ROOT / PAGE).read_text().split())
    whole = plan()
    alone = plan(resources={"gpus": 1}, model={"path": "/x", "freeze_vision": True, "lora": {}})
    assert max(whole.phases, key=lambda phase: whole.phases[phase]) == "update"
    assert f"memory per GPU, by phase: at most {whole.bytes / 1e9:.0f} GB, in the update" in text
    assert f"the plan needs {alone.bytes / 1e9:.0f} GB of one GPU" in text
    rollout = yaml.safe_load(SPEC.read_text())["rollout"] | {"engine": "vllm_server"}
    beside, apart = (plan(rollout=rollout | more) for more in ({}, {"server_gpus": 4, "max_staleness": 1}))
    assert f"The plan needs {beside.bytes / 1e9:.0f} GB per GPU, in the rollout" in text
    assert f"the plan needs {apart.bytes / 1e9:.0f} GB of each" in text
    assert beside.bytes == beside.phases["rollout"]
    assert f"downloads {whole.parameters * 2 / 1e9:.1f} GB once" in text
