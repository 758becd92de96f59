"""Rollouts by vLLM servers: weight updates, steps that sample during the update of the step before, and two processes
with a server each.

    .venv-vllm/bin/python -m bench.rollout_servers

It needs the environment of `make test-vllm`. A weight update is measured on the tiny model and on a text model of
135 million parameters with random weights, the latter also with adapters. The steps are those of the tiny model: it
learns to write letters, from several seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import calibrl_core.trainer_extra  # noqa: F401

# isort: split
import torch
from rich.console import Console
from transformers import LlamaConfig

from bench import report
from bench.peak_memory import peak_bytes, restart_peak
from calibrl_core.config import BuiltinModel, LoraSettings, PathModel, TrainConfig
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.report import EventFile
from calibrl_core.rollout.adapter_files import AdapterUpdate
from calibrl_core.rollout.served import ServedEngine
from calibrl_core.rollout.weight_files import WholeUpdate
from calibrl_core.settings.sampling import EngineSettings
from calibrl_core.train import train
from calibrl_core.verifiers.scorer import Scorer
from tests.process.calibrl_core import run_ranks
from tests.support.tiny_text import tiny_text_policy
from tests.support.training import of_type, score_by_letters

UPDATES = 5
STEPS = 40
Run = Sequence[dict[str, float]]  # the metrics of each step
LAST = 10  # steps whose rewards are compared
RANK_STEPS = 12  # of two processes; the first two do not count
# The shape of SmolLM2-135M.
TEXT_135M: dict[str, Any] = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49_152,
    "tie_word_embeddings": True,
    "max_position_embeddings": 2048,
    "initializer_range": 0.04,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder of the JSON file")
    parser.add_argument("--seeds", type=int, default=3, help="runs per setting of the steps (default: 3)")
    options = parser.parse_args()
    console = Console()
    console.print(report.circumstances(("transformers", "torch")), soft_wrap=True)
    rows = []
    for row in measure(options.seeds):
        console.print(row.measure, f"{row.ours:.3g}", row.unit, soft_wrap=True)
        rows.append(row)
    path = report.write("rollout-servers", rows, options.results)
    console.print(f"\n{report.table(rows)}\n\n{path}", markup=False, highlight=False, soft_wrap=True)


def measure(seeds: int) -> Iterator[report.ReportRow]:
    """Yield the rows. The peer of an update is a copy of the same bytes within the memory of a process."""
    tiny = load_policy(BuiltinModel(builtin="tiny-vlm"))
    yield from updates("tiny model", tiny)
    whole = tiny_text_policy(tiny.tokenizer, LlamaConfig, **TEXT_135M)
    yield from updates("135M", whole)
    yield from updates("135M with adapters of rank 16", adapted(whole))
    Scorer.grade = score_by_letters  # type: ignore[method-assign]
    in_turns = [run(0, seed) for seed in range(seeds)]
    yield from ranks(in_turns[0])
    yield from steps(in_turns)


def adapted(policy: Policy) -> Policy:
    """Return the policy's model with fresh adapters."""
    with tempfile.TemporaryDirectory() as folder:
        policy.save(Path(folder))
        return load_policy(PathModel(path=folder, lora=LoraSettings(rank=16)))


def updates(name: str, policy: Policy) -> Iterator[report.ReportRow]:
    """Measure the update of a server's weights: bytes, seconds, and the growth of the trainer's process."""
    engine = ServedEngine(policy, EngineSettings(engine="vllm_server", batch_tokens=4096))
    try:
        writing, loading = [], []
        before = restart_peak(on_gpu=False)
        for version in range(UPDATES):
            began = time.perf_counter()
            update = engine._weights.write(version)
            assert isinstance(update, WholeUpdate | AdapterUpdate)
            files = [*update.folder.iterdir()] if isinstance(update, AdapterUpdate) else [*map(Path, update.files)]
            written = time.perf_counter()
            engine._servers.load(update)
            writing.append(written - began)
            loading.append(time.perf_counter() - written)
        size = sum(file.stat().st_size for file in files)
        grown = peak_bytes(on_gpu=False) - before
    finally:
        engine.close()
    yield report.no_goal(f"{name}: bytes of an update; growth of the trainer", size / 1e9, grown / 1e9, "GB")
    yield report.no_goal(f"{name}: writing the files; a plain copy", median(writing), copy_seconds(size), "s")
    yield report.no_goal(f"{name}: loading by the server; a plain copy", median(loading), copy_seconds(size), "s")


def copy_seconds(size: int) -> float:
    """Return the time to copy so many bytes from one place in memory to another, which is in use already."""
    source, target = torch.ones(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    began = time.perf_counter()
    target.copy_(source)
    return time.perf_counter() - began


def ranks(alone: Run) -> Iterator[report.ReportRow]:
    """Compare two processes with a server each, started by torchrun, with one process and its server (`alone`)."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        settings = {**config(0, 0), "parallel": "ddp", "steps": RANK_STEPS}
        (root / "runs.json").write_text(json.dumps([{"folder": str(root / "run"), "config": settings}]))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([*command, str(run_ranks.__file__), str(root / "runs.json")], env=environment, check=True)
        values = [event["values"] for event in of_type(root / "run", "metrics")]
    for name, what, unit in (
        ("tokens_per_second", "completion tokens of a step", "tokens/s"),
        ("step_seconds", "a step", "s"),
        ("rollout_seconds", "its rollouts", "s"),
    ):
        ours, peer = (median(step[f"perf/{name}"] for step in of_run[2:]) for of_run in (values, alone))
        yield report.no_goal(f"2 processes with a server each: {what}; peer: 1 process", ours, peer, unit)


def steps(in_turns: Sequence[Run]) -> Iterator[report.ReportRow]:
    """Compare runs of `rollout.max_staleness` 1 with those of 0: their rewards at the end, and the time of a step."""
    ahead = [run(1, seed) for seed in range(len(in_turns))]
    for seed, both in enumerate(zip(ahead, in_turns, strict=True)):
        ours, peer = (mean(step["reward/mean"] for step in values[-LAST:]) for values in both)
        yield report.no_goal(f"reward of the last {LAST} steps, seed {seed}; peer: in turns", ours, peer, "")
    for name, what in (("step", "a step that samples ahead"), ("rollout", "its wait for rollouts")):
        ours, peer = (
            median(step[f"perf/{name}_seconds"] for values in runs for step in values[2:]) for runs in (ahead, in_turns)
        )
        yield report.no_goal(f"{what}; peer: in turns", ours, peer, "s")


def config(staleness: int, seed: int) -> dict[str, Any]:
    """Return the settings of a run with the tiny model."""
    return {
        "model": {"builtin": "tiny-vlm", "seed": seed},
        "data": {"builtin": "digits", "split": "train", "rows": 64},
        "algorithm": {"type": "grpo", "mini_batches": 1},
        "rollout": {
            "group_size": 8,
            "max_completion_tokens": 32,
            "engine": "vllm_server",
            "batch_tokens": 10_000,
            "max_staleness": staleness,
        },
        "optimizer": {"lr": 1e-3},
        "prompts_per_step": 8,
        "steps": STEPS,
        "seed": seed,
    }


def run(staleness: int, seed: int) -> Run:
    """Train the tiny model; return the metrics of each step."""
    with tempfile.TemporaryDirectory() as folder:
        events = EventFile(Path(folder))
        train(TrainConfig.model_validate(config(staleness, seed)), events, lambda: False)
        events.close()
        return [event["values"] for event in of_type(Path(folder), "metrics")]


if __name__ == "__main__":
    main()
