"""A row of a dataset, as a format reads it: cells by column, with a record of the columns that were read."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from calibrl_core.data.images import read_images
from calibrl_core.data.schema import ColumnRole, Columns

IMAGE_COLUMNS = (
    *("images", "image", "decoded_image", "image_path", "image_paths", "img_path", "image_url", "image_urls"),
    *("image_file", "img", "picture", "pictures"),
)
_NUMBERED = re.compile(r"images?_?(\d{1,3})")


class Cell(NamedTuple):
    """A value with the name of its column, for messages."""

    column: str
    value: Any


def has_content(value: Any) -> bool:
    """Return false for an empty cell: None, an empty text, list or object, and an object of empty values."""
    if isinstance(value, dict):
        return any(map(has_content, value.values()))
    return not (value is None or (isinstance(value, str | list | tuple) and not value))


@dataclass(frozen=True)
class Row:
    """One row as read from its source."""

    id: str
    values: dict[str, Any]
    columns: Columns
    folder: Path | None  # folder that must contain its image files; None: the row cannot name files
    used: set[str] = field(default_factory=set)  # receives the columns that are read

    def cell(self, *names: str, role: ColumnRole | None = None) -> Cell:
        """Return the first cell with content of these columns, or of the one that the user names for the role.

        Without content: the first of the columns that the row has.
        """
        if role is not None and (named := self.columns.named(role)):
            names = (named,)
        name = self._first(names)
        self.used.add(name)
        return Cell(name, self.values.get(name))

    def text(self, *names: str) -> str:
        """Return the first content of these columns as text; an empty text without any."""
        value = self.cell(*names).value
        return str(value) if has_content(value) else ""

    def images(self, *names: str) -> tuple[bytes, ...]:
        """Return the images of the first of these columns that has some (by default of IMAGE_COLUMNS), or of the column
        that the user names, or else of the columns image_1, image_2 ...

        Raises:
            DataError: an image is missing, invalid or too large.
        """
        value = self.cell(*(names or IMAGE_COLUMNS), role="images").value
        if has_content(value) or self.columns.named("images"):
            return read_images(value, self.folder)
        numbered = [name for _, name in self.numbered_images()]
        if not numbered:
            return read_images(value, self.folder)  # refuses an empty text
        self.used.update(numbered)
        return tuple(image for name in numbered for image in read_images(self.values[name], self.folder))

    def numbered_images(self) -> list[tuple[int, str]]:
        """Return the numbers and names of the columns image_1, image_2 ... that have content, in order."""
        found = ((name, _NUMBERED.fullmatch(name)) for name, value in self.values.items() if has_content(value))
        return sorted((int(match[1]), name) for name, match in found if match)

    def _first(self, names: Iterable[str]) -> str:
        present = [name for name in names if name in self.values]
        return next((name for name in present if has_content(self.values[name])), next(iter((*present, *names))))
