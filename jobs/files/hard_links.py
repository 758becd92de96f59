"""Copies of folders as hard links: they use no space, and stay when the original is removed."""

import errno
import os
import shutil
from pathlib import Path


def link_tree(source: Path, folder: Path, *, or_copy: bool = True) -> bool:
    """Link a checkpoint into a folder, completely or not at all. Return False if it does not exist, or is removed
    meanwhile.

    Args:
        or_copy: copy files that cannot be linked.

    Raises:
        OSError: the checkpoint exists but could not be linked or copied.
    """
    partial = folder / f".partial-{source.name}"
    shutil.rmtree(partial, ignore_errors=True)
    before = _files(source)
    if not before:
        return False
    try:
        shutil.copytree(source, partial, copy_function=_link if or_copy else os.link)
        if _files(source) == before == _files(partial):
            partial.rename(folder / source.name)
            return True
    except (shutil.Error, OSError) as error:
        if _files(source) == before:
            raise OSError(*_first(error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return False  # another process was removing it


def _files(folder: Path) -> set[str]:
    # `os.walk` says nothing of a folder that is removed while it is being read; `rglob` raises.
    return {str((Path(root) / name).relative_to(folder)) for root, _, names in os.walk(folder) for name in names}


def _first(error: OSError) -> tuple[int, str]:
    """Return number and text of an error. `copytree` collects the errors of all files as text."""
    if isinstance(error, shutil.Error):
        text = str(error.args[0][0][2])
        known = (number for number in errno.errorcode if os.strerror(number) in text)
        return next(known, errno.EINVAL), text  # not EIO, which can pass: the start would be repeated
    return error.errno or errno.EIO, str(error)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)
    return target
