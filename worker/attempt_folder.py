"""An attempt's folder: begun with the checkpoints that the database knows of, so that the trainer goes on from there.

No two attempts write into one folder. A trainer that outlives its lease, because its supervisor was stopped or cut off,
can therefore harm nothing of the attempt that follows: not its events, not its log, not its checkpoints. It may remove
its own, which the next attempt wants; so the supervisor keeps links to those that the database knows, in `kept/`.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from jobs.files.artifacts import missing_checkpoints
from jobs.files.links import link_tree
from jobs.lifecycle import KnownCheckpoint

CHECKPOINTS = "checkpoints"  # as `calibrl_core.run.checkpoint` names it
KEPT = "kept"
ATTEMPT = "attempt-"


class CheckpointsMissing(Exception):
    """The database lists checkpoints of the job, and this machine has none of them: the attempt must not start."""


def begin(run_dir: Path, checkpoints: Sequence[KnownCheckpoint]) -> None:
    """Make an attempt's folder, with the job's checkpoints so far as links: no copy where the disk is the same.

    A single checkpoint that is missing is left out, and the run goes on from an earlier one.

    Raises:
        CheckpointsMissing: there are checkpoints, and this machine has none of them; no folder was made.
        OSError: one that is there could not be linked or copied.
    """
    folder = run_dir / CHECKPOINTS
    places = [(folder / one.path.name, one.path, one.path.parent.parent / KEPT / one.path.name) for one in checkpoints]
    missing = missing_checkpoints([one.step for one in checkpoints], [one.path.parent for one in checkpoints])
    if places and not any(place.is_dir() for each in places for place in each):
        raise CheckpointsMissing(missing)
    folder.mkdir(parents=True, exist_ok=True)
    for own, source, kept in places:
        if not own.exists() and not link_tree(source, folder):
            link_tree(kept, folder)
    if places and not any(own.is_dir() for own, _, _ in places):  # removed meanwhile
        raise CheckpointsMissing(missing)


def keep(run_dir: Path, checkpoints: Iterable[Path]) -> None:
    """Have `kept/` hold links to these checkpoints of the attempt, and to no others."""
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
    """Remove the links: the attempt's trainer has ended, so that nobody removes what they lead to."""
    shutil.rmtree(run_dir / KEPT, ignore_errors=True)


def has_checkpoint(run_dir: Path) -> bool:
    """Return if the attempt's folder holds a checkpoint: one that it goes on from, or one that it has saved."""
    return any((run_dir / CHECKPOINTS).glob("[!.]*"))


def remove_earlier_checkpoints(run_dir: Path) -> None:
    """Remove the checkpoints that earlier attempts left: this one's folder has what is still wanted of them.

    Never a later attempt's: this supervisor may have been stopped since it was told that the job is its own.
    """
    job_dir, number = run_dir.parent, _number(run_dir)
    earlier = [path for path in job_dir.glob(f"{ATTEMPT}*") if _number(path) < number]
    left = [attempt / name for attempt in earlier for name in (CHECKPOINTS, KEPT)]
    for folder in (*left, job_dir / CHECKPOINTS):  # the last: of jobs from before attempts had folders
        shutil.rmtree(folder, ignore_errors=True)


def _number(run_dir: Path) -> int:
    return int(run_dir.name.removeprefix(ATTEMPT))
