"""Verifier replay: scores stored completions of a job with other verifiers, in a separate process."""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from calibrl.schemas import Replay, ReplayRequest, Rescored, RescoredStep
from calibrl_core.verifiers.plugin import plugin_versions
from jobs.errors import Conflict, FieldError, Invalid
from jobs.processes import sandbox
from jobs.repository import samples
from jobs.settings import get_settings
from jobs.specs import checks
from jobs.specs.reward_services import function_problems, uses_services

MODULE = "calibrl_core.rescore"
MEMORY_BYTES = 4 * 2**30
LIMIT_SECONDS = 60
MAX_CHARACTERS = 32_000_000  # maximum, of completions and reference answers together
MOST_NAMED_STEPS = 10  # in a message
REWARD_TOLERANCE = 1e-9  # tolerance for equal rewards


@dataclass
class StoredCompletions:
    """The first stored completions of a job in some steps."""

    job_id: UUID
    total: int  # stored completions of these steps
    rows: list[Row[Any]] = field(default_factory=list)
    left_out: str | None = None  # reason why there are fewer rows


def load_completions(session: Session, job_id: UUID, request: ReplayRequest) -> StoredCompletions:
    """Load the completions to score.

    Raises:
        Conflict: no completions are stored.
    """
    first, last = request.first_step, request.last_step
    total = samples.count_completions(session, job_id, first_step=first, last_step=last)
    if not total:
        steps = samples.sampled_steps(session, job_id)
        if not steps:
            raise Conflict(f"Job {job_id} has no stored completions. Only training jobs store samples.")
        some = ", ".join(map(str, steps[:MOST_NAMED_STEPS])) + (" ..." if len(steps) > MOST_NAMED_STEPS else "")
        raise Conflict(f"Job {job_id} has no stored completions in these steps. It has some at {some}.")
    stored, characters = StoredCompletions(job_id, total), 0
    for row in samples.completions(session, job_id, first_step=first, last_step=last, limit=request.limit):
        characters += len(row.text) + len(row.answer)
        if characters > MAX_CHARACTERS:
            stored.left_out = f"the completions have more than {MAX_CHARACTERS} characters"
            return stored
        stored.rows.append(row)
    if len(stored.rows) < total:
        stored.left_out = f"the limit is {request.limit}"
    return stored


def check(request: ReplayRequest) -> None:
    """Check that the rewards of a request can judge here.

    Raises:
        Invalid: a plugin or a package of a function is not installed here, or a reward asks a service.
    """
    problems = checks.plugin_problems(request) + function_problems(request.rewards)
    if uses_services(request.rewards):
        problems.append(FieldError("rewards", "services are asked by jobs only; leave out http and judge here"))
    if problems:
        raise Invalid("The replay was not accepted.", tuple(problems))


def replay(stored: StoredCompletions, request: ReplayRequest) -> Replay:
    """Score completions. Takes at most SECONDS, plus the start and the end of a process.

    Raises:
        Invalid: a verifier cannot be loaded.
    """
    lines, stopped = _score(stored, request)
    pairs = [_rescored(row, line) for row, line in zip(stored.rows, lines, strict=False)]
    flips = [result for result in pairs if result.passed_before != result.passed_after]
    return Replay(
        job_id=stored.job_id,
        completions=stored.total,
        scored=len(pairs),
        stopped=stopped or stored.left_out,
        passed_before=sum(result.passed_before for result in pairs),
        passed_after=sum(result.passed_after for result in pairs),
        now_passed=sum(result.passed_after for result in flips),
        now_failed=sum(result.passed_before for result in flips),
        rewards_changed=sum(_differ(result.reward_before, result.reward_after) for result in pairs),
        failures=sum(result.failure is not None for result in pairs),
        versions=plugin_versions(request.rewards),
        by_step=_by_step(pairs),
        data=[result for result in pairs if result.passed_before != result.passed_after or result.failure],
    )


def _score(stored: StoredCompletions, request: ReplayRequest) -> tuple[list[dict[str, Any]], str | None]:
    """Return one line of `calibrl_core.rescore` per scored completion, and the reason if not all were scored."""
    rewards = [reward.model_dump(mode="json") for reward in request.rewards]
    payload = {
        "rewards": rewards,
        "completions": [(row.text, row.answer) for row in stored.rows],
        "sandbox": get_settings().sandbox.model_dump(mode="json"),
    }
    with tempfile.TemporaryDirectory(prefix="calibrl-replay-") as folder:
        file, report, log = (Path(folder, name) for name in ("completions.json", "report.jsonl", "log.txt"))
        file.write_text(json.dumps(payload))
        report.touch()
        status = sandbox.run(MODULE, str(file), str(report), log=log, memory=MEMORY_BYTES, seconds=LIMIT_SECONDS)
        lines = _whole_lines(report)
    if lines and "fault" in lines[-1]:
        raise Invalid("The replay was not accepted.", (FieldError("rewards", lines[-1]["fault"]),))
    if status is None:
        return lines, f"scoring took more than {LIMIT_SECONDS} s"
    return lines, None if status == 0 else "the scoring process ended early; see the log of the service"


def _whole_lines(report: Path) -> list[dict[str, Any]]:
    *whole, _ = report.read_text().split("\n")  # the part after the last newline is incomplete
    return [json.loads(line) for line in whole]


def _rescored(row: Row[Any], line: dict[str, Any]) -> Rescored:
    # A reward that is not finite is stored as text.
    return Rescored(
        sample_id=row.sample_id,
        step=row.step,
        prompt_id=row.prompt_id,
        completion=row.place - 1,
        reward_before=row.reward if isinstance(row.reward, int | float) else None,
        reward_after=line["reward"],
        passed_before=bool(row.passed),
        passed_after=line["passed"],
        by_verifier=line["by_verifier"],
        failure=line["failure"],
    )


def _by_step(pairs: list[Rescored]) -> list[RescoredStep]:
    steps = sorted({result.step for result in pairs})
    groups = ([result for result in pairs if result.step == step] for step in steps)
    return [
        RescoredStep(
            step=step,
            scored=len(group),
            passed_before=sum(result.passed_before for result in group),
            passed_after=sum(result.passed_after for result in group),
        )
        for step, group in zip(steps, groups, strict=True)
    ]


def _differ(before: float | None, after: float) -> bool:
    return before is None or abs(before - after) > REWARD_TOLERANCE
