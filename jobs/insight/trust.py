"""Trust in verifiers: verdicts of people, error rates of the verifiers, and the accuracy that follows."""

import math
import random
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from calibrl.schemas import CompletionToJudge, NewVerdict, PersonVerdict, Rate, Trust
from calibrl.schemas.verdicts import MAX_DISAGREEMENTS
from jobs import models
from jobs.errors import Conflict, NotFound
from jobs.repository import samples, verdicts

Z = 1.959963985  # two-sided 95 % quantile of the normal distribution


def judge(
    session: Session, job_id: UUID, sample_id: int, completion: int, user: str, verdict: NewVerdict
) -> PersonVerdict:
    """Store the verdict of a user on a completion, and return it.

    Raises:
        NotFound: the job has no such sample or completion.
    """
    found = _completion(samples.get(session, job_id, sample_id), completion)
    values = {**verdict.model_dump(), "passed": bool(found["passed"])}
    verdicts.put(session, job_id, sample_id, completion, user, values)
    rows = verdicts.of_job(session, job_id, sample_id)
    return PersonVerdict.model_validate(next(row for row in rows if (row.completion, row.user) == (completion, user)))


def withdraw(session: Session, job_id: UUID, sample_id: int, completion: int, user: str) -> None:
    """Remove the verdict of a user.

    Raises:
        NotFound: there is none.
    """
    if not verdicts.remove(session, job_id, sample_id, completion, user):
        raise NotFound(f"You have given no verdict on completion {completion} of sample {sample_id}.")


def _completion(sample: models.Sample, completion: int) -> dict[str, Any]:
    completions: list[dict[str, Any]] = sample.group["completions"]
    if completion >= len(completions):
        raise NotFound(f"Sample {sample.id} has {len(completions)} completions; the first has the index 0.")
    return completions[completion]


def next_to_judge(session: Session, job: models.Job) -> CompletionToJudge:
    """Return a random completion without a verdict, from those that passed or failed, of which fewer were judged.

    Raises:
        Conflict: there is none.
    """
    rows = verdicts.of_job(session, job.id)
    judged = {(row.sample_id, row.completion) for row in rows}
    by_verdict = [sum(row.passed is passed for row in rows if row.picked == "random") for passed in (True, False)]
    for passed in (True, False) if by_verdict[0] <= by_verdict[1] else (False, True):
        for sample in verdicts.random_samples(session, job.id, passed=passed):
            places = [
                place
                for place, one in enumerate(sample.group["completions"])
                if bool(one["passed"]) is passed and (sample.id, place) not in judged
            ]
            if places:
                return _to_judge(sample, random.choice(places))
    raise Conflict(f"Job {job.id} has no stored completion without a verdict.")


def _to_judge(sample: models.Sample, place: int) -> CompletionToJudge:
    group = sample.group
    return CompletionToJudge(
        sample_id=sample.id,
        step=sample.step,
        prompt_id=sample.prompt_id,
        completion=place,
        prompt=group.get("prompt", ""),
        answer=group.get("answer") or "",
        text=group["completions"][place]["text"],
    )


def trust(session: Session, job: models.Job) -> Trust:
    """Return the error rates of the verifiers of a job, by the verdicts of people."""
    total, passed = verdicts.stored(session, job.id)
    rows = verdicts.of_job(session, job.id)
    newest: dict[tuple[int, int], Any] = {}
    for row in rows:
        newest.setdefault((row.sample_id, row.completion), row)
    drawn = [row for row in newest.values() if row.picked == "random"]
    wrong = rate([not row.right for row in drawn if row.passed])
    missed = rate([row.right for row in drawn if not row.passed])
    share = passed / total if total else None
    disagreements = [row for row in rows if row.right != row.passed]
    return Trust(
        job_id=job.id,
        completions=total,
        accuracy=share,
        verdicts=len(newest),
        false_passes=wrong,
        false_failures=missed,
        corrected=None if share is None else corrected(share, wrong, missed),
        disagreements=[PersonVerdict.model_validate(row) for row in disagreements[:MAX_DISAGREEMENTS]],
    )


def rate(outcomes: Sequence[bool]) -> Rate | None:
    """Return the share of true outcomes with its Wilson interval (Wilson 1927), or None without an outcome."""
    count = len(outcomes)
    if not count:
        return None
    value, spread = sum(outcomes) / count, Z * Z / count
    middle = (value + spread / 2) / (1 + spread)
    half = Z * math.sqrt(value * (1 - value) / count + spread / (4 * count)) / (1 + spread)
    return Rate(value=value, low=max(middle - half, 0.0), high=min(middle + half, 1.0), count=count)


def corrected(accuracy: float, false_passes: Rate | None, false_failures: Rate | None) -> Rate | None:
    """Return the share of right answers, with an interval that combines those of both rates (MOVER, Zou and Donner
    2008). A rate of no consequence may be missing: that of failures if all passed, and that of passes if none did.
    """
    nothing = Rate(value=0.0, low=0.0, high=0.0, count=0)
    passes = false_passes or (nothing if accuracy == 0 else None)
    failures = false_failures or (nothing if accuracy == 1 else None)
    if passes is None or failures is None:
        return None
    value = accuracy * (1 - passes.value) + (1 - accuracy) * failures.value
    below = math.hypot(accuracy * (passes.high - passes.value), (1 - accuracy) * (failures.value - failures.low))
    above = math.hypot(accuracy * (passes.value - passes.low), (1 - accuracy) * (failures.high - failures.value))
    return Rate(
        value=value, low=max(value - below, 0.0), high=min(value + above, 1.0), count=passes.count + failures.count
    )
