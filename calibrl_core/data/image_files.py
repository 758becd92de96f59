"""The content of an image file that a row names."""

from pathlib import Path
from typing import Self


class FileBytes(bytes):
    """Content of a file, with its path, so that stored rows can name the file instead of a copy."""

    path: Path
    modified: int  # nanoseconds since 1970

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the content of a file."""
        modified = path.stat().st_mtime_ns  # before the content, so that a change meanwhile is noticed
        found = cls(path.read_bytes())
        found.path, found.modified = path, modified
        return found
