"""Program of two processes: `run_memory.py FOLDER` loads the model in FOLDER/model in shards, saves a checkpoint and
resumes it. Writes the bytes that torch held in each phase to FOLDER/bytes.RANK.json.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed
from torch.profiler import ProfilerActivity, profile

from calibrl_core.config import PathModel
from calibrl_core.distributed.process_group import join_process_group
from calibrl_core.models import tensor_files
from calibrl_core.models.policy import load_policy
from calibrl_core.models.weights import Sharding
from calibrl_core.run.checkpoint import Checkpoints, TrainerState, restore_optimizer
from calibrl_core.settings.optimizer import OptimizerSettings
from calibrl_core.settings.record import CheckpointSettings
from calibrl_core.step.optimizer import make_optimizer

FILE_BYTES = 10**6


@contextmanager
def peak(of: dict[str, int], phase: str, folder: Path) -> Iterator[None]:
    """Record by how many bytes torch's memory grew at most, without files that are only mapped."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        yield
    events = sorted(measured.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    mapped = {path.stat().st_size for path in folder.rglob("*.safetensors")}
    held = highest = 0
    for event in events:
        if event.name() == "[memory]" and abs(event.nbytes()) not in mapped:
            held += event.nbytes()
            highest = max(highest, held)
    of[phase] = highest


def main(folder: Path) -> None:
    tensor_files.FILE_BYTES = FILE_BYTES
    found: dict[str, int] = {}
    with join_process_group() as ranks:
        with peak(found, "load", folder):
            policy = load_policy(PathModel(path=str(folder / "model")), sharding=Sharding())
        optimizer = make_optimizer(policy, OptimizerSettings())
        for parameter in policy.trained.values():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        with peak(found, "save", folder):
            saved = Checkpoints(folder, CheckpointSettings(host_gigabytes=0), ranks).save(
                policy, optimizer, TrainerState(step=1)
            )
        distributed.barrier()  # the first process has renamed the folder
        again = make_optimizer(policy, OptimizerSettings())
        with peak(found, "resume", folder):
            restore_optimizer(saved, again, policy)
        pairs = zip(optimizer.state.values(), again.state.values(), strict=True)
        same = [torch.equal(one[kind].to_local(), two[kind].to_local()) for one, two in pairs for kind in ("exp_avg",)]
        found["moments_differ"] = len(same) - sum(same)
    (folder / f"bytes.{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
