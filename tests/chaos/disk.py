"""A small disk for one job's run folder, which a fault can fill and free."""

import errno
import subprocess
from pathlib import Path

from tests.support.waiting import LIMIT_SECONDS

FILLER = "filler"
CHUNK = 4096


def mount(folder: Path, megabytes: int = 4) -> None:
    """Mount a small separate disk at this folder.

    Raises:
        CalledProcessError: mounting is not permitted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m"
    command = ["mount", "-t", "tmpfs", "-o", options, "chaos", str(folder)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_SECONDS)


def fill(folder: Path) -> None:
    """Fill the disk completely."""
    with (folder / FILLER).open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(CHUNK))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def free(folder: Path) -> None:
    """Remove the file that fills the disk."""
    (folder / FILLER).unlink(missing_ok=True)


def unmount(folder: Path) -> None:
    """Unmount the disk; its content is lost."""
    subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True, timeout=LIMIT_SECONDS)


def possible(folder: Path) -> str | None:
    """Return None if this machine permits small disks, else the reason why not."""
    try:
        mount(folder)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        return f"no tmpfs can be mounted here: {getattr(error, 'stderr', error)}".strip()
    unmount(folder)
    return None
