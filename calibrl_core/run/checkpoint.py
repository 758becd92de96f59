"""Checkpoints: a folder that `from_pretrained` reads, with the files that a resume needs.

    checkpoints/step-000050/   model and processor, optimizer.safetensors, trainer.json; adapter/ with LoRA

A checkpoint is written under another name and renamed when complete, so that an incomplete one is never used. Order of
the epochs, sampling and learning rate are functions of the seed and the step: there is no generator to save, only the
place in the data.

With LoRA the model in the folder is the merged one, readable as any other model. A resume uses the model that the run
started with, and the adapter. The number of processes and the sharding of the weights leave no trace in a checkpoint.
Tensors are gathered and copied to the host one after the other, and a thread writes them in files of 2 GB while
training goes on. A resume reads only this process's part.
"""

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.models.errors import ModelError, first_names
from calibrl_core.models.policy import FORMAT, MODEL, Policy
from calibrl_core.models.tensor_files import TensorFiles, write_tensors
from calibrl_core.run.host_copies import HostCopies
from calibrl_core.settings.record import CheckpointSettings
from calibrl_core.step.adamw_8bit import plain_tensors, with_moments

FOLDER = "checkpoints"
STATE_FILE = "trainer.json"
OPTIMIZER = "optimizer"  # stem of the files
TRAINED = "trained"  # key in their metadata: the shape of each trained tensor, by its name in the model
PARTIAL = ".partial-"  # prefix of the name of a checkpoint that is not whole
GIGABYTE = 10**9


@dataclass
class TrainerState:
    """Progress of a run."""

    step: int = 0  # updates done
    best_step: int | None = None
    best_value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)  # validation/ metrics of this step, if it has any
    solved: list[str] = field(default_factory=list)  # see `diagnostics.solved`
    health: dict[str, Any] = field(default_factory=dict)  # see `health`
    order: dict[str, Any] = field(default_factory=dict)  # see `data.order`; empty in checkpoints of earlier versions
    moved: dict[str, float] = field(default_factory=dict)  # see `StepResult`
    identity: dict[str, Any] = field(default_factory=dict)  # see `identity`; empty in checkpoints of earlier versions


class QuotaError(Exception):
    """The checkpoints that must be kept need more disk than `checkpoints.max_gigabytes`."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, run_dir: Path, settings: CheckpointSettings, ranks: Ranks = ALONE) -> None:
        self.folder = run_dir / FOLDER
        self._settings = settings
        self._ranks = ranks
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[Path] | None = None

    def all(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        whole = (path for path in self.folder.glob("step-*[0-9]") if (path / STATE_FILE).is_file())
        return sorted(whole, key=lambda path: int(path.name.removeprefix("step-")))

    def save(self, policy: Policy, optimizer: torch.optim.Optimizer, state: TrainerState) -> Path:
        """Write the checkpoint of `state.step`; return its folder. Otherwise as `begin`."""
        self.begin(policy, optimizer, state)
        return self.written() or self._final(state)

    def begin(self, policy: Policy, optimizer: torch.optim.Optimizer, state: TrainerState) -> None:
        """Begin to write the checkpoint of `state.step`; `written` returns it. All processes must call it; the first
        one writes, in a thread, and returns when all tensors are copied. The checkpoint before must be whole.

        If the disk is full, the incomplete checkpoint is removed and the others stay as they are.

        Raises:
            OSError: files, such as a full disk.
        """
        assert self._written is None
        final = self._final(state)
        partial = final.with_name(PARTIAL + final.name)
        tensors = (policy.saved_tensors(), _optimizer_tensors(optimizer, policy))
        if not self._ranks.first:
            policy.save_small(partial, self._ranks)
            for group in tensors:
                for _ in group:
                    pass
            return
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        shapes = {name: list(parameter.shape) for name, parameter in policy.trained.items()}
        limit = round(self._settings.host_gigabytes * GIGABYTE)
        copies = HostCopies(limit)
        texts = json.dumps(asdict(state)), json.dumps(shapes)
        try:
            policy.save_small(partial, self._ranks)
            if limit == 0:
                _write(tensors, *texts, partial)
                self._written = Future()
                self._written.set_result(final)
                return
            self._written = self._thread.submit(_write_copies, copies, *texts, partial)
            for group in tensors:
                copies.put_group(group)
        except Exception as error:
            copies.fail(error)
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def written(self, *, waits: bool = True) -> Path | None:
        """Return the checkpoint that was begun, if it is whole and was not returned before. Waits until it is.

        waits: False: return None if it is not whole yet.

        Raises:
            OSError: it could not be written.
        """
        future = self._written
        if future is None or not (waits or future.done()):
            return None
        self._written = None
        return future.result()

    def _final(self, state: TrainerState) -> Path:
        return self.folder / f"step-{state.step:06d}"

    def surplus(self, best_step: int | None) -> list[Path]:
        """Return the checkpoints to remove: all but the newest `keep_last` and the best, then the oldest of the rest
        until the total is within `max_gigabytes`. The newest and the best are never among them.
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
        """Check the disk use after the surplus has been removed.

        Raises:
            QuotaError: the checkpoints need more than `max_gigabytes`.
        """
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
        """Delete checkpoints. Each disappears atomically for readers."""
        for path in paths:
            removed = path.with_name(f".removed-{path.name}")
            path.rename(removed)
            shutil.rmtree(removed)


