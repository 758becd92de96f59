"""Two processes, each with its own vLLM engine or server, learn what they should.

`make test-vllm` runs these in their own environment; elsewhere they are skipped.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from calibrl_core.config import BuiltinModel
from calibrl_core.distributed.ranks import ALONE
from calibrl_core.models.policy import load_policy
from calibrl_core.verifiers.scorer import Scorer
from tests.process.calibrl_core import run_ranks
from tests.support.training import of_type, score_by_hash

SCRIPT = Path(run_ranks.__file__)
ROOT = Path(__file__).parents[3]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
LIMIT_SECONDS = 1200
# A rate at which one update moves log-probabilities by some 0.3 nats: weights of an earlier step would show.
CONFIG: dict[str, Any] = {
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits", "split": "train", "rows": 6},
    "validation": {"data": {"builtin": "digits", "split": "validation", "rows": 3}, "every_steps": 3, "samples": 2},
    "algorithm": {"type": "calibrl", "mini_batches": 2},
    "rollout": {"group_size": 3, "max_completion_tokens": 6, "engine": "vllm", "batch_tokens": 10_000},
    "optimizer": {"lr": 1e-3},
    "prompts_per_step": 3,
    "steps": 3,
    "checkpoints": {"every_steps": 3},
}
pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed here: make test-vllm")


KINDS = ("ddp", "fsdp")
ENGINES = ("vllm", "shared_prefill")


def config(engine: str, kind: str, **rollout: Any) -> dict[str, Any]:
    return CONFIG | {"parallel": kind, "rollout": {**CONFIG["rollout"], "engine": engine, **rollout}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the runs, each by two processes: ENGINE/KIND."""
    runs = {f"{engine}/{kind}": config(engine, kind) for engine in ENGINES for kind in KINDS}
    return two_processes(tmp_path_factory.mktemp("ranks"), runs)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the runs with servers. By two processes: two (a server each) and two-ahead (a common server
    that samples ahead); by this process: one and one-ahead.
    """
    runs = {
        "two": config("vllm_server", "fsdp"),
        "two-ahead": config("vllm_server", "fsdp", server_gpus=1, max_staleness=1),
    }
    root = two_processes(tmp_path_factory.mktemp("served"), runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "grade", score_by_hash)
        run_ranks.run(root / "one", config("vllm_server", "ddp"), None, ALONE)
        run_ranks.run(root / "one-ahead", config("vllm_server", "ddp", max_staleness=1), None, ALONE)
    return root


def two_processes(root: Path, configs: dict[str, dict[str, Any]]) -> Path:
    """Train with each config, in a folder of its name in `root`; return `root`."""
    runs = [{"folder": str(root / name), "config": config} for name, config in configs.items()]
    (root / "runs.json").write_text(json.dumps(runs))
    command = [*TORCHRUN, str(SCRIPT), str(root / "runs.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-6000:]
    return root


def values(run_dir: Path) -> list[dict[str, float]]:
    return [event["values"] for event in of_type(run_dir, "metrics")]


@pytest.mark.parametrize("kind", KINDS)
def test_both_engines_learn_the_same_weights(folder: Path, kind: str) -> None:
    """Up to a small part of the way from the start: where a gradient is nearly 0, Adam makes much of its rounding."""
    vllm, own = (folder / engine / kind for engine in ENGINES)
    assert_same_weights(vllm, own)
    assert_same_figures(vllm, own)


def assert_same_weights(found: Path, expected: Path) -> None:
    start = load_policy(BuiltinModel(builtin="tiny-vlm")).model.state_dict()
    one, other = (load_file(run / "checkpoints/step-000003/model.safetensors") for run in (found, expected))
    moved = sum(float((other[name] - start[name]).square().sum()) for name in other)
    apart = sum(float((other[name] - one[name]).square().sum()) for name in other)
    assert 0 <= apart < 1e-4 * moved


def assert_same_figures(one: Path, other: Path) -> None:
    for name in ("validation/length_mean", "reward/mean", "exploration/entropy"):
        assert values(one)[-1][name] == pytest.approx(values(other)[-1][name], rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_steps_weights_reach_both_engines(folder: Path, kind: str) -> None:
    vllm, own = (values(folder / engine / kind) for engine in ENGINES)
    compared = ["kl/sampler" in step for step in vllm]
    assert compared == ["kl/sampler" in step for step in own]  # a step has none if no row has a weight
    assert any(compared)
    assert all(step.get("kl/sampler", 0.0) < 1e-9 for step in vllm)
    assert all(step["loss/grad_norm"] > 0 for step in vllm)


def test_two_processes_with_servers_learn_what_one_learns(served: Path) -> None:
    """Each process asks its own server for its own prompts: the completions are those of one server."""
    one, two = served / "one", served / "two"
    assert_same_weights(two, one)
    assert_same_figures(two, one)
    for step in (*values(one), *values(two)):
        assert step.get("kl/sampler", 0.0) < 1e-9


def test_a_common_server_that_samples_ahead_is_one_step_behind(served: Path) -> None:
    """One process with its own server, and two with a common one, learn from the same completions."""
    one, two = served / "one-ahead", served / "two-ahead"
    assert_same_weights(two, one)
    assert_same_figures(two, one)
    for run in (one, two):
        first, *later = (step.get("kl/sampler") for step in values(run))
        assert first is None or first < 1e-9
        assert all(found is None or found > 1e-4 for found in later)
        assert any(later)
