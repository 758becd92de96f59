"""Warnings of a data report: the rows of each kind, and a sentence with the remedy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from calibrl_core.data.report_facts import ReportWarning

SHOWN = 20  # rows of a warning
LONGEST_REASON = 300  # characters of the reason of the first row
LONGEST_PROBLEM = 2_000  # characters of a problem of the whole source


class _WarningKind(NamedTuple):
    """`text`: the sentence, with {count}, {rows} and {first} (the reason of the first row)."""

    text: str
    dropped: bool = False  # `--write` leaves these rows out


# The most harmful one first.
KINDS = {
    "unreadable": _WarningKind("{first}"),
    "invalid": _WarningKind("{count} of {rows} rows cannot be used ({first}): correct or remove them", dropped=True),
    "unearnable": _WarningKind(
        "{count} of {rows} rows have an answer that no completion can earn ({first}): correct it, choose another "
        "reward, or set unearnable: drop",
        dropped=True,
    ),
    "wrong_experts": _WarningKind(
        "{count} of {experts} experts fail the rewards ({first}), so that a run can learn to avoid them: correct or "
        "remove them",
        dropped=True,
    ),
    "not_asked": _WarningKind("{first}"),
    "overlap_prompts": _WarningKind(
        "{count} of {rows} prompts are in the validation data too, whose results then show memory: remove them from "
        "one of the two",
        dropped=True,
    ),
    "overlap_near": _WarningKind(
        "{count} of {rows} prompts nearly equal one of the validation data ({first}): look at them, and remove what is "
        "the same problem"
    ),
    "overlap_images": _WarningKind(
        "{count} of {rows} rows have an image of the validation data with another question: split the data by image"
    ),
    "contradictions": _WarningKind(
        "{count} of {rows} rows have the prompt of an earlier row and another answer ({first}): keep the right one"
    ),
    "long_experts": _WarningKind(
        "{count} of {experts} experts have more than {max_completion_tokens} tokens and are cut, so that none of them "
        "teaches its answer: raise rollout.max_completion_tokens or shorten them"
    ),
    "long_prompts": _WarningKind(
        "{count} of {rows} prompts have more than {max_prompt_tokens} tokens: raise prompts.max_tokens, or set "
        "prompts.too_long: drop"
    ),
    "refused_by_model": _WarningKind(
        "{count} of {rows} rows cannot be encoded by the model ({first}): correct or remove them"
    ),
    "duplicates": _WarningKind("{count} of {rows} rows repeat an earlier row: remove them", dropped=True),
    "near_duplicates": _WarningKind(
        "{count} of {rows} rows nearly repeat the text of an earlier row ({first}): look at them, and remove what is "
        "the same problem"
    ),
    "unparsed": _WarningKind(
        "{count} of {rows} answers look like mathematics, but cannot be parsed ({first}), so that only the same "
        "characters pass: correct them"
    ),
    "read_as_text": _WarningKind(
        "{count} of {rows} answers are longer than 500 characters or empty, so that they are compared as text: shorten "
        "them to the final answer"
    ),
}


@dataclass
class _RowsOfKind:
    count: int = 0
    first: list[int] = field(default_factory=list)
    reason: str = ""


class FoundRows:
    """Rows of each kind. `dropped`: the rows that `--write` leaves out, with the kind."""

    def __init__(self) -> None:
        self._rows: dict[str, _RowsOfKind] = {}
        self.dropped: dict[int, str] = {}

    def add(self, kind: str, row: int, reason: str = "") -> None:
        """Count a row (0: the whole source). `reason`: what the sentence says of the first one."""
        found = self._rows.setdefault(kind, _RowsOfKind())
        if not found.count:
            found.reason = _short(reason, LONGEST_REASON if row else LONGEST_PROBLEM) or f"row {row}"
            found.reason = f"row {row}: {found.reason}" if row and reason else found.reason
        found.count += 1
        if row and len(found.first) < SHOWN:
            found.first.append(row)
        if KINDS[kind].dropped:
            self.dropped.setdefault(row, kind)

    def count(self, kind: str) -> int:
        """Return the number of rows of a kind."""
        return self._rows[kind].count if kind in self._rows else 0

    def warnings(self, numbers: Mapping[str, int | None]) -> list[ReportWarning]:
        """Return the warnings, the most harmful one first. `numbers`: values of the sentences."""
        return [
            ReportWarning(
                kind=name,
                message=kind.text.format(count=found.count, first=found.reason, **numbers),
                count=found.count,
                rows=found.first,
            )
            for name, kind in KINDS.items()
            if (found := self._rows.get(name))
        ]


def _short(text: str, longest: int) -> str:
    shown = " ".join(text[: longest + 1].split())
    return shown if len(text) <= longest else f"{shown} ..."
