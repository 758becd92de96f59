"""Four processes with copies of the weights per pair (HSDP), or shards in host memory: equal to plain FSDP2."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from calibrl_core.distributed.ranks import LaunchError, Ranks
from calibrl_core.report import SilentReport
from calibrl_core.train import train
from tests.process.calibrl_core.test_distributed import SCRIPT, TORCHRUN, metrics, started
from tests.support.training import config
from tests.support.waiting import LIMIT_SECONDS

FOUR = [*TORCHRUN[:-1], "4"]
COMMON: dict[str, Any] = {
    "parallel": "fsdp",
    "prompts_per_step": 4,
    "algorithm": {"type": "calibrl", "mini_batches": 1},
    "steps": 2,
}
OFFLOADED = {"cpu_offload": True}
PAIRS = {"shard_size": 2, "cpu_offload": True}


@pytest.mark.slow
def test_copies_and_host_memory_change_no_number(tmp_path: Path) -> None:
    """The pairs are stopped after a step, and resumed from shards of another layout than one row of four."""
    settings = {name: config(**COMMON | one) for name, one in (("plain", {}), ("offload", OFFLOADED), ("pairs", PAIRS))}
    plain, offload, pairs = (
        {"folder": str(tmp_path / name), "config": one.model_dump(mode="json")} for name, one in settings.items()
    )
    runs = tmp_path / "runs.json"
    runs.write_text(json.dumps([plain, offload, pairs | {"stop_after": 1}, pairs]))
    with started([*FOUR, str(SCRIPT), str(runs)], tmp_path / "log.txt") as processes:
        assert processes.wait(LIMIT_SECONDS) == 0, (tmp_path / "log.txt").read_text()
    expected = load_file(tmp_path / "plain/checkpoints/step-000002/model.safetensors")
    for name in ("offload", "pairs"):
        found = load_file(tmp_path / name / "checkpoints/step-000002/model.safetensors")
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=0, atol=1e-6)
        for ours, theirs in zip(metrics(tmp_path / name), metrics(tmp_path / "plain"), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)  # norms over all shards, of which there are copies


@pytest.mark.parametrize("changes", [{"shard_size": 2}, {"cpu_offload": True}])
def test_options_of_sharding_need_it(changes: dict[str, Any]) -> None:
    (field,) = changes
    with pytest.raises(ValidationError, match=f"{field}: only with parallel: fsdp"):
        config(**changes)


def test_copies_have_whole_shards_and_offload_has_processes(tmp_path: Path) -> None:
    four = Ranks()
    four.world = 4
    with pytest.raises(LaunchError, match=r"shard_size \(3\) must divide the number of processes \(4\)"):
        train(config(**COMMON | {"shard_size": 3}), SilentReport(tmp_path), lambda: True, four)
    with pytest.raises(LaunchError, match="cpu_offload needs several processes"):
        train(config(**COMMON | OFFLOADED), SilentReport(tmp_path), lambda: True)


class Second(Ranks):
    rank, world = 1, 2


def test_runs_that_cannot_be_split_are_refused(tmp_path: Path) -> None:
    few = config(prompts_per_step=1, algorithm={"type": "calibrl", "mini_batches": 1})
    with pytest.raises(LaunchError, match=r"prompts_per_step \(1\) .* number of processes \(2\)"):
        train(few, SilentReport(tmp_path), lambda: False, Second())


def test_shares_are_neighbours_and_as_even_as_they_go() -> None:
    assert Second().my_slice(3) == range(1, 3)
    assert list(Ranks().my_slice(3)) == [0, 1, 2]
