"""What a run tells the world: one append-only event file of JSON lines, which anyone may follow or ship.

Every line is an object with `type` and `ts` (seconds since 1970, UTC), and by type:

| type | fields |
|---|---|
| start | steps_total, step (done before this attempt), versions {name: version}, parameters (count) |
| metrics | step (1 = after the first update), values {family/name: number, or "NaN", "Infinity", "-Infinity"} |
| histogram | step, name, edges (n + 1 numbers), counts (n integers; outliers fall in the end bins) |
| sample | step, group (see `SampleGroup`) |
| accuracies | model_index, split, prompts (digests of what each is), values (share of its samples that passed) |
| checkpoint | step, path, best (bool), metrics, removed (paths that are gone now) |
| progress | step, steps_total: for runs that report no metrics at every step |
| log | level (info, warning), message |
| health | step, rule, state (fired, cleared), message, suggestion (empty once cleared): see `calibrl_core.health` |
| error | reason (crashed, out_of_memory, non_finite, bad_spec, disk_full, quota), message: the run ends, status 1 |
| finish | status (succeeded, stopped), step, result (object); reason (health) and message, where a rule stopped it |

Images stand beside the file, `images/<sha256>.png`, written before the line that names them. A reader must ignore a
last line that has no newline yet: it is still being written. Of several processes that share a run each may tell an
`error`: the first one is the cause, and others follow from it.

A run that its disk can't hold ends with exit status `DISK_FULL_STATUS`, which also tells it where the `error` found no
room. All that was written before is whole: each line, each image, each checkpoint.
"""

import errno
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypedDict

EVENT_FILE = "events.jsonl"
IMAGE_FOLDER = "images"
DISK_FULL_STATUS = 28  # ENOSPC


class SampleCompletion(TypedDict):
    """One rollout of a sampled group. The lists have one entry a token; of a very long one, the middle is missing:
    `left_out` tokens, behind the first half of what is there."""

    text: str
    tokens: list[str]
    logprobs: list[float]
    entropies: list[float]
    gaps: list[float | None]  # log pi_old(rollout token) - log pi_old(expert token there), None past the expert's end
    ratios: list[float | None]  # pi(token) over pi_old(token) when its mini-batch came; None: left out of the update
    left_out: int
    rewards: dict[str, float]  # by verifier, before weights
    reward: float
    advantage: float
    passed: bool
    truncated: bool


class SampleGroup(TypedDict):
    """A prompt with all that was made of it at one step."""

    prompt_id: str
    prompt: str
    answer: str
    images: list[str]  # sha256 of the PNG files
    expert: str | None
    completions: list[SampleCompletion]


class Report(Protocol):
    """Where a run sends what it has to tell. `EventFile` is the real one."""

    run_dir: Path  # what a run leaves behind (checkpoints, answers) stands here

    def emit(self, type: str, **fields: Any) -> None:
        """Append one event; see the module's table."""

    def save_image(self, png: bytes) -> str:
        """Keep an image once, by content; return its sha256."""


def jsonable(value: Any) -> Any:
    """The value with non-finite floats as the strings NaN, Infinity and -Infinity, which JSON can't say."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value


def health_sentence(alert: Mapping[str, Any]) -> str:
    """The fields of a `health` event as text for people."""
    return "{rule} {state} at step {step}: {message}. {suggestion}".format_map(alert).rstrip()


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, says that a disk is full, or what this user may have of it."""
    full = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError) and error.errno in full:
        return True
    if any(f"(os error {number})" in str(error) for number in full):  # libraries in Rust, such as safetensors
        return True
    return error.__cause__ is not None and is_disk_full(error.__cause__)


class EventFile:
    """Appends events to `run_dir/events.jsonl`, one `write` a line, so that a reader never sees two halves mixed."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._images = run_dir / IMAGE_FOLDER
        self._images.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(run_dir / EVENT_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._end_half_line(run_dir / EVENT_FILE)

    def _end_half_line(self, path: Path) -> None:
        # A run killed while it wrote leaves half a line; ended here, it is one line that readers skip as not JSON.
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                os.write(self._fd, b"\n")

    def emit(self, type: str, **fields: Any) -> None:
        line = json.dumps({"type": type, "ts": time.time(), **jsonable(fields)}, allow_nan=False, separators=(",", ":"))
        self._append(line.encode() + b"\n")

    def _append(self, line: bytes) -> None:
        size, written = os.fstat(self._fd).st_size, 0
        try:
            while written < len(line):  # a disk that is nearly full takes a part of it, and only then refuses
                written += os.write(self._fd, line[written:])
        finally:
            if 0 < written < len(line) and os.fstat(self._fd).st_size == size + written:  # no other process wrote
                os.ftruncate(self._fd, size)

    def save_image(self, png: bytes) -> str:
        digest = hashlib.sha256(png).hexdigest()
        path = self._images / f"{digest}.png"
        if not path.exists():
            partial = path.with_suffix(".partial")
            try:
                partial.write_bytes(png)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        return digest

    def close(self) -> None:
        os.close(self._fd)


class SilentReport:
    """For the processes of a run beside the first. Only that one of them failed reaches the event file."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def emit(self, type: str, **fields: Any) -> None:
        if type == "error":
            file = EventFile(self.run_dir)
            file.emit(type, **fields)
            file.close()

    def save_image(self, png: bytes) -> str:
        return ""

    def close(self) -> None:
        pass
