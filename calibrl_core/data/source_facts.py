"""Facts about the rows of a source, which its readers collect."""

from collections.abc import Sequence
from dataclasses import dataclass, field

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

    def summary(self, examples: Sequence[Example]) -> str:
        """Return the format, the number of rows, experts and images, and the unused columns, as one line."""
        title = self.form.title if self.form else "no format"
        experts = sum(bool(example.expert) for example in examples)
        images = sum(bool(example.images) for example in examples)
        unused = ", ".join(self.unused) or "none"
        return f"{len(examples)} rows in {title}, {experts} with expert, {images} with images; unused columns: {unused}"
