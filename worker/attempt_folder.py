"""The folder of one attempt. It starts with links to the job's recorded checkpoints: the trainer resumes there. An
evaluation or audit continues behind the results of the attempt before.

Each attempt writes into its own folder. A trainer can outlive its lease if its supervisor was suspended or cut off.
Such a trainer cannot damage the events, log or checkpoints of the next attempt. It can still remove its own
checkpoints, which the next attempt needs. For that reason the supervisor keeps links to the recorded checkpoints in
`kept/`.
"""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from jobs.files.artifacts import RESULTS, missing_checkpoints
from jobs.files.hard_links import link_tree
from jobs.lifecycle import KnownCheckpoint

CHECKPOINTS = "checkpoints"  # as `calibrl_core.run.checkpoint` names it
KEPT = "kept"
ATTEMPT = "attempt-"


class CheckpointsMissing(Exception):
    """The database lists checkpoints of the job, but this machine has none of them: the attempt must not start."""


def begin(run_dir: Path, checkpoints: Sequence[KnownCheckpoint]) -> None:
    """Make the folder of an attempt with links to the job's checkpoints; copies only if they are on another disk. The
    results of an earlier attempt are copied, because its trainer can still write to them.

    A single missing checkpoint is skipped: the run then resumes from an earlier one.

    Raises:
        CheckpointsMissing: checkpoints are recorded, but this machine has none of them; no folder was made.
        OSError: an existing checkpoint or result could not be linked or copied.
    """
    folder = run_dir / CHECKPOINTS
    places = [(folder / one.path.name, one.path, one.path.parent.parent / KEPT / one.path.name) for one in checkpoints]
    missing = missing_checkpoints([one.step for one in checkpoints], [one.path.parent for one in checkpoints])
    if places and not any(place.is_dir() for each in places for place in each):
        raise CheckpointsMissing(missing)
    folder.mkdir(parents=True, exist_ok=True)
    for own, source, target in places:
        if not own.exists() and not link_tree(source, folder):
            link_tree(target, folder)
    if places and not any(own.is_dir() for own, _, _ in places):  # removed meanwhile
        raise CheckpointsMissing(missing)
    for name in RESULTS:
        _copy_result(run_dir, name)


def _copy_result(run_dir: Path, name: str) -> None:
    """Copy a file from the last attempt that has it, unless this attempt has one."""
    sources = [path / name for path in _earlier_attempts(run_dir) if (path / name).is_file()]
    if sources and not (run_dir / name).exists():
        partial = run_dir / f"{name}.partial"
        shutil.copyfile(sources[-1], partial)
        partial.replace(run_dir / name)


def keep_new(run_dir: Path, checkpoint: Path) -> None:
    """Link a checkpoint into `kept/` before it is recorded: once it is recorded, this supervisor may be suspended, and
    the trainer may remove its own. Links only, since a copy takes too long here: `keep` copies afterwards.
    """
    folder = run_dir / KEPT
    if checkpoint.parent == run_dir / CHECKPOINTS and not (folder / checkpoint.name).exists():
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
            link_tree(checkpoint, folder, or_copy=False)


def keep(run_dir: Path, checkpoints: Iterable[Path]) -> None:
    """Make `kept/` hold links to exactly these checkpoints of the attempt."""
    folder = run_dir / KEPT
    folder.mkdir(exist_ok=True)
    own = {path.name: path for path in checkpoints if path.parent == run_dir / CHECKPOINTS}
    for name, path in own.items():
        if not (folder / name).exists():
            link_tree(path, folder)
    for old in folder.iterdir():
        if old.name not in own:
            shutil.rmtree(old, ignore_errors=True)


def forget_kept(run_dir: Path) -> None:
    """Remove the links in `kept/`. Call it once the attempt's trainer has ended and can remove no checkpoint."""
    shutil.rmtree(run_dir / KEPT, ignore_errors=True)


def has_checkpoint(run_dir: Path) -> bool:
    """Return True if the attempt's folder holds a checkpoint, linked at its start or saved since."""
    return any((run_dir / CHECKPOINTS).glob("[!.]*"))


def remove_earlier_checkpoints(run_dir: Path) -> None:
    """Remove the checkpoints of earlier attempts; this attempt's folder links to those that are still needed.

    Later attempts are never touched: this supervisor may have been suspended while another one claimed the job.
    """
    left = [attempt / name for attempt in _earlier_attempts(run_dir) for name in (CHECKPOINTS, KEPT)]
    for folder in (
        *left,
        run_dir.parent / CHECKPOINTS,
    ):  # the last: jobs from before attempts had folders
        shutil.rmtree(folder, ignore_errors=True)


def _earlier_attempts(run_dir: Path) -> list[Path]:
    """Return the folders of the attempts before this one, in order."""
    number = _number(run_dir)
    return sorted((path for path in run_dir.parent.glob(f"{ATTEMPT}*") if _number(path) < number), key=_number)


def _number(run_dir: Path) -> int:
    return int(run_dir.name.removeprefix(ATTEMPT))
