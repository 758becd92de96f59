"""Jobs of every kind and status, written in seconds: no trainer process, no torch.

For tests of the dashboard and for `make dev`. The fake trainer makes the runs; they are shipped as a worker ships them.
"""

import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from uuid import UUID

from calibrl.schemas import GpuReading, JobChanges, JobStatus, Reason, job_spec_adapter
from calibrl_core.config import EvaluateConfig, TrainConfig
from calibrl_core.report import EventFile
from jobs import lifecycle
from jobs.db import session_scope
from jobs.lifecycle import Claim, Outcome
from jobs.repository import workers
from jobs.settings import get_settings
from tests.support.fake_trainer.evaluate import evaluate_models
from tests.support.fake_trainer.train import Run
from worker.shipper import LOG_FILE, Shipper

MACHINE = "seed"
USER = "ada"
STEPS = 120
# The fake trainer waits so many milliseconds per step: a worker that takes the running job goes on at two per second.
MILLISECONDS = 500

DATA = {"builtin": "digits", "split": "train"}
VALIDATION = {"data": {"builtin": "digits", "split": "validation", "rows": 50}, "every_steps": 20}
REWARDS = [{"type": "math", "weight": 1.0}, {"type": "format", "weight": 0.1}]
SUCCEEDED = Outcome(JobStatus.SUCCEEDED)
CRASH = "Trainer exited with code 1\nLast log lines:\nRuntimeError: loss is not finite"


def seed() -> dict[str, UUID]:
    """Fill the database that the settings name; return the jobs' ids by name.

    warmup, calibrl, grpo and evaluation have succeeded; failed, paused and cancelled have ended so; running is held by
    the only slot of the machine `seed`; queued waits for that slot; waiting waits for running.
    """
    _machine()
    warmup = _train("warmup", model={"builtin": "tiny-vlm"}, algorithm={"type": "sft"})
    start = {"from_job": str(warmup), "checkpoint": "best"}
    ids = {"warmup": warmup}
    for name in ("calibrl", "grpo"):
        ids[name] = _train(name, model=start, algorithm={"type": name}, rewards=REWARDS)
    ids["evaluation"] = _evaluate([ids["warmup"], ids["calibrl"], ids["grpo"]])
    failed = Outcome(JobStatus.FAILED, Reason.CRASHED, CRASH)
    ids["failed"] = _train("failed", model=start, until=STEPS // 3, outcome=failed)
    paused = Outcome(JobStatus.PAUSED, Reason.HEALTH, "all_truncated fired; a checkpoint was kept")
    ids["paused"] = _train("paused", model=start, until=STEPS // 2, outcome=paused)
    ids["running"] = _train("running", model=start, steps=20 * STEPS, until=STEPS, outcome=None)
    ids["cancelled"] = _submit(_training("cancelled", model=start))
    ids["queued"] = _submit(_training("queued", model=start, priority="high"))
    ids["waiting"] = _submit(_training("waiting", model=start, depends_on=[str(ids["running"])]))
    with session_scope() as session:
        lifecycle.cancel(session, ids["cancelled"], actor=USER)
        notes = "The run of the paper: [ticket 12](https://example.com/12)."
        lifecycle.edit(session, ids["calibrl"], JobChanges(labels={"team": "vision"}, notes=notes), actor=USER)
    return ids


def _machine() -> None:
    cards = [
        GpuReading(
            index=index,
            name="NVIDIA H100",
            uuid=f"GPU-{index}",
            memory_total=80 * 2**30,
            memory_used=0,
            utilisation=0.0,
        )
        for index in range(2)
    ]
    with session_scope() as session:
        workers.register(session, MACHINE, host=MACHINE, labels={"gpu": "h100"}, versions={}, cpu_slots=1)
        workers.record_heartbeat(session, MACHINE, cards, [])
        workers.mark_clean(session, MACHINE, {0, 1})


def _training(name: str, **fields: Any) -> dict[str, Any]:
    base = {
        "kind": "train",
        "name": name,
        "labels": {"seed": name},
        "data": DATA,
        "validation": VALIDATION,
        "algorithm": {"type": "calibrl"},
        "rollout": {"group_size": 8},
        "prompts_per_step": MILLISECONDS,
        "steps": STEPS,
        "samples": {"every_steps": 40, "groups": 2},
        "checkpoints": {"every_steps": 40},
    }
    return base | fields


def _submit(spec: dict[str, Any]) -> UUID:
    with session_scope() as session:
        return lifecycle.submit(session, job_spec_adapter.validate_python(spec), actor=USER).id


def _train(name: str, until: int | None = None, outcome: Outcome | None = SUCCEEDED, **fields: Any) -> UUID:
    """Train up to step `until` (default: all), and end with `outcome`; None: the job goes on running."""

    def run(claim: Claim, folder: Path) -> dict[str, Any]:
        training = Run(TrainConfig.model_validate(claim.config), folder)
        training.announce()
        for _ in range(until or training.steps):
            training.one_step()
        training.save()
        return {"best_step": training.best[1], "accuracy": training.best[0]}

    return _run(_training(name, **fields), run, outcome)


def _evaluate(jobs: list[UUID]) -> UUID:
    spec = {
        "kind": "evaluate",
        "name": "evaluation",
        "labels": {"seed": "evaluation"},
        "models": [{"from_job": str(id), "checkpoint": "best"} for id in jobs],
        "data": [{"builtin": "digits", "split": split} for split in ("test", "test-noise")],
    }

    def run(claim: Claim, folder: Path) -> dict[str, Any]:
        config = EvaluateConfig.model_validate(claim.config)
        return evaluate_models(config, EventFile(folder), threading.Event(), seconds=0) or {}

    return _run(spec, run, SUCCEEDED)


def _run(spec: dict[str, Any], run: Callable[[Claim, Path], dict[str, Any]], outcome: Outcome | None) -> UUID:
    job_id = _submit(spec)
    with session_scope() as session:
        claim = lifecycle.claim(session, worker=MACHINE)
        assert claim is not None and claim.job_id == job_id
        lifecycle.start(session, claim)
    folder = get_settings().run_dir(claim.job_id, claim.attempt)
    folder.mkdir(parents=True)
    with (folder / LOG_FILE).open("w") as log, redirect_stdout(log):
        result = run(claim, folder)
    shipper = Shipper(claim, folder, MACHINE)
    while shipper.ship():
        pass
    if outcome is not None:
        succeeded = outcome.status is JobStatus.SUCCEEDED
        with session_scope() as session:
            ended = Outcome(outcome.status, outcome.reason, outcome.message, result if succeeded else None)
            lifecycle.finish(session, claim, ended)
    return job_id