def read_state(checkpoint: Path) -> TrainerState:
    """Return the state that a checkpoint was saved with."""
    return TrainerState(**json.loads((checkpoint / STATE_FILE).read_text()))


def restore_optimizer(checkpoint: Path, optimizer: torch.optim.Optimizer, policy: Policy) -> None:
    """Load AdamW's moments and step counts, matched by the names of their tensors.

    Raises:
        ModelError: the checkpoint's run trained other tensors than this one does.
    """
    path = checkpoint / f"{OPTIMIZER}.safetensors"
    parameters = policy.trained
    with TensorFiles(checkpoint, OPTIMIZER) as files:
        keys: dict[str, dict[str, str]] = {}  # in the files, by the name of the trained tensor and the kind of state
        for key in files.names:
            name, _, kind = key.rpartition(".")
            keys.setdefault(name, {})[kind] = key
        if TRAINED not in files.metadata:
            keys = _named_by_position(path, files, keys, parameters)
        else:
            shapes = json.loads(files.metadata[TRAINED])
            _check_trained(path, {name: tuple(shape) for name, shape in shapes.items()}, parameters)
        state = {
            index: with_moments(
                {kind: policy.weights.read(files, key, parameters[name]) for kind, key in keys[name].items()},
                parameters[name],
                policy.weights,
            )
            for index, name in enumerate(parameters)
            if name in keys
        }
        first = optimizer.state_dict()
        optimizer.load_state_dict({"state": first["state"] | state, "param_groups": first["param_groups"]})


def _named_by_position(
    path: Path, files: TensorFiles, saved: dict[str, dict[str, str]], parameters: Mapping[str, torch.nn.Parameter]
) -> dict[str, dict[str, str]]:
    """Return the keys by name of a checkpoint of an earlier version, which has positions instead of names.

    Such a checkpoint fits only if it has one entry per tensor, each of the tensor's shape. A run that has not updated
    anything yet has no entries.
    """
    if not saved:
        return {}
    by_position = [saved.get(str(position), {}) for position in range(len(saved))]
    shapes = [files.shape(keys["exp_avg"]) if "exp_avg" in keys else None for keys in by_position]
    if shapes != [tuple(parameter.shape) for parameter in parameters.values()]:
        raise ModelError(
            f"{path}: it holds the optimizer's state of {len(saved)} tensors, which are not the {len(parameters)} "
            "tensors that this run trains; set model.lora and model.freeze_vision to their values in the run that "
            "saved it"
        )
    return dict(zip(parameters, by_position, strict=True))


def _check_trained(path: Path, saved: dict[str, tuple[int, ...]], parameters: Mapping[str, torch.nn.Parameter]) -> None:
    here = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    if saved == here:
        return
    both = saved.keys() & here.keys()
    shapes = [f"{name} {saved[name]} for {here[name]}" for name in both if saved[name] != here[name]]
    missing, new = saved.keys() - both, here.keys() - both
    kinds = (("no longer trained", missing), ("not trained before", new), ("of another shape", shapes))
    difference = "; ".join(f"{kind}: {first_names(names)}" for kind, names in kinds if names)
    raise ModelError(f"{path}: its run trained other tensors than this one; {difference}; {_advice(saved, here)}")


def _advice(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Return the remedy for the settings that were probably changed since the checkpoint was saved."""
    before, now = (any(".lora_" in name for name in names) for names in (saved, current))
    if before != now:
        return "restore model.lora" if before else "remove model.lora: the run started without it"
    if before:
        return "restore model.lora.targets and model.lora.rank"
    if saved.keys() < current.keys():
        return "set model.freeze_vision to true again"
    if saved.keys() > current.keys():
        return "set model.freeze_vision to false again"
    return "restore the fields of model"


def _optimizer_tensors(optimizer: torch.optim.Optimizer, policy: Policy) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the optimizer's tensors in full, one at a time. Every process must iterate to the end."""
    trained = list(policy.trained.items())
    for index, values in optimizer.state_dict()["state"].items():
        name, parameter = trained[index]
        for kind, value in plain_tensors(values, parameter, policy.weights).items():
            yield f"{name}.{kind}", policy.weights.full(value)


def _write_copies(copies: HostCopies, state: str, shapes: str, partial: Path) -> Path:
    """Write a checkpoint from the copies of its tensors, in a thread: see `_write`."""
    try:
        return _write((copies.group(), copies.group()), state, shapes, partial)
    except Exception as error:
        copies.fail(error)
        raise


def _write(
    tensors: tuple[Iterable[tuple[str, torch.Tensor]], Iterable[tuple[str, torch.Tensor]]],
    state: str,
    shapes: str,
    partial: Path,
) -> Path:
    """Write the tensors of the model and the optimizer and the state to `partial`, rename it, and return its folder."""
    final = partial.with_name(partial.name.removeprefix(PARTIAL))
    model, moments = tensors
    try:
        write_tensors(partial, MODEL, model, FORMAT)
        write_tensors(partial, OPTIMIZER, moments, {TRAINED: shapes})
        (partial / STATE_FILE).write_text(state)
        _sync(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _sync_folder(final.parent)
    return final


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
