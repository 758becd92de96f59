"""Checkpoints: a folder that `from_pretrained` reads, with what the trainer needs to go on beside it.

    checkpoints/step-000050/   model and processor, optimizer.safetensors, trainer.json; adapter/ with LoRA

A checkpoint is written under another name and renamed when it is whole, so that a half-written one is never picked.
Data order, sampling and learning rate are functions of the seed and the step: there is no generator to save.

With LoRA the model there is the merged one, which is read as any other; a run goes on from the model that it began
with, and the adapter. How many processes wrote it, and how they shared the weights, leaves no trace in it.
"""

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from calibrl_core.config import CheckpointSettings
from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.models.errors import ModelError, listed
from calibrl_core.models.policy import Policy

FOLDER = "checkpoints"
STATE_FILE = "trainer.json"
OPTIMIZER_FILE = "optimizer.safetensors"
TRAINED = "trained"  # in that file's metadata: the shape of each trained tensor, by its name in the model
GIGABYTE = 10**9


@dataclass
class TrainerState:
    """How far a run is."""

    step: int = 0  # updates done
    best_step: int | None = None
    best_value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)  # validation/ of this step, where it was validated
    solved: list[str] = field(default_factory=list)  # see `diagnostics.solved`
    health: dict[str, Any] = field(default_factory=dict)  # see `health`


