"""First rows of datasets of the hub, as files on this machine, for plans. A process with limits reads them
(`jobs.processes.hub_sampler`), from the hub or from a cached copy.

A process of the API remembers what it has read, and reads a dataset again after FRESH_SECONDS.
"""

import shutil
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import httpx
from pydantic import BaseModel, Field, ValidationError

from calibrl_core.data.schema import FileData, HubData
from jobs.files.allowed_sources import hub_problem
from jobs.processes import sandbox
from jobs.processes.hub_sampler import OUTCOME, ROWS
from jobs.settings import get_settings

SAMPLER = "jobs.processes.hub_sampler"
READ_SECONDS = 20  # for a dataset
ALL_SECONDS = 40.0  # for the datasets of a plan
START_SECONDS = 5.0  # of READ_SECONDS: imports before the first row, and writing after the last
REACH_SECONDS = 5.0  # for an answer of the hub, whatever it is
MEMORY_BYTES = 4 * 2**30
FRESH_SECONDS = 600.0
KEPT_SECONDS = 86_400.0
MOST_KNOWN = 64
LONGEST_OUTCOME = 100_000  # bytes
_at_once = threading.BoundedSemaphore(2)  # processes
_known: dict[str, tuple[float, "_Outcome"]] = {}  # by dataset, the oldest first


@dataclass(frozen=True)
class HubSample:
    """The first rows of a dataset of the hub as a file of this machine, or the reason why there are none. `whole`: the
    dataset has no other rows that are used.
    """

    file: FileData | None
    whole: bool
    fault: str | None


class _Outcome(BaseModel):
    rows: int = Field(0, ge=0)
    complete: bool = False
    fault: str | None = None


def read_samples(sources: Iterable[HubData]) -> None:
    """Read the first rows of datasets for `sample`, as far as the time allows. Hold no transaction meanwhile."""
    until = time.monotonic() + ALL_SECONDS
    for source in sources:
        key = _key(source)
        left = min(READ_SECONDS, until - time.monotonic())
        if _fresh(key) or left <= START_SECONDS or not _at_once.acquire(timeout=left):
            continue
        try:
            if not _fresh(key):  # another plan can have read it meanwhile
                _remember(key, _read(source, key))
        finally:
            _at_once.release()


def sample(source: HubData) -> HubSample | None:
    """Return what `read_samples` has read of a dataset in this process; None: nothing."""
    if (known := _known.get(key := _key(source))) is None:
        return None
    outcome = known[1]
    if outcome.fault is not None:
        return HubSample(None, False, outcome.fault)
    fields = source.model_dump(include={"columns", "format", "rows"})
    file = FileData(path=str(_path(key)), title=source.label, image_files=False, **fields)
    return HubSample(file, outcome.complete or (source.rows or outcome.rows + 1) <= outcome.rows, None)


def _read(source: HubData, key: str) -> _Outcome:
    if problem := hub_problem(source.hub):
        return _Outcome(fault=problem)
    variables = {"HF_ENDPOINT": get_settings().hub_url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    variables["USE_TORCH"] = "0"  # `datasets` would load it
    if not _reachable():
        variables["HF_HUB_OFFLINE"] = "1"  # the library would try for half a minute before it takes a cached copy
    try:
        with TemporaryDirectory() as name:
            return _sampled(source, key, Path(name), variables)
    except OSError as error:
        return _Outcome(fault=f"its first rows cannot be stored: {error}")


def _sampled(source: HubData, key: str, folder: Path, variables: dict[str, str]) -> _Outcome:
    status = sandbox.run(
        SAMPLER,
        source.model_dump_json(),
        str(READ_SECONDS - START_SECONDS),
        log=folder / "log",
        memory=MEMORY_BYTES,
        seconds=READ_SECONDS,
        variables=variables,
        cwd=folder,  # `datasets` prefers a local folder with the name of the dataset
    )
    if status is None:
        return _Outcome(fault=f"{source.label} was not read within {READ_SECONDS} s")
    try:
        with (folder / OUTCOME).open("rb") as file:
            outcome = _Outcome.model_validate_json(file.read(LONGEST_OUTCOME))
        if outcome.fault is None:
            _keep(folder / ROWS, _path(key))
    except (FileNotFoundError, ValidationError):
        return _Outcome(fault=f"{source.label} was not read: the process ended early, and the service's log says why")
    return outcome


def _keep(rows: Path, path: Path) -> None:
    """Move the rows to where they are kept, and remove those that no process reads any more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.iterdir():
        with suppress(FileNotFoundError):  # removed by another process
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                old.unlink()
    partial = path.with_name(f"{uuid4().hex}.partial")
    try:
        shutil.copyfile(rows, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _reachable() -> bool:
    try:
        httpx.head(get_settings().hub_url, timeout=REACH_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return True


def _remember(key: str, outcome: _Outcome) -> None:
    _known.pop(key, None)
    _known[key] = (time.monotonic(), outcome)
    while len(_known) > MOST_KNOWN:
        _known.pop(next(iter(_known)), None)


def _fresh(key: str) -> bool:
    known = _known.get(key)
    return known is not None and time.monotonic() - known[0] < FRESH_SECONDS


def _key(source: HubData) -> str:
    """Return the digest of what is read: not of how a job uses it."""
    place = source.model_dump_json(include={"hub", "config", "split", "revision"})
    return sha256(place.encode()).hexdigest()


def _path(key: str) -> Path:
    return get_settings().data_dir / "cache" / "hub-rows" / f"{key}.parquet"
