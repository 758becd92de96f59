"""Comparison of the metrics of two jobs step by step, bit for bit: does a repeated job do the same?"""

import heapq
import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import UUID

from calibrl.schemas import Deviation, DifferentField, SeriesComparison
from jobs import models
from jobs.db import session_scope
from jobs.files import artifacts
from jobs.repository import checkpoints, jobs, metrics

# Families of times, speeds and memory, which differ from run to run, of verdicts' times and caches, and of the
# schedule, which follows from the spec and is not in older runs.
NOT_COMPARED = ("perf/", "verdict/", "schedule/")
NAMING = ("name", "labels", "notes", "project", "priority", "depends_on")  # fields without an effect on the series
STEPS_AT_ONCE = 500
MAX_STEPS = 50_000  # that are compared
MAX_WEIGHTS = 4 * 2**30  # bytes of checkpoints whose checksums are compared
WEIGHTS = ".safetensors"
BLOCK = 2**20  # bytes

Values = Mapping[str, Any]


def compare_series(first: UUID, second: UUID) -> SeriesComparison:
    """Compare the series of two jobs. Takes seconds for long runs: hold no transaction.

    Raises:
        NotFound: no such job.
    """
    with session_scope() as session:
        pair = [jobs.get(session, id) for id in (first, second)]
        records = [[attempt.record for attempt in jobs.attempts(session, id)] for id in (first, second)]
        last = min(min(job.step for job in pair), MAX_STEPS)
        step, folders = _common_checkpoint([checkpoints.of_job(session, id) for id in (first, second)])
    found: dict[str, Deviation] = {}
    names: set[str] = set()
    steps = 0
    for number, before, after in _steps(first, second, last):
        steps += number > 0
        names |= before.keys() | after.keys()
        for name in sorted(before.keys() | after.keys()):
            if name not in found and before.get(name) != after.get(name):
                found[name] = _deviation(name, number, before.get(name), after.get(name))
    same_weights = _same_weights(folders)
    return SeriesComparison(
        first=first,
        second=second,
        steps=steps,
        metrics=len(names),
        equal=bool(names) and not found and same_weights is not False,
        complete=all(job.status.final for job in pair) and pair[0].step == pair[1].step <= MAX_STEPS,
        deviations=sorted(found.values(), key=lambda one: (one.step, -(one.relative or float("inf")), one.metric)),
        checkpoint_step=step,
        checkpoint_equal=same_weights,
        settings=_differences(*({k: v for k, v in job.spec.items() if k not in NAMING} for job in pair)),
        surroundings=_differences(*(next((one for one in own if one), {}) for own in records)),
    )


def _steps(first: UUID, second: UUID, last: int) -> Iterator[tuple[int, Values, Values]]:
    """Yield the steps up to the last one with the compared values of both jobs; {}: the job has none at this step."""
    rows = heapq.merge(_rows(first, last, 0), _rows(second, last, 1), key=lambda row: row[0])
    for step, group in groupby(rows, key=lambda row: row[0]):
        values: dict[int, Values] = {place: found for _, place, found in group}
        yield step, values.get(0, {}), values.get(1, {})


def _rows(job_id: UUID, last: int, place: int) -> Iterator[tuple[int, int, Values]]:
    """Yield step, place and compared values of a job up to a step."""
    after = -1
    while True:
        with session_scope() as session:
            page = metrics.page(session, job_id, names=None, after_step=after, limit=STEPS_AT_ONCE)
        for step, _, values in page:
            if step > last:
                return
            yield step, place, {name: value for name, value in values.items() if not name.startswith(NOT_COMPARED)}
        if len(page) < STEPS_AT_ONCE:
            return
        after = page[-1][0]


def _deviation(metric: str, step: int, first: Any, second: Any) -> Deviation:
    relative = None
    if isinstance(first, int | float) and isinstance(second, int | float):
        relative = abs(first - second) / max(abs(first), abs(second))
    return Deviation(metric=metric, step=step, first=first, second=second, relative=relative)


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[DifferentField]:
    before, after = dict(_leaves(first)), dict(_leaves(second))
    fields = sorted(before.keys() | after.keys())
    pairs = ((field, before.get(field, "none"), after.get(field, "none")) for field in fields)
    return [DifferentField(field=field, first=one, second=other) for field, one, other in pairs if one != other]


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{at}.{name}" if at else name)
    else:
        yield at, value if isinstance(value, str) else json.dumps(value)


def _common_checkpoint(rows: list[list[models.Checkpoint]]) -> tuple[int | None, list[Path]]:
    """Return the last step with a checkpoint of both jobs, and their folders on this machine."""
    by_step = [{row.step: row for row in found} for found in rows]
    step = max(by_step[0].keys() & by_step[1].keys(), default=None)
    if step is None:
        return None, []
    folders = [artifacts.find_checkpoint(found[step]) for found in by_step]
    return step, [folder for folder in folders if folder is not None]


def _same_weights(folders: list[Path]) -> bool | None:
    """Return if the weights in two folders have equal checksums; None if they cannot be compared."""
    files = [[file for file in artifacts.listing(folder) if file.name.endswith(WEIGHTS)] for folder in folders]
    total = sum(file.bytes for found in files for file in found)
    if len(files) < 2 or not all(files) or total > MAX_WEIGHTS:
        return None
    sums = []
    for folder, found in zip(folders, files, strict=True):
        own = {}
        for file in found:
            digest = sha256()
            with artifacts.open_file(folder, file) as opened:
                while block := opened.read(BLOCK):
                    digest.update(block)
            own[file.name] = digest.hexdigest()
        sums.append(own)
    return sums[0] == sums[1]