class QuotaError(Exception):
    """The checkpoints that must be kept need more disk than they may."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, run_dir: Path, settings: CheckpointSettings, ranks: Ranks = ALONE) -> None:
        self.folder = run_dir / FOLDER
        self._settings = settings
        self._ranks = ranks

    def all(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        whole = (path for path in self.folder.glob("step-*[0-9]") if (path / STATE_FILE).is_file())
        return sorted(whole, key=lambda path: int(path.name.removeprefix("step-")))

    def save(self, policy: Policy, optimizer: torch.optim.Optimizer, state: TrainerState) -> Path:
        """Write the checkpoint of `state.step`; return its folder. All processes must call it; the first one writes.

        Where the disk can't hold it nothing is left of it, and the others stay as they are.
        """
        final = self.folder / f"step-{state.step:06d}"
        weights, moments = policy.weights.state(policy.model), _optimizer_tensors(optimizer, policy)
        if not self._ranks.first:
            return final
        partial = self.folder / f".partial-{final.name}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            policy.save(partial, weights)
            shapes = {name: list(parameter.shape) for name, parameter in policy.trained.items()}
            save_file(moments, partial / OPTIMIZER_FILE, metadata={TRAINED: json.dumps(shapes)})
            (partial / STATE_FILE).write_text(json.dumps(asdict(state)))
            _sync(partial)
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        _sync_folder(self.folder)
        return final

    def surplus(self, best_step: int | None) -> list[Path]:
        """All but the newest ones and the best; of those the oldest too, until the rest is within `max_gigabytes`.

        Never the newest, nor the best.
        """
        saved, best = self.all(), f"step-{best_step or 0:06d}"
        surplus = [path for path in saved[: -self._settings.keep_last] if path.name != best]
        spare = [path for path in saved[:-1] if path.name != best and path not in surplus]
        sizes = {path: _bytes(path) for path in saved if path not in surplus}
        while spare and sum(sizes.values()) > self._quota:
            surplus.append(spare.pop(0))
            del sizes[surplus[-1]]
        return surplus

    def check_quota(self) -> None:
        """Raises QuotaError where what is left after `surplus` is removed needs more than `max_gigabytes`."""
        needed = sum(_bytes(path) for path in self.all())
        if needed > self._quota:
            raise QuotaError(
                f"the newest and the best checkpoint need {needed / GIGABYTE:.3g} GB; "
                f"raise checkpoints.max_gigabytes ({self._settings.max_gigabytes:g})"
            )

    @property
    def _quota(self) -> float:
        limit = self._settings.max_gigabytes
        return math.inf if limit is None else limit * GIGABYTE

    def remove(self, paths: list[Path]) -> None:
        """Delete checkpoints, each at once for whoever looks at it meanwhile."""
        for path in paths:
            gone = path.with_name(f".removed-{path.name}")
            path.rename(gone)
            shutil.rmtree(gone)


def read_state(checkpoint: Path) -> TrainerState:
    """The state that a checkpoint was saved with."""
    return TrainerState(**json.loads((checkpoint / STATE_FILE).read_text()))


def restore_optimizer(checkpoint: Path, optimizer: torch.optim.Optimizer, policy: Policy) -> None:
    """Load AdamW's moments and step counts, by the names of the tensors that they belong to.

    Raises:
        ModelError: the checkpoint's run trained other tensors than this one does.
    """
    path = checkpoint / OPTIMIZER_FILE
    parameters = policy.trained
    saved: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(path, "pt") as file:
        shapes = (file.metadata() or {}).get(TRAINED)
        for key in file.keys():  # noqa: SIM118  # no mapping
            name, _, kind = key.rpartition(".")
            saved.setdefault(name, {})[kind] = file.get_tensor(key)
    if shapes is None:
        saved = _named_by_position(path, saved, parameters)
    else:
        _check_trained(path, {name: tuple(shape) for name, shape in json.loads(shapes).items()}, parameters)
    state = {
        index: {kind: policy.weights.part(tensor, parameters[name]) for kind, tensor in saved[name].items()}
        for index, name in enumerate(parameters)
        if name in saved
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _named_by_position(
    path: Path, saved: dict[str, dict[str, torch.Tensor]], parameters: Mapping[str, torch.nn.Parameter]
) -> dict[str, dict[str, torch.Tensor]]:
    """Checkpoints of earlier versions have positions for names. They fit only if there is one for each tensor, each
    of its shape; a run that has not updated anything yet has none."""
    if not saved:
        return {}
    by_position = [saved.get(str(position), {}) for position in range(len(saved))]
    shapes = [moments["exp_avg"].shape if "exp_avg" in moments else None for moments in by_position]
    if shapes != [parameter.shape for parameter in parameters.values()]:
        raise ModelError(
            f"{path}: it holds the optimizer's state of {len(saved)} tensors, which are not the {len(parameters)} "
            "tensors that this run trains; set model.lora and model.freeze_vision as they were when it was saved"
        )
    return dict(zip(parameters, by_position, strict=True))


def _check_trained(path: Path, saved: dict[str, tuple[int, ...]], parameters: Mapping[str, torch.nn.Parameter]) -> None:
    here = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    if saved == here:
        return
    both = saved.keys() & here.keys()
    shapes = [f"{name} {saved[name]} for {here[name]}" for name in both if saved[name] != here[name]]
    gone, new = saved.keys() - both, here.keys() - both
    kinds = (("no longer trained", gone), ("not trained before", new), ("of another shape", shapes))
    found = "; ".join(f"{kind}: {listed(names)}" for kind, names in kinds if names)
    raise ModelError(f"{path}: its run trained other tensors than this one; {found}; {_advice(saved, here)}")


def _advice(saved: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The settings that were likely changed since the checkpoint was saved."""
    before, now = (any(".lora_" in name for name in names) for names in (saved, here))
    if before != now:
        return "put model.lora back as it was" if before else "take model.lora out again: the run began without it"
    if before:
        return "put model.lora.targets and model.lora.rank back as they were"
    if saved.keys() < here.keys():
        return "set model.freeze_vision to true again"
    if saved.keys() > here.keys():
        return "set model.freeze_vision to false again"
    return "put the fields of model back as they were"


def _optimizer_tensors(optimizer: torch.optim.Optimizer, policy: Policy) -> dict[str, torch.Tensor]:
    names = list(policy.trained)
    return {
        f"{names[index]}.{kind}": policy.weights.whole(value).contiguous()
        for index, values in optimizer.state_dict()["state"].items()
        for kind, value in values.items()
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
