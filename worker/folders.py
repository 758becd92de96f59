"""An attempt's folder: begun with the checkpoints that the database knows of, so that the trainer goes on from there.

No two attempts write into one folder. A trainer that outlives its lease, because its supervisor was stopped or cut off,
can therefore harm nothing of the attempt that follows: not its events, not its log, not its checkpoints. It may remove
its own, which the next attempt wants; so the supervisor keeps links to those that the database knows, in `kept/`.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from jobs.lifecycle import KnownCheckpoint

CHECKPOINTS = "checkpoints"  # as `calibrl_core.checkpoint` names it
KEPT = "kept"
ATTEMPT = "attempt-"


def begin(run_dir: Path, checkpoints: Sequence[KnownCheckpoint]) -> None:
    """Make an attempt's folder, with the job's checkpoints so far as links: no copy where the disk is the same.

    A checkpoint that is gone, as where a machine does not share its disk, is left out: the run then begins earlier.

    Raises:
        OSError: one that is there could not be linked or copied.
    """
    folder = run_dir / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    for checkpoint in checkpoints:
        source = Path(checkpoint.path)
        kept = source.parent.parent / KEPT / source.name
        if not (folder / source.name).exists() and not _link_tree(source, folder):
            _link_tree(kept, folder)


def keep(run_dir: Path, checkpoints: Iterable[Path]) -> None:
    """Have `kept/` hold links to these checkpoints of the attempt, and to no others."""
    folder = run_dir / KEPT
    folder.mkdir(exist_ok=True)
    own = {path.name: path for path in checkpoints if path.parent == run_dir / CHECKPOINTS}
    for name, path in own.items():
        if not (folder / name).exists():
            _link_tree(path, folder)
    for old in folder.iterdir():
        if old.name not in own:
            shutil.rmtree(old, ignore_errors=True)


def forget_kept(run_dir: Path) -> None:
    """Remove the links: the attempt's trainer has ended, so that nobody removes what they lead to."""
    shutil.rmtree(run_dir / KEPT, ignore_errors=True)


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


def _link_tree(source: Path, folder: Path) -> bool:
    """Link a checkpoint into a folder, whole or not at all; False where it is gone, also if that happens meanwhile."""
    partial = folder / f".partial-{source.name}"
    shutil.rmtree(partial, ignore_errors=True)
    before = _files(source)
    if not before:
        return False
    try:
        shutil.copytree(source, partial, copy_function=_link)
        if _files(source) == before == _files(partial):
            partial.rename(folder / source.name)
            return True
    except (shutil.Error, OSError) as error:
        if _files(source) == before:
            raise OSError(*_first(error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return False  # whoever kept it was removing it


def _files(folder: Path) -> set[str]:
    # `os.walk` says nothing of a folder that is removed while it is being read; `rglob` raises.
    return {str((Path(root) / name).relative_to(folder)) for root, _, names in os.walk(folder) for name in names}


def _first(error: OSError) -> tuple[int, str]:
    """The number and text of an error; `copytree` collects those of all files, as text."""
    if isinstance(error, shutil.Error):
        text = str(error.args[0][0][2])
        full = os.strerror(errno.ENOSPC) in text or os.strerror(errno.EDQUOT) in text
        return (errno.ENOSPC if full else errno.EIO), text
    return error.errno or errno.EIO, str(error)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one that knows no links
        shutil.copy2(source, target)
    return target
