"""Checkpoints of a run beside its steps: begun after a step, written while the next ones run, reported when whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from calibrl_core.models.policy import Policy
from calibrl_core.report import Report
from calibrl_core.run.checkpoint import Checkpoints, TrainerState, read_state


class Saving:
    """Begins checkpoints, reports those that are whole, and removes those that they replace. Processes that write none
    report none.
    """

    def __init__(self, checkpoints: Checkpoints, report: Report, *, keeps_best: bool) -> None:
        """keeps_best: keep the best checkpoint, beside the newest ones."""
        self._checkpoints, self._report, self._keeps_best = checkpoints, report, keeps_best

    @contextmanager
    def until_whole(self) -> Iterator[None]:
        """Wait at the end for the checkpoint that is being written, and report it; also if the run fails meanwhile."""
        try:
            yield
        except Exception:
            with suppress(Exception):  # the first error is the one that the user needs
                self.report_written()
            raise
        self.report_written()

    def begin(self, policy: Policy, optimizer: torch.optim.Optimizer, state: TrainerState) -> None:
        """Begin the checkpoint of `state.step`, after the one before is whole. Errors as `report_written`."""
        self.report_written()
        self._checkpoints.begin(policy, optimizer, state)

    def report_written(self, *, waits: bool = True) -> None:
        """Report the checkpoint that was begun, and remove those that it replaces. waits: False: only if it is whole.

        Raises:
            OSError: it could not be written.
            QuotaError: the checkpoints that must be kept need too much disk.
        """
        path = self._checkpoints.written(waits=waits)
        if path is None:
            return
        state = read_state(path)  # the run's has gone on
        surplus = self._checkpoints.surplus(state.best_step if self._keeps_best else None)
        # Report before removing: `announce` repairs the state after a kill in between.
        self._emit(path, state, state.best_step, surplus)
        self._checkpoints.remove(surplus)
        self._checkpoints.check_quota()

    def announce(self, best_step: int | None) -> None:
        """Report all existing checkpoints: a kill can have prevented their own events."""
        for path in self._checkpoints.all():
            self._emit(path, read_state(path), best_step, [])

    def _emit(self, path: Path, state: TrainerState, best_step: int | None, removed: Sequence[Path]) -> None:
        self._report.emit(
            "checkpoint",
            step=state.step,
            path=str(path),
            best=best_step == state.step,
            metrics=state.metrics,
            removed=[str(one) for one in removed],
        )

    def result(self, state: TrainerState) -> dict[str, Any]:
        """Return the summary of a run that has ended in `state`."""
        saved = self._checkpoints.all()
        best = [path for path in saved if read_state(path).step == state.best_step]
        return {
            "last_checkpoint": str(saved[-1]) if saved else None,
            "best_checkpoint": str(best[0]) if best else None,
            "best_step": state.best_step,
            "best_validation_accuracy": state.best_value,
        }
