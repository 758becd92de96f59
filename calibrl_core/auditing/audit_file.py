"""The rows of an audit, in a file of JSON lines: one per row with an expert, in the order of the data.

Rows are appended batch by batch, so that an audit that was stopped or killed continues behind its last whole batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from calibrl_core.auditing.facts import AuditRow
from calibrl_core.data.schema import Example
from calibrl_core.evaluation.stored_answers import prompt_digest


class StoredRow(AuditRow):
    """A row with all that the summary needs."""

    gap_counts: list[int]  # tokens by gap, in the intervals of GAP_EDGES
    rewrite: str | None = None  # the restated expert that replaces the expert
    expert_digest: str  # digest of the prompt and its expert
    settings: str  # digest of the model and of all settings that the row depends on


def expert_digest(example: Example) -> str:
    """Return 16 hexadecimal digits that identify a prompt with its expert."""
    parts = json.dumps([prompt_digest(example), example.expert])
    return sha256(parts.encode()).hexdigest()[:16]


class AuditFile:
    """The file, with whole batches of the expected rows only. `kept`: number of rows when it was opened."""

    def __init__(self, path: Path, settings: str, examples: Sequence[Example], batch: int) -> None:
        """Open the file, or begin an empty one. Rows from the first one on that does not fit are removed.

        Args:
            settings: digest of the settings.
            examples: with an expert each, in order.
            batch: examples that are audited together.

        Raises:
            OSError: the file cannot be read or written.
        """
        self._path, self._settings = path, settings
        count = self._fitting(examples)
        self.kept = count if count == len(examples) else count - count % batch
        self._cut()

    def rows(self) -> Iterator[StoredRow]:
        """Yield the rows that were kept."""
        with self._path.open("rb") as file:
            for line in islice(file, self.kept):
                yield StoredRow.model_validate_json(line)

    def append(self, rows: Sequence[StoredRow]) -> None:
        """Store the rows of the next batch."""
        with self._path.open("a") as file:
            file.write("".join(f"{row.model_dump_json()}\n" for row in rows))

    def _fitting(self, examples: Sequence[Example]) -> int:
        if not self._path.exists():
            return 0
        count = 0
        with self._path.open("rb") as file:
            for line in islice(file, len(examples)):
                try:
                    row = StoredRow.model_validate_json(line)
                except ValidationError:  # cut by a kill, or from another version
                    break
                if row.settings != self._settings or row.expert_digest != expert_digest(examples[count]):
                    break
                count += 1
        return count

    def _cut(self) -> None:
        partial = self._path.with_suffix(".partial")
        with partial.open("wb") as file:
            if self.kept:
                with self._path.open("rb") as before:
                    file.writelines(islice(before, self.kept))
        partial.replace(self._path)
