"""Facts about the rows of a source, which its readers collect."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from calibrl_core.data.formats import FORMATS
from calibrl_core.data.formats.base import RowFormat
from calibrl_core.data.schema import Example


@dataclass
class SourceFacts:
    """Format and columns of a source. Complete once all its rows are read."""

    form: RowFormat | None = None
    columns: set[str] = field(default_factory=set)
    filled: set[str] = field(default_factory=set)  # columns with content
    used: set[str] = field(default_factory=set)  # columns that the format read

    @property
    def unused(self) -> tuple[str, ...]:
        """Columns with content that the format does not use."""
        return tuple(sorted(self.filled - self.used))

    def to_json(self) -> str:
        """Return the facts for `take_json`."""
        form = FORMATS.index(self.form) if self.form in FORMATS else None
        return json.dumps([form, *map(sorted, (self.columns, self.filled, self.used))])

    def take_json(self, text: str) -> None:
        """Take over the facts of an earlier reading by the same code."""
        form, *sets = json.loads(text)
        self.form = None if form is None else FORMATS[form]
        self.columns, self.filled, self.used = map(set, sets)

    def summary(self, examples: Sequence[Example]) -> str:
        """Return the format, the number of rows, experts and images, and the unused columns, as one line."""
        title = self.form.title if self.form else "no format"
        experts = images = 0
        for example in examples:  # once: large data is on the disk
            experts += bool(example.expert)
            images += bool(example.images)
        unused = ", ".join(self.unused) or "none"
        return f"{len(examples)} rows in {title}, {experts} with expert, {images} with images; unused columns: {unused}"
