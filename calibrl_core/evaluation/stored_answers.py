"""The answers of an evaluation, in a file of JSON lines: one per prompt of each model, dataset and way of sampling.

Answers are appended batch by batch, so that an evaluation that was stopped or killed continues behind its last whole
batch. Rows of other settings, models or prompts are removed from the file at the start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from calibrl_core.data.schema import Example
from calibrl_core.data.stored_images import content_digests
from calibrl_core.evaluation.accuracy import Answers
from calibrl_core.settings.image_changes import ImageChange
from calibrl_core.verifiers.scorer import Score


def prompt_digest(example: Example) -> str:
    """Return 16 hexadecimal digits that identify a prompt: everything that a model sees, and the right answer."""
    shown = [example.question, example.answer, *(f"{turn.role}: {turn.text}" for turn in example.earlier)]
    parts = json.dumps([*shown, *content_digests(example.images)])
    return sha256(parts.encode()).hexdigest()[:16]


How = Literal["sampled", "greedy"] | ImageChange  # a change: sampled with changed images


class Part(NamedTuple):
    """Answers of one model to one dataset, sampled in one way."""

    model_index: int
    split: str
    how: How


@dataclass(frozen=True)
class Expected:
    """Properties that the rows of a part must have."""

    settings: str  # digest of the model and of all settings that answers and verdicts depend on
    prompts: Sequence[str]  # digest of each prompt
    batch: int  # prompts that are sampled together


class StoredAnswers:
    """The file of answers, with whole batches of the expected parts only."""

    def __init__(self, path: Path, parts: Mapping[Part, Expected]) -> None:
        """Open the file, or begin an empty one. Rows that do not fit are removed.

        Raises:
            OSError: the file cannot be read or written.
        """
        self._path, self._parts = path, parts
        self._kept = self._whole_batches()
        self._starts: dict[Part, int] = {}  # place of a part's first row in the file, bytes
        self._remove_other_rows()

    @property
    def batches(self) -> int:
        """Return the number of stored batches."""
        return sum(-(-count // self._parts[part].batch) for part, count in self._kept.items())

    def complete(self, part: Part) -> bool:
        """Return if all prompts of a part were answered when the file was opened."""
        return self._kept[part] == len(self._parts[part].prompts)

    def read(self, part: Part, examples: Sequence[Example]) -> Answers:
        """Return the answers to the first prompts of a part, as many as were stored when the file was opened.
        `examples`: all of them.
        """
        return _answers(list(self._rows(part)), examples)

    def append(self, part: Part, answers: Answers) -> None:
        """Store the answers to the next batch of a part."""
        rows = _rows(part, self._parts[part].settings, answers)
        with self._path.open("a") as file:
            file.write("".join(f"{json.dumps(row)}\n" for row in rows))

    def _whole_batches(self) -> dict[Part, int]:
        """Return the number of rows to keep of each part: whole batches from its first prompt on."""
        counts = dict.fromkeys(self._parts, 0)
        silent: dict[Part, set[str]] = {}  # verifiers that gave no verdict at all
        closed: set[Part] = set()
        for part, row, _ in self._lines():
            expected = self._parts[part]
            place = counts[part]
            if part in closed or place == len(expected.prompts) or row["prompt"] != expected.prompts[place]:
                closed.add(part)
                continue
            counts[part] += 1
            for failed in row["failed"]:
                silent[part] = silent.get(part, set(failed)) & set(failed)
        for part, count in counts.items():
            if silent.get(part):
                counts[part] = 0  # the evaluation ended for this reason: ask the verifier again
            elif count < len(self._parts[part].prompts):
                counts[part] = count - count % self._parts[part].batch
        return counts

    def _remove_other_rows(self) -> None:
        partial = self._path.with_suffix(".partial")
        left = dict(self._kept)
        with partial.open("wb") as file:
            for part, _, line in self._lines():
                if left[part]:
                    self._starts.setdefault(part, file.tell())
                    file.write(line.rstrip(b"\n") + b"\n")
                    left[part] -= 1
        partial.replace(self._path)

    def _rows(self, part: Part) -> Iterator[dict[str, Any]]:
        """Yield the rows of a part that are kept."""
        if part in self._starts:
            own = (row for found, row, _ in self._lines(self._starts[part]) if found == part)
            yield from islice(own, self._kept[part])

    def _lines(self, start: int = 0) -> Iterator[tuple[Part, dict[str, Any], bytes]]:
        """Yield the whole rows of the file that belong to expected parts, from byte `start` on."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(start)
            for line in file:
                try:
                    row = json.loads(line)
                    part = Part(row["model_index"], row["split"], row["how"])
                    known = row["settings"] == self._parts[part].settings
                except (ValueError, LookupError, TypeError):  # cut by a kill, or from another version
                    continue
                if known:
                    yield part, row, line


def _rows(part: Part, settings: str, answers: Answers) -> Iterator[dict[str, Any]]:
    """Yield one row per prompt."""
    for place, (example, scores) in enumerate(zip(answers.examples, answers.scores, strict=True)):
        yield {
            **part._asdict(),
            "prompt_id": example.id,
            "data_source": example.data_source,
            "answer": example.answer,
            "texts": answers.texts[place],
            "passed": [score.passed for score in scores],
            "strict": [score.strict for score in scores],
            "rewards": [score.reward for score in scores],
            "by_verifier": [score.by_verifier for score in scores],
            "lengths": answers.lengths[place].tolist(),
            "truncated": answers.truncated[place].tolist(),
            "logprobs": answers.logprobs[place].tolist(),
            "failures": [score.failure for score in scores],
            "failed": [score.failed for score in scores],
            "prompt": prompt_digest(example),
            "settings": settings,
        }


def _answers(rows: Sequence[Mapping[str, Any]], examples: Sequence[Example]) -> Answers:
    """Return the answers that rows hold, to the first of `examples`."""
    columns = ("by_verifier", "rewards", "passed", "strict", "failures", "failed")
    return Answers(
        examples=examples[: len(rows)],
        texts=[row["texts"] for row in rows],
        scores=[
            [
                Score(by_verifier, reward, passed, strict, failure, tuple(failed))
                for by_verifier, reward, passed, strict, failure, failed in zip(
                    *(row[name] for name in columns), strict=True
                )
            ]
            for row in rows
        ],
        lengths=np.array([row["lengths"] for row in rows], dtype=np.int64),
        truncated=np.array([row["truncated"] for row in rows], dtype=np.bool_),
        logprobs=np.array([row["logprobs"] for row in rows], dtype=np.float64),
    )
