"""A run as a process of its own: arguments, signals, progress bar, exit status. All errors are caught here only."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers.utils import logging as transformers_logging

from calibrl_core.data.schema import DataError
from calibrl_core.distributed.process_group import join_process_group
from calibrl_core.distributed.ranks import LaunchError, Ranks
from calibrl_core.host.stop_signal import StopSignal
from calibrl_core.models.errors import ModelError
from calibrl_core.report import (
    CACHE_BYTES,
    DISK_FULL_STATUS,
    EventFile,
    Report,
    SilentReport,
    health_sentence,
    is_disk_full,
)
from calibrl_core.run.checkpoint import QuotaError
from calibrl_core.run.folder_lock import FolderInUseError, FolderLock
from calibrl_core.run.identity import ResumeError
from calibrl_core.run.path_bounds import PathBounds
from calibrl_core.step.optimizer import NonFiniteError
from calibrl_core.verifiers.plugin import PluginError
from calibrl_core.verifiers.scorer import NoVerdictError
from calibrl_core.verifiers.services import RewardServiceError, Services

Config = TypeVar("Config", bound=BaseModel)
BAD_SPEC = (DataError, ModelError, PluginError, RewardServiceError, LaunchError, ResumeError, NoVerdictError)
SHOWN = ("reward/mean", "reward/answer_accuracy", "exploration/entropy", "loss/total", "validation/accuracy")


class ProgressReport(EventFile):
    """The event file, with a progress bar on a terminal and plain lines elsewhere."""

    def __init__(self, run_dir: Path, cache_dir: Path | None, cache_bytes: int) -> None:
        super().__init__(run_dir, cache_dir, cache_bytes)
        self._console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._progress.add_task("", total=None)
        self._progress.start()

    def emit(self, type: str, **fields: Any) -> None:
        super().emit(type, **fields)
        if type == "start":
            if 0 < fields["steps_total"] <= fields["step"]:
                self._say(f"step {fields['step']} of {fields['steps_total']} is there already: nothing is left to do")
            self._progress.update(self._task, total=fields["steps_total"], completed=fields["step"])
        elif type in ("metrics", "progress"):
            self._show(fields["step"], fields.get("values", {}))
        elif type in ("error", "log"):
            self._say(fields["message"])
        elif type == "health":
            self._say(health_sentence(fields))

    def _show(self, step: int, values: dict[str, float]) -> None:
        text = "  ".join(f"{name} {values[name]:.3f}" for name in SHOWN if name in values)
        if self._console.is_terminal:
            self._progress.update(self._task, completed=step, description=text)
        elif text:
            self._say(f"step {step}  {text}")

    def _say(self, line: str) -> None:
        if not self._console.is_terminal:
            line = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z  {line}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._progress.stop()
        super().close()


def run_process(
    config_class: type[Config], run: Callable[[Config, Report, Callable[[], bool], Ranks, Services], dict[str, Any]]
) -> None:
    """Parse arguments, run, report `finish` or `error`, and exit.

    Exit status: 0 success, 1 error, 2 unusable arguments, 28 disk full. Of several processes the first one reports
    events; each reports its own error. A run folder that another run writes to stays as it is.
    """
    parser = argparse.ArgumentParser(description=(sys.modules[run.__module__].__doc__ or "").split("\n")[0])
    parser.add_argument("config", type=Path, help=f"a JSON file of {config_class.__name__}")
    parser.add_argument("--run-dir", type=Path, required=True, help="folder for events, images and checkpoints")
    parser.add_argument("--root", type=Path, action="append", default=[], help="read models and data only from here")
    parser.add_argument(
        "--closed", type=Path, action="append", default=[], help="service's folder, not to be read from"
    )
    parser.add_argument("--cache", type=Path, help="folder of results that other runs on this machine use again")
    parser.add_argument("--services", type=Path, help="a JSON file of Services: what http rewards and judges can use")
    parser.add_argument(
        "--cache-bytes", type=int, default=CACHE_BYTES, help="limit of the converted data that it keeps for other runs"
    )
    arguments = parser.parse_args()
    folders = (arguments.run_dir, arguments.cache, arguments.cache_bytes)
    report: ProgressReport | SilentReport = SilentReport(*folders)
    lock = FolderLock(arguments.run_dir)
    stopping = StopSignal()
    stopping.listen()
    transformers_logging.disable_progress_bar()  # one progress bar is enough, and a log file needs none
    try:
        arguments.run_dir.mkdir(parents=True, exist_ok=True)
        with join_process_group() as ranks:
            lock.hold(ranks)
            if ranks.first:
                report = ProgressReport(*folders)
            config = config_class.model_validate(_read(arguments.config))
            _check_paths(config, PathBounds(tuple(arguments.root), tuple(arguments.closed)))
            outcome = run(config, report, stopping, ranks, Services.read(arguments.services))
        report.emit("finish", **outcome)
        status = 0
    except FolderInUseError as error:
        print(error, file=sys.stderr)  # noqa: T201
        status = 1
    except Exception as error:
        status = _report_error(report, *_explain(error))
    if status == DISK_FULL_STATUS:
        _drop_output()
    report.close()
    lock.release()
    sys.exit(status)


def _check_paths(config: BaseModel, bounds: PathBounds) -> None:
    """Check that all paths of the config are within the bounds. A run without bounds reads any file.

    Raises:
        DataError: a path is outside.
    """
    if (bounds.roots or bounds.closed) and (problems := bounds.check(config)):
        raise DataError("; ".join(problems))


def _report_error(report: Report, reason: str, message: str) -> int:
    """Report the error that is being handled; return the exit status."""
    try:
        if reason == "crashed":
            traceback.print_exc()
        report.emit("error", reason=reason, message=message)
    except OSError as error:
        if not is_disk_full(error):
            raise
        with suppress(OSError):
            print(message, file=sys.stderr)  # noqa: T201
        return DISK_FULL_STATUS
    return DISK_FULL_STATUS if reason == "disk_full" else 1


def _drop_output() -> None:
    # The log can be on the same full disk: a failing flush of its buffer would change the exit status.
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error


def _explain(error: Exception) -> tuple[str, str]:
    """Return the reason, one of those in `calibrl_core.report`, and a sentence."""
    if is_disk_full(error):
        return "disk_full", f"the disk is full: {error}; free some space, or lower checkpoints.keep_last"
    if isinstance(error, QuotaError):
        return "quota", str(error)
    if isinstance(error, ValidationError):
        fields = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        return "bad_spec", "; ".join(fields)
    if isinstance(error, BAD_SPEC):
        return "bad_spec", str(error)
    if isinstance(error, NonFiniteError):
        return "non_finite", str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        settings = "micro_batch_tokens, rollout.batch_tokens or rollout.max_completion_tokens"
        return "out_of_memory", f"out of memory: {error}; lower {settings}"
    return "crashed", f"{type(error).__name__}: {error}"
