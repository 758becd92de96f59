"""An attempt's folder: begun with the checkpoints that the database knows of, so that the trainer goes on from there.

No two attempts write into one folder. A trainer that outlives its lease, because its supervisor was stopped or cut off,
can therefore harm nothing of the attempt that follows: not its events, not its log, not its checkpoints.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from jobs.lifecycle import KnownCheckpoint

CHECKPOINTS = "checkpoints"  # as `calibrl_core.checkpoint` names it


def begin(run_dir: Path, checkpoints: Sequence[KnownCheckpoint]) -> None:
    """Make an attempt's folder, with the job's checkpoints so far as links: no copy where the disk is the same.

    A checkpoint that is gone, as where a machine does not share its disk, is left out: the run then begins earlier.
    """
    folder = run_dir / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    for checkpoint in checkpoints:
        source = Path(checkpoint.path)
        target = folder / source.name
        partial = folder / f"{source.name}.partial"
        if target.exists() or not source.is_dir():
            continue
        with suppress(FileNotFoundError, shutil.Error):  # removed meanwhile, by whoever kept it
            shutil.copytree(source, partial, copy_function=_link, dirs_exist_ok=True)
            partial.rename(target)


def remove_earlier_checkpoints(run_dir: Path) -> None:
    """Remove the checkpoints that other attempts left: this one's folder has what is still wanted of them."""
    for attempt in run_dir.parent.glob("attempt-*"):
        if attempt != run_dir:
            shutil.rmtree(attempt / CHECKPOINTS, ignore_errors=True)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one that knows no links
        shutil.copy2(source, target)
    return target
