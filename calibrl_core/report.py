"""Output of a run: one append-only event file of JSON lines, which any reader can follow.

Each line is an object with `type`, `ts` (seconds since 1970, UTC) and the fields of its type:

| type | fields |
|---|---|
| start | steps_total, step (done before this attempt), versions; of trainings parameters, record (`run.surroundings`) |
| checked | model_index, difference, limit (nats), measured_at (seconds since 1970): see `run.model_check` |
| metrics | step (0 = before the first update), values {family/name: number, or "NaN", "Infinity", "-Infinity"} |
| histogram | step, name, edges (n + 1 numbers), counts (n integers; outliers are counted in the end bins) |
| sample | step, group (see `SampleGroup`) |
| visits | step, and lists with an item per group of the step: see `run.visits` |
| accuracies | model_index, split, prompts (their digests), values (per prompt: share of its samples that passed) |
| checkpoint | step, path, best (bool), metrics, removed (paths that are deleted now) |
| progress | step, steps_total: for runs that report no metrics at every step |
| log | level (info, warning), message |
| health | step, rule, state (fired, cleared), message, suggestion (empty if cleared): see `calibrl_core.health` |
| error | reason (crashed, out_of_memory, non_finite, bad_spec, disk_full, quota), message: the run ends, status 1 |
| finish | status (succeeded, stopped), step, result (object); reason (health) and message if a rule stopped the run |

Images are files next to the event file, `images/<sha256>.png`, written before the line that names them. A reader must
ignore a last line without a newline: it is still being written. If several processes share a run, each can report an
`error`. The first one is the cause; the others follow from it.

A run whose data does not fit on the disk ends with exit status `DISK_FULL_STATUS`, also if there was no space left for
the `error` event. Everything written before is complete: each line, each image, each checkpoint.
"""

import errno
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypedDict

EVENT_FILE = "events.jsonl"
IMAGE_FOLDER = "images"
DISK_FULL_STATUS = 28  # ENOSPC
CACHE_BYTES = 500_000_000_000  # default of `Report.cache_bytes`


class SampleCompletion(TypedDict):
    """One rollout of a sampled group. The lists have one entry per token. The middle of a very long rollout is missing:
    `left_out` tokens, after the first half of the entries.
    """

    text: str
    tokens: list[str]
    logprobs: list[float]
    entropies: list[float]
    gaps: list[float | None]  # log pi_old(rollout token) - log pi_old(expert token there), None past the expert's end
    # Log-probability with the prompt's images minus that with changed ones: `diagnostics.base.ImageGains`. None: not
    # measured for this completion; all three are missing if the step measures none.
    image_blank: NotRequired[list[float | None]]
    image_shuffle: NotRequired[list[float | None]]
    image_swap: NotRequired[list[float | None]]
    ratios: list[float | None]  # pi(token) over pi_old(token) when its mini-batch came; None: left out of the update
    left_out: int
    rewards: dict[str, float]  # by verifier, before weights
    reward: float
    advantage: float
    passed: bool
    truncated: bool


class SampleGroup(TypedDict):
    """A prompt with all rollouts that one step sampled for it."""

    prompt_id: str
    prompt: str
    answer: str
    images: list[str]  # sha256 of the PNG files
    expert: str | None
    expert_tokens: NotRequired[list[str]]  # its tokens, with which the gaps are computed; missing without an expert
    completions: list[SampleCompletion]


class Report(Protocol):
    """Receiver of a run's events. `EventFile` is the implementation that writes to disk."""

    run_dir: Path  # folder of the run's other output: checkpoints, answers
    cache_dir: Path | None  # folder of results that other runs on the machine use again; None: nothing is kept
    cache_bytes: int  # of converted data that the folder keeps although no run uses them

    def emit(self, type: str, **fields: Any) -> None:
        """Append one event. The module's docstring has the table of events."""

    def save_image(self, png: bytes) -> str:
        """Store an image once, by content; return its sha256."""


def jsonable(value: Any) -> Any:
    """Return the value with non-finite floats replaced by the strings NaN, Infinity and -Infinity, which JSON lacks."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value


def health_sentence(alert: Mapping[str, Any]) -> str:
    """Return the fields of a `health` event as text for people."""
    return "{rule} {state} at step {step}: {message}. {suggestion}".format_map(alert).rstrip()


def is_disk_full(error: BaseException) -> bool:
    """Return if an error, or the error that caused it, says that a disk is full or that the user's quota is used up."""
    full = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError) and error.errno in full:
        return True
    if any(f"(os error {number})" in str(error) for number in full):  # libraries in Rust, such as safetensors
        return True
    return error.__cause__ is not None and is_disk_full(error.__cause__)


class EventFile:
    """Appends events to `run_dir/events.jsonl`, one `write` per line, so that lines of two processes never mix."""

    def __init__(self, run_dir: Path, cache_dir: Path | None = None, cache_bytes: int = CACHE_BYTES) -> None:
        self.run_dir, self.cache_dir, self.cache_bytes = run_dir, cache_dir, cache_bytes
        self._images = run_dir / IMAGE_FOLDER
        self._images.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(run_dir / EVENT_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._end_half_line(run_dir / EVENT_FILE)

    def _end_half_line(self, path: Path) -> None:
        # A run that was killed while it wrote leaves half a line. Readers skip it as not JSON once it has a newline.
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                os.write(self._fd, b"\n")

    def emit(self, type: str, **fields: Any) -> None:
        line = json.dumps({"type": type, "ts": time.time(), **jsonable(fields)}, allow_nan=False, separators=(",", ":"))
        self._append(line.encode() + b"\n")

    def _append(self, line: bytes) -> None:
        size, written = os.fstat(self._fd).st_size, 0
        try:
            while written < len(line):  # a disk that is nearly full writes a part before it fails
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
    """Report of all processes of a run except the first. Only their errors reach the event file."""

    def __init__(self, run_dir: Path, cache_dir: Path | None = None, cache_bytes: int = CACHE_BYTES) -> None:
        self.run_dir, self.cache_dir, self.cache_bytes = run_dir, cache_dir, cache_bytes

    def emit(self, type: str, **fields: Any) -> None:
        if type == "error":
            file = EventFile(self.run_dir)
            file.emit(type, **fields)
            file.close()

    def save_image(self, png: bytes) -> str:
        return ""

    def close(self) -> None:
        pass
